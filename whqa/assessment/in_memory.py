"""Volumes that were never files, or are not any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from whqa.data.formats.volume_files import SpacingRule, Volume, doubts, placed
from whqa.errors import InputError


def in_memory(given: Any, what: str, spacing_rule: SpacingRule = "pixdim") -> Volume:
    """A volume that is given as a nibabel image or as (array, affine).

    Args:
        given: of a nibabel image that was read from a file the header is believed as that of the file would be.
        what: it is, for messages.
        spacing_rule: what holds where pixdim and affine of a header disagree.

    Raises:
        InputError: neither, not 3-D, its affine is singular, or its header is bad, see `read_grid`.
    """
    conflict = None
    if isinstance(given, nib.spatialimages.SpatialImage):
        header = given.header if isinstance(given.header, nib.Nifti1Header) else None
        array, affine = np.asanyarray(given.dataobj), np.asarray(given.affine, dtype=np.float64)
    else:
        try:
            array, affine, header = np.asarray(given[0]), np.asarray(given[1], dtype=np.float64), None
        except (TypeError, IndexError, ValueError):
            raise InputError(f"{what}: must be a path, a nibabel image, or (array, affine)") from None
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 or affine.shape != (4, 4) or not array.size:
        raise InputError(f"{what}: array of shape {array.shape} with affine {affine.shape}; must be 3-D with 4 x 4")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{what}: singular affine")
    x, y, z = array.shape
    if header is not None:
        affine, conflict = placed(Path(given.get_filename() or what), header, (x, y, z), spacing_rule)
    return Volume(
        array.astype(np.uint8) if array.dtype == bool else array,
        affine,
        Path(what),
        header,
        doubts=doubts(header, (x, y, z), affine),
        in_memory=True,
        conflict=conflict,
        spacing_rule=spacing_rule,
    )
