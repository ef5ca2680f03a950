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
    write.add_argument("--faults", type=int, default=0, help="also masks with so many faults, to be assessed")
    write.epilog = "Example: whqa data phantom --cases 4 --out phantoms --preview phantoms.png"
    write.set_defaults(run=_phantom)

    check = kinds.add_parser("check", help="what is in a folder and what is wrong with it")
    _add_folder(check)
    check.add_argument("--json", action="store_true", help="for machines, every finding in full")
    check.set_defaults(run=_check, takes_settings=True)

    preview = kinds.add_parser("preview", help="one picture of a cohort, or of a case")
    _add_folder(preview)
    preview.add_argument("--case", metavar="ID", help="this case alone, larger, with volumes")
    preview.add_argument("--limit", type=int, default=100, help="of the cases shown, evenly chosen (default 100)")
    preview.add_argument("--out", type=Path, help="PNG (default: preview.png, or preview-<case>.png)")
    preview.set_defaults(run=_preview, takes_settings=True)

    prepare = kinds.add_parser("prepare", help="fill an experiment's cache: whqa data prepare experiment=NAME --jobs 4")
    prepare.epilog = (
        "settings of the experiment follow as key=value; a second call makes only what is missing. "
        "Example: whqa data prepare experiment=demo --jobs 4"
    )
    prepare.add_argument("--jobs", type=int, help="processes side by side, of one thread each (default: all CPUs)")
    prepare.add_argument(
        "--prune",
        action="store_true",
        help="remove everything else from the cache directory: old entries, and those of other experiments",
    )
    prepare.set_defaults(run=_prepare, takes_settings=True)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that reads a folder of scans; settings of the source follow as key=value."""
    parser.epilog = (
        "settings of the source follow as key=value, e.g. modality=mr spacing_rule=affine. "
        f"Example: {parser.prog} DIR --source mmwhs modality=mr"
    )
    parser.add_argument("directory", type=_folder, metavar="DIR", help="folder with the scans")
    parser.add_argument("--source", help="its layout, e.g. mmwhs (default: the one that is recognised)")
    parser.add_argument("--jobs", type=int, help="processes side by side (default: all CPUs)")


def _folder(text: str) -> Path | str:
    # an unset variable of the shell is not the current folder, which Path would make of it
    return Path(text) if text.strip() else ""


def _cohort(options: argparse.Namespace, overrides: list[str]) -> tuple[str, Cohort]:
    from whqa.config.cohorts import cohort_of, recognised

    if options.jobs is not None and options.jobs < 1:
        raise InputError(f"--jobs {options.jobs}: must be at least 1")
    source = options.source or recognised(options.directory, overrides)
    cohort = cohort_of(source, options.directory, overrides)
    if not options.source:
        print(f"read as --source {source}", file=sys.stderr)
    return source, cohort


def _check(options: argparse.Namespace, overrides: list[str]) -> int:
    source, cohort = _cohort(options, overrides)
    from whqa.cli.findings_text import check_record, print_report
    from whqa.data.findings.check import check_cohort

    start = time.monotonic()
    report = check_cohort(cohort, options.jobs)
    if options.json:
        print(json.dumps(check_record(report, source, str(options.directory)), indent=2, allow_nan=False))
    else:
        print_report(report, str(options.directory))
        print(f"looked at in {time.monotonic() - start:.1f} s", file=sys.stderr)
    return 1 if any(finding.severity == "error" for finding in report.findings) else 0


def _prepare(options: argparse.Namespace, overrides: list[str]) -> int:
    from omegaconf import OmegaConf

    from whqa.config.instantiate import make
    from whqa.config.words import compose_config

    config = compose_config(overrides)
    from whqa.cli.cache_text import print_cache
    from whqa.data.cache import Cache
    from whqa.data.prepare import prepare_each
    from whqa.data.preprocess import Preprocess

    settings = Preprocess(**OmegaConf.to_container(config.preprocess, resolve=True))  # type: ignore[arg-type]
    cohort, cache = make(config.data).labelled, Cache(Path(config.cache_dir), settings)
    start = time.monotonic()
    outcomes = prepare_each(cohort, cache, jobs=options.jobs)
    bad = [*cohort.problems, *(outcome.error for outcome in outcomes if outcome.error)]
    for line in bad:
        print(f"bad: {line}", file=sys.stderr)
    print_cache(cache, cohort.name, outcomes, time.monotonic() - start, options.prune)
    return 1 if bad else 0


def _phantom(options: argparse.Namespace, overrides: list[str]) -> int:
    from whqa.data.phantom import phantom_cohort

    if options.faults < 0:
        raise InputError(f"--faults {options.faults}: must not be negative")
    if options.preview:
        _check_picture(options.preview)
    cohort = phantom_cohort(options.out, options.cases, options.modality, options.seed, options.spacing)
    print(f"{len(cohort.cases)} phantom(s) in {options.out}")
    if options.faults:
        from whqa.masks.corruption import write_faulty_mask

        made = set()
        for number, case in enumerate(cohort.cases):
            if case.label is not None:
                mask = case.label.with_name(f"{case.id}_mask.nii.gz")
                made.add(len(write_faulty_mask(case.label, cohort.scheme, options.faults, options.seed + number, mask)))
        count = "-".join(map(str, dict.fromkeys((min(made), max(made))))) if made else "0"
        print(f"masks with {count} fault(s), and records of these: {options.out}/*_mask.nii.gz, *_mask.json")
    if options.preview:
        from whqa.report.cohort_sheets import write_contact_sheet

        write_contact_sheet(cohort, options.preview)
        print(options.preview)
    return 0


def _preview(options: argparse.Namespace, overrides: list[str]) -> int:
    out = options.out or Path(f"preview-{options.case}.png" if options.case else "preview.png")
    _check_picture(out)
    _, cohort = _cohort(options, overrides)
    from whqa.report.cohort_sheets import write_case_sheet, write_contact_sheet

    bad = {}
    if options.case:
        write_case_sheet(cohort, options.case, out)
    else:
        bad = write_contact_sheet(cohort, out, options.limit, options.jobs)
    for case, reason in bad.items():
        print(f"case {case}: {reason}", file=sys.stderr)
    if cohort.problems:
        print(f"{len(cohort.problems)} problem(s) of the layout; whqa data check names them", file=sys.stderr)
    print(out)
    return 1 if bad else 0


def _check_picture(path: Path) -> None:
    # a scan in its place would be gone
    if path.is_dir() or path.suffix.lower() != ".png":
        raise InputError(f"{path}: must be the name of a picture, ending in .png")
