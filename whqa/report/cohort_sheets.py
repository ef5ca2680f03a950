"""Pictures of a cohort's files: one sheet for all of it, or one for a case."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from whqa.data.case import Cohort
from whqa.errors import InputError
from whqa.files import atomic_path
from whqa.parallel.many import in_processes
from whqa.report.scan_sheets import SheetTile, case_sheet, contact_sheet, sheet_tile, slices_of

_SHEET_DPI, _CASE_DPI = 110, 130


def write_contact_sheet(cohort: Cohort, path: Path, limit: int = 100, jobs: int | None = None) -> dict[str, str]:
    """Three planes of every case with label contours as one PNG.

    Args:
        cohort: of any size; a case that cannot be read becomes a tile with the reason.
        path: of the PNG.
        limit: of the cases shown, evenly chosen over the cohort's order.
        jobs: processes side by side; None takes all CPUs.

    Returns:
        Case -> reason, of the cases that could not be read.

    Raises:
        InputError: `limit` or `jobs` below 1, or the place is not writable.
    """
    if limit < 1:
        raise InputError(f"--limit {limit}: must be at least 1")
    n = len(cohort.cases)
    shown = [cohort.cases[i] for i in np.unique(np.linspace(0, n - 1, min(limit, n)).round().astype(int))]
    alone = [cohort.only(case) for case in shown]
    outcomes = in_processes(sheet_tile, alone, jobs, f"drawing {cohort.name}")
    bad = {c.id: f"{o}" for c, o in zip(shown, outcomes, strict=True) if isinstance(o, Exception)}
    tiles = [
        SheetTile(case.id, reason=bad[case.id]) if isinstance(outcome, Exception) else outcome
        for case, outcome in zip(shown, outcomes, strict=True)
    ]
    some = f"{len(shown)} of {n} cases, evenly chosen" if len(shown) < n else f"{n} case{'' if n == 1 else 's'}"
    figure = contact_sheet(tiles, cohort.scheme, f"{cohort.name}: {some}")
    _save(figure, path, _SHEET_DPI)
    return bad


def write_case_sheet(cohort: Cohort, case_id: str, path: Path) -> None:
    """One case in slices along all three axes as one PNG, volumes in the legend.

    Raises:
        InputError: no such case, a file of it is bad, or the place is not writable.
    """
    known = [case.id for case in cohort.cases]
    if case_id not in known:
        near = difflib.get_close_matches(case_id, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"the first are {', '.join(known[:3])}"
        raise InputError(f"cohort {cohort.name!r} has no case {case_id!r}; {hint}")
    found = slices_of(cohort.only(cohort[case_id]))
    _save(case_sheet(found, cohort.scheme), path, _CASE_DPI)


def _save(figure: Figure, path: Path, dpi: int) -> None:
    try:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=dpi, format="png", facecolor="white")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from None
