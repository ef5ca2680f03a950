"""`whqa data ...`: thin wrappers around the functions that do the work."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_data_commands(parser: argparse.ArgumentParser) -> None:
    """Add the sub-commands; each sets `run(options, overrides) -> exit code`, and `takes_settings` for key=value."""
    kinds = parser.add_subparsers(dest="what", required=True)
    write = kinds.add_parser("phantom", help="NIfTI files in MMWHS layout")
    write.add_argument("--cases", type=int, default=20)
    write.add_argument("--modality", choices=("ct", "mr", "both"), default="ct")
    write.add_argument("--seed", type=int, default=0)
    write.add_argument("--spacing", type=float, default=2.0, help="mm")
    write.add_argument("--out", type=Path, required=True)
    write.add_argument("--preview", type=Path, help="PNG: three planes of every case with label contours")
    write.set_defaults(run=_phantom)


def _phantom(options: argparse.Namespace, overrides: list[str]) -> int:
    from whqa.data.phantom import phantom_cohort

    cohort = phantom_cohort(options.out, options.cases, options.modality, options.seed, options.spacing)
    print(f"{len(cohort.cases)} phantom(s) in {options.out}")
    if options.preview:
        from whqa.data.preprocess import Preprocess
        from whqa.report.cohort import write_contact_sheet

        write_contact_sheet(cohort, options.preview, Preprocess((options.spacing,) * 3))
        print(options.preview)
    return 0
