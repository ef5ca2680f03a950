"""Numbers that say what an image and a mask of it look like; none needs a reference.

A trained run keeps these numbers of its own cases, so that a scan that is unlike all of them can be told
(`whqa.results.familiarity`). All are taken on the experiment's grid, axes R, A, S, but for those of the file:

    pixel_mm, slice_mm          finest and coarsest spacing of the file
    fov_{lr,ap,si}_mm           field of view of the file: left-right, front-back, foot-head
    voxels                      of the file
    all others                  of image and mask, see `whqa.metrics.appearance`
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from whqa.data.formats.volume_files import voxel_sizes
from whqa.data.preprocess import Geometry
from whqa.metrics.appearance import AXES, OF_IMAGE, OF_STRUCTURE, Array, Labels, of_image, of_mask

_OF_FILE = ("pixel_mm", "slice_mm", *(f"fov_{axis}_mm" for axis in AXES), "voxels")


def feature_names(structures: Sequence[str]) -> tuple[str, ...]:
    """Keys of `features` for these structures, in its order."""
    return (*_OF_FILE, *OF_IMAGE, "heart_ml", *(f"{name}_{s}" for s in structures for name in OF_STRUCTURE))


def features(image: Array, mask: Labels, geometry: Geometry, structures: Sequence[str]) -> dict[str, float]:
    """The numbers listed above.

    Args:
        image: (D, H, W), normalised to [-1, 1].
        mask: labels 0..C, (D, H, W).
        geometry: of the case; its `shape` is that of the arrays.
        structures: keys of the labels 1..C.
    """
    if image.shape != geometry.shape or mask.shape != geometry.shape:
        raise ValueError(f"image {image.shape} and mask {mask.shape} are not on the grid {geometry.shape}")
    values = _of_file(geometry) | of_image(image, mask, geometry.spacing)
    values |= of_mask(image, mask, geometry.spacing, structures)
    return {name: values[name] for name in feature_names(structures)}


def _of_file(geometry: Geometry) -> dict[str, float]:
    sizes = np.empty(3)
    sizes[[axis for axis, _ in geometry.orientation]] = voxel_sizes(np.array(geometry.affine))
    field_of_view = sizes * geometry.reoriented_shape
    values = (sizes.min(), sizes.max(), *field_of_view, np.prod(geometry.original_shape, dtype=float))
    return {name: float(value) for name, value in zip(_OF_FILE, values, strict=True)}
