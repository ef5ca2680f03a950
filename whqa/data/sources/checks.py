"""What is checked before a cohort is used: the folder and all headers, in seconds, voxels unread."""

from __future__ import annotations

import warnings
from pathlib import Path

from whqa.data.case import Cohort
from whqa.data.formats.volume_files import HeaderConflictWarning
from whqa.data.reading import grids
from whqa.errors import InputError


class UnusedFilesWarning(UserWarning):
    """A data folder holds volumes that belong to no case."""


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
    try:
        folder = Path(root).expanduser()
        exists, is_folder = folder.exists(), folder.is_dir()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{str(root)!r}: cannot be opened ({reason}); give {expected}") from None
    if not exists:
        raise InputError(f"{folder}: data folder does not exist; it should be {expected}")
    if not is_folder:
        raise InputError(f"{folder}: is a file, not a data folder; it should be {expected}")
    return folder


def check_modality(modality: str | None, or_both: bool = False) -> None:
    """Whether a stated modality is one; with `or_both` None will do, too.

    Raises:
        InputError: it is not.
    """
    if modality not in (("ct", "mr", None) if or_both else ("ct", "mr")):
        raise InputError(f"modality {modality!r}: must be {'ct, mr or null for both' if or_both else 'ct or mr'}")


def checked(cohort: Cohort) -> Cohort:
    """The same cohort, once its layout is complete, every header is sound and every label lies on its image's grid.

    Warns once a cohort with `HeaderConflictWarning` where pixdim and affine disagree, and with `UnusedFilesWarning`
    where volumes of its folder belong to no case.

    Raises:
        InputError: the first problem of the layout, or the first bad file.
    """
    if cohort.problems:
        raise InputError(cohort.problems[0])
    found = [grid for case in cohort.cases for grid in grids(cohort, case)]
    conflicts = [grid for grid in found if grid.conflict]
    if conflicts:
        warnings.warn(
            f"cohort {cohort.name!r}: {len(conflicts)} of {len(found)} headers contradict themselves, e.g. "
            f"{conflicts[0].path}: {conflicts[0].conflict}; using {cohort.spacing_rule}",
            HeaderConflictWarning,
            stacklevel=3,
        )
    if cohort.unused:
        warnings.warn(
            f"cohort {cohort.name!r}: {len(cohort.unused)} volume(s) belong to no case and are not read, e.g. "
            f"{cohort.unused[0]}; `whqa data check` names them",
            UnusedFilesWarning,
            stacklevel=3,
        )
    return cohort
