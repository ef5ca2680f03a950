"""What every reader checks before a cohort leaves it: the folder and all headers, in seconds, voxels unread."""

from __future__ import annotations

import warnings
from pathlib import Path

from whqa.data.case import Cohort
from whqa.data.nifti import HeaderConflictWarning, check_same_grid, read_grid
from whqa.errors import InputError


def existing_folder(root: str | Path | None, expected: str) -> Path:
    """The data folder of a cohort.

    Args:
        root: as the user stated it; None, "" and Hydra's "???" count as not stated.
        expected: what the folder should look like, for the message.

    Raises:
        InputError: not stated, missing, or a file.
    """
    if root is None or str(root).strip() in ("", "???"):
        raise InputError(f"no data folder stated; give {expected}")
    folder = Path(root).expanduser()
    if not folder.exists():
        raise InputError(f"{folder}: data folder does not exist; it should be {expected}")
    if not folder.is_dir():
        raise InputError(f"{folder}: is a file, not a data folder; it should be {expected}")
    return folder


def checked(cohort: Cohort) -> Cohort:
    """The same cohort, once every header is sound and every label lies on its image's grid.

    Warns once a cohort with `HeaderConflictWarning` where pixdim and affine disagree.

    Raises:
        InputError: the first bad file.
    """
    files, conflicts = 0, []
    for case in cohort.cases:
        grids = [read_grid(path, cohort.spacing_rule) for path in (case.image, case.label) if path is not None]
        if len(grids) == 2:
            check_same_grid(*grids)
        files += len(grids)
        conflicts += [grid for grid in grids if grid.conflict]
    if conflicts:
        warnings.warn(
            f"cohort {cohort.name!r}: {len(conflicts)} of {files} headers contradict themselves, e.g. "
            f"{conflicts[0].path}: {conflicts[0].conflict}; using {cohort.spacing_rule}",
            HeaderConflictWarning,
            stacklevel=3,
        )
    return cohort
