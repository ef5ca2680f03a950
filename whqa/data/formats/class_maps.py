"""Softmax of a segmentation program as files hold it: nnU-Net's .npz, or a NIfTI file with one volume a class.

nnU-Net 2 writes with --save_probabilities <case>.npz beside its mask: `probabilities` (class, z, y, x), float16, the
axes of the image in reverse, as SimpleITK gives them. Version 1 calls it `softmax`, and cuts it to the image's voxels
that are not 0. Both keep a .pkl beside it, which is never opened. Voxels that nnU-Net did not look at are 0 in every
class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from whqa.data.formats.nifti_header import read_header, scaling, stored_type, voxel_offset
from whqa.data.formats.nifti_placement import placed
from whqa.data.formats.stream import check_size, voxel_blocks, whole_file
from whqa.data.formats.volume import Grid, SpacingRule, Volume, times
from whqa.errors import InputError
from whqa.files import reading

CLASS_MAP_ENDINGS = (".npz", ".nii.gz", ".nii")
_KEYS = ("probabilities", "softmax")
_MOST_CLASSES = 128
# float16 and classes of 8 bits add up to less.
_ROUNDING = 0.02
# Of the voxels: what a program's own resampling may leave.
_ODD_SHARE = 1e-3
_AGAIN = "write it again with nnUNetv2_predict --save_probabilities"


@dataclass(frozen=True)
class ClassMaps:
    """Probabilities of every class, background first.

    Attributes:
        path: of the file, for messages.
        array: floats (class, X, Y, Z); of a voxel they add up to 1, or are all 0 where nothing was predicted.
        affine: (4, 4), voxel -> RAS mm.
        header: of the grid that they lie on, or None.
    """

    path: Path
    array: npt.NDArray[np.floating]
    affine: npt.NDArray[np.float64]
    header: nib.Nifti1Header | None = None

    def best(self) -> npt.NDArray[np.uint8]:
        """The most probable class of each voxel, the first of several: (X, Y, Z)."""
        most, best = self.array[0].copy(), np.zeros(self.array.shape[1:], np.uint8)
        for number, one in enumerate(self.array[1:], start=1):
            better = one > most
            best[better] = number
            np.maximum(most, one, out=most)
        return best


def read_class_maps(path: Path, grids: Sequence[Grid | Volume], rule: SpacingRule = "pixdim") -> ClassMaps:
    """Read the probabilities of a program.

    Args:
        path: `.npz` of nnU-Net, or `.nii`, `.nii.gz` with a last axis of classes.
        grids: that an .npz file, which states no place, may lie on; the first of its shape holds.
        rule: what holds where pixdim and affine of a NIfTI file disagree.

    Raises:
        InputError: the file cannot be read, has another shape, or does not hold a softmax.
    """
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _checked(_of_nifti(path, rule))
    with reading(path, "probabilities of nnU-Net", _AGAIN), path.open("rb") as file:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise ValueError("not an .npz file")
        key = next((key for key in _KEYS if key in arrays.files), None)
        if key is None:
            found = ", ".join(sorted(arrays.files)[:5]) or "nothing"
            raise InputError(f"{path}: holds no {' or '.join(_KEYS)} but {found}; {_AGAIN}")
        # before memory is asked for
        place = _place_of(path, key, *_declared(arrays, key), grids)
        maps = ClassMaps(path, arrays[key].transpose(0, 3, 2, 1), place.affine, place.header)
    return _checked(maps)


def class_maps_in_memory(array: Any, grids: Sequence[Grid | Volume]) -> ClassMaps:
    """Probabilities that were never a file, in nnU-Net's order (class, z, y, x).

    Raises:
        InputError: as `read_class_maps`.
    """
    path, array = Path("probabilities"), np.asarray(array)
    place = _place_of(path, _KEYS[0], array.shape, array.dtype, grids)
    return _checked(ClassMaps(path, array.transpose(0, 3, 2, 1), place.affine, place.header))


def _declared(arrays: np.lib.npyio.NpzFile, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array, from its header alone."""
    assert arrays.zip is not None
    with arrays.zip.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return shape, dtype


