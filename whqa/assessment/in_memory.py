"""Volumes that were never files, or are not any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from whqa.data.formats.volume_files import Volume, doubts
from whqa.errors import InputError


def in_memory(given: Any, what: str) -> Volume:
    """A volume that is given as a nibabel image or as (array, affine); `what` it is, for messages.

    Raises:
        InputError: neither, not 3-D, or its affine is singular.
    """
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
    return Volume(
        array.astype(np.uint8) if array.dtype == bool else array,
        affine,
        Path(what),
        header,
        doubts=doubts(header, (x, y, z), affine),
        in_memory=True,
    )
