"""`whqa data ...`: thin wrappers around the functions that do the work."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from whqa.errors import InputError

if TYPE_CHECKING:
    from whqa.data.case import Cohort


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

    check = kinds.add_parser("check", help="what is in a folder and what is wrong with it")
    _add_folder(check)
    check.add_argument("--json", action="store_true", help="for machines, every finding in full")
    check.set_defaults(run=_check, takes_settings=True)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that reads a folder of scans; settings of the source follow as key=value."""
    parser.epilog = "settings of the source follow as key=value, e.g. modality=mr spacing_rule=affine"
    parser.add_argument("directory", type=Path, metavar="DIR", help="folder with the scans")
    parser.add_argument("--source", help="its layout, e.g. mmwhs (default: the one that is recognised)")
    parser.add_argument("--jobs", type=int, help="processes side by side (default: all CPUs)")


def _cohort(options: argparse.Namespace, overrides: list[str]) -> tuple[str, Cohort]:
    from whqa.cohorts import cohort_of, recognised

    if options.jobs is not None and options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: must be at least 1")
    source = options.source or recognised(options.directory)
    cohort = cohort_of(source, options.directory, overrides)
    if not options.source:
        print(f"read as --source {source}", file=sys.stderr)
    return source, cohort


def _check(options: argparse.Namespace, overrides: list[str]) -> int:
    from whqa.data.check import check_cohort
    from whqa.report.check import check_record, print_report

    source, cohort = _cohort(options, overrides)
    start = time.monotonic()
    report = check_cohort(cohort, options.jobs)
    if options.json:
        print(json.dumps(check_record(report, source, str(options.directory)), indent=2, allow_nan=False))
    else:
        print_report(report, str(options.directory))
        print(f"looked at in {time.monotonic() - start:.1f} s", file=sys.stderr)
    return 1 if any(finding.severity == "error" for finding in report.findings) else 0


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