def _place_of(
    path: Path, key: str, shape: tuple[int, ...], dtype: np.dtype[Any], grids: Sequence[Grid | Volume]
) -> Grid | Volume:
    """The grid that an array of this shape lies on."""
    if dtype.kind != "f":
        raise InputError(f"{path}: its {key} are of type {dtype}, not floating-point probabilities; {_AGAIN}")
    if len(shape) != 4 or not 2 <= shape[0] <= _MOST_CLASSES:
        raise InputError(
            f"{path}: its {key} have the shape {times(shape)}, must be classes x Z x Y x X, with background and at "
            f"least one more class; {_AGAIN}"
        )
    fitting = next((grid for grid in grids if tuple(grid.shape) == shape[:0:-1]), None)
    if fitting is not None:
        return fitting
    wanted = " or ".join(dict.fromkeys(f"{times(grid.shape)} of {grid.path}" for grid in grids))
    cut = (
        "nnU-Net 1 cuts it to the voxels of the image that are not 0; predict with nnU-Net 2 (--save_probabilities)"
        if key == "softmax"
        else "give those that were written for this image"
    )
    raise InputError(
        f"{path}: its {key} of {shape[0]} classes have {times(shape[:0:-1])} voxels (X x Y x Z, the file's axes in "
        f"reverse), not the {wanted}; {cut}"
    )


def _of_nifti(path: Path, rule: SpacingRule) -> ClassMaps:
    header = read_header(path)
    sizes = tuple(int(n) for n in header["dim"][1 : int(header["dim"][0]) + 1])
    if len(sizes) not in (4, 5) or sizes[3:-1] not in ((), (1,)) or not 2 <= sizes[-1] <= _MOST_CLASSES:
        raise InputError(
            f"{path}: of shape {times(sizes)}, must be X x Y x Z x classes, background first, to hold probabilities; "
            "give nnU-Net's .npz, or a file with one volume a class"
        )
    shape, dtype = (sizes[0], sizes[1], sizes[2]), stored_type(path, header)
    room = math.prod(shape) * sizes[-1]
    if min(shape) < 1:
        raise InputError(f"{path}: empty, of shape {times(sizes)}; write the probabilities again")
    check_size(path, whole_file(path), voxel_offset(path, header), room * dtype.itemsize)
    slope, intercept = scaling(path, header) or (1.0, 0.0)
    affine, _ = placed(path, header, shape, rule)
    values, done = np.empty(room, np.float32), 0
    for block in voxel_blocks(path, whole_file(path), voxel_offset(path, header), (*shape, sizes[-1]), dtype):
        values[done : done + block.size] = block * slope + intercept
        done += block.size
    return ClassMaps(path, np.moveaxis(values.reshape((*shape, sizes[-1]), order="F"), -1, 0), affine)


def _checked(maps: ClassMaps) -> ClassMaps:
    """Whether the values are a softmax."""
    total, low = np.zeros(maps.array.shape[1:], np.float32), 0.0
    for one in maps.array:
        total += one
        # NaN is the minimum of whatever holds one
        low = float(np.minimum(low, one.min()))
    if not np.isfinite(total).all() or low < -_ROUNDING:
        raise InputError(
            f"{maps.path}: holds values below 0 or no numbers, as no probabilities do; are they logits? {_AGAIN}"
        )
    odd = float(((np.abs(total - 1) > _ROUNDING) & (total != 0)).mean())
    if odd > _ODD_SHARE:
        raise InputError(
            f"{maps.path}: the classes of a voxel do not add up to 1 in {100 * odd:.1f} % of the voxels: no softmax. "
            "Those of a model of overlapping regions (regions_class_order) are probabilities of regions, from which "
            "none of a label follows; predict with a model of labels, or give no probabilities"
        )
    return maps
