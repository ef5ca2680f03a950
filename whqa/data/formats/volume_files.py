"""Reading and writing of volumes that may be broken or lie about themselves.

Spacing stands twice in a NIfTI header, in `pixdim` and as the column lengths of the sform affine, and real files (ACDC
among them) disagree with themselves; the spacing rule says which one holds. Voxels are read in blocks, straight into
the array that is asked for: no second copy of the volume is ever held.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, get_args

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip

from whqa.data.formats import itk
from whqa.data.formats.advice import python_line, written_beside
from whqa.data.formats.class_maps import CLASS_MAP_ENDINGS, ClassMaps, class_maps_in_memory, read_class_maps
from whqa.data.formats.foreign import convert_dicom, describe_foreign, holds_dicom, is_dicom_head, refuse_folder
from whqa.data.formats.label_names import label_names
from whqa.data.formats.label_values import WholeLabels, is_ordinary, labels_in_memory
from whqa.data.formats.layers import LayeredLabels, read_layers
from whqa.data.formats.nifti_header import read_header, scaling, stored_type, volume_shape, voxel_offset
from whqa.data.formats.nifti_placement import affine_of_axes, by_affine, doubts, placed, readings_of
from whqa.data.formats.stream import check_size, voxel_blocks, whole_file
from whqa.data.formats.volume import (
    Grid,
    HeaderConflictWarning,
    SpacingRule,
    Volume,
    check_placement,
    check_spacing,
    corner_distance,
    is_identity,
    refuse_infinite,
    times,
    voxel_sizes,
)
from whqa.errors import InputError
from whqa.files import atomic_path
from whqa.structures import LabelScheme

__all__ = [
    "CLASS_MAP_ENDINGS",
    "ClassMaps",
    "Grid",
    "HeaderConflictWarning",
    "LayeredLabels",
    "SpacingRule",
    "Volume",
    "by_affine",
    "check_placement",
    "check_spacing",
    "class_maps_in_memory",
    "convert_dicom",
    "corner_distance",
    "describe_foreign",
    "doubts",
    "header_from_bytes",
    "header_to_bytes",
    "holds_dicom",
    "image_voxels",
    "is_dicom_head",
    "is_identity",
    "label_names",
    "label_values",
    "placed",
    "python_line",
    "read_class_maps",
    "read_grid",
    "read_image",
    "read_label",
    "read_layers",
    "readings",
    "times",
    "voxel_sizes",
    "with_axes",
    "write_volume",
    "written_beside",
]

# Levels above are no smaller on scans, maps and label maps.
_GZIP_LEVEL = 1
_Placed = TypeVar("_Placed", bound=Grid | Volume)


def read_grid(path: Path, spacing_rule: SpacingRule = "pixdim") -> Grid:
    """Read the header alone and check all that can be checked without the voxels.

    Raises:
        InputError: no such file, not a NIfTI, NRRD or MHA file (the text says what it is), not 3-D, empty, more voxels
            declared than the file can hold, a spacing that no scan has, a singular affine, or rule "refuse" and pixdim
            and affine disagree.
    """
    if spacing_rule not in get_args(SpacingRule):
        raise InputError(f"spacing rule {spacing_rule!r}: must be one of {', '.join(get_args(SpacingRule))}")
    refuse_folder(path)
    if itk.is_itk(path):
        return replace(itk.read_grid(path), spacing_rule=spacing_rule)
    header = read_header(path)
    shape = volume_shape(path, header)
    declared = math.prod(shape) * stored_type(path, header).itemsize
    check_size(path, whole_file(path), voxel_offset(path, header), declared)
    # damaged numbers overflow and are no numbers: they are looked for, numpy need not warn of them
    with np.errstate(all="ignore"):
        scaling(path, header)
        affine, conflict = placed(path, header, shape, spacing_rule)
        return Grid(path, shape, affine, header, conflict, doubts(header, shape, affine), spacing_rule)


def readings(volume: Grid | Volume) -> dict[str, npt.NDArray[np.float64]]:
    """Every place that a program may have read from the header: its name in plain words -> affine, voxel -> RAS mm.

    A header may contradict itself (sform, qform, pixdim) or state nothing; a volume that was never a file has one.
    """
    if volume.header is None:
        return {"affine": volume.affine}
    return readings_of(volume.header, volume.shape)


def with_axes(volume: _Placed, axes: str, on: npt.NDArray[np.float64] | None = None) -> _Placed:
    """The same voxels, whose axes point to the sides that the user states, and no doubt about them.

    Args:
        volume: whose header does not know the place.
        axes: three letters, such as "LPS".
        on: affine of a volume that covers the same space from its first voxel on; None puts the centre at 0.
    """
    affine = affine_of_axes(axes, voxel_sizes(volume.affine), volume.shape, on)
    header = None if volume.header is None else volume.header.copy()
    if header is not None:
        header.set_sform(affine, "aligned")
        header["qform_code"] = 0
        header["pixdim"][1:4] = voxel_sizes(affine)
    return replace(volume, affine=affine, header=header, doubts=())


def read_image(
    path: Path, spacing_rule: SpacingRule = "pixdim", announce: bool = True, compact: bool = False
) -> Volume:
    """Read an image as float32.

    Args:
        path: `.nii` or `.nii.gz`, where a trailing axis of one frame is squeezed; with SimpleITK `.nrrd` or `.mha`.
        spacing_rule: what holds where pixdim and affine disagree.
        announce: warn with `HeaderConflictWarning` about such a header; a cohort's reader has done so already.
        compact: leave integers of 8 and 16 bits as they are, in half the memory.

    Raises:
        InputError: as `read_grid`; or the file is truncated, its voxels are not real numbers, not finite or all alike.
    """
    grid = _announced(read_grid(path, spacing_rule), spacing_rule, announce)
    return Volume(image_voxels(grid, compact), grid.affine, path, grid.header, grid.notes)


def read_label(path: Path, scheme: LabelScheme, spacing_rule: SpacingRule = "pixdim", announce: bool = True) -> Volume:
    """Read a label map as uint8 indices of the scheme (0 background, 1..C).

    Raises:
        InputError: as `read_grid`; or the file is truncated, or holds values that are not whole numbers or not of the
            scheme.
    """
    values = label_values(_announced(read_grid(path, spacing_rule), spacing_rule, announce), scheme)
    return replace(values, array=scheme.to_indices(values.array, str(path)))


def write_volume(
    path: Path,
    array: npt.NDArray[Any],
    affine: npt.NDArray[np.float64] | None,
    like: nib.Nifti1Header | None = None,
) -> None:
    """Write `.nii` or `.nii.gz` atomically in the array's own type.

    Args:
        path: of the new file.
        array: (X, Y, Z), of a type that NIfTI has (no bool, no 64-bit integers without need).
        affine: voxel -> RAS mm. None takes that of `like` with its pixdim, even where the two disagree, so that the
            result overlays on the image that the header came from.
        like: header whose version, units, codes and description are kept.
    """
    header = None
    if like is not None:
        header = like.copy()
        header.set_data_dtype(array.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        # 0 should not occur and means 1, as in nifti1_io.c
        header["pixdim"][0] = -1 if float(header["pixdim"][0]) == -1 else 1
        affine = header.get_best_affine() if affine is None else affine
    if affine is None:
        raise ValueError("write_volume needs an affine or a header")
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(array, affine, header)
    if header is None:
        image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".gz":
            # ISA-L makes as small a file as zlib's level 1 in a tenth of its time; no name or date, which would differ
            with igzip.IGzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(file)


def header_to_bytes(header: nib.Nifti1Header) -> bytes:
    """The header as it stands in a file, without extensions."""
    return bytes(header.binaryblock)


def header_from_bytes(block: bytes) -> nib.Nifti1Header:
    """Back from `header_to_bytes`, without nibabel's mending."""
    kind = nib.Nifti2Header if len(block) == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Header
    return kind(block, check=False)


def _announced(grid: Grid, rule: SpacingRule, announce: bool) -> Grid:
    if announce and grid.conflict:
        warnings.warn(f"{grid.path}: {grid.conflict}; using {rule}", HeaderConflictWarning, stacklevel=3)
    return grid


def image_voxels(grid: Grid, compact: bool = False) -> npt.NDArray[Any]:
    """Scaled voxels (X, Y, Z) behind a header that was read: float32, or small integers as stored.

    Raises:
        InputError: the file is truncated, its voxels are not real numbers, not finite or all alike.
    """
    dtype = stored_type(grid.path, grid.header).newbyteorder("=")
    small = dtype.kind in "iu" and dtype.itemsize <= 2 and scaling(grid.path, grid.header) is None
    blocks = _scaled_blocks(grid)
    voxels = _allocated(grid, dtype if compact and small else np.dtype(np.float32))
    done, bad, low, high = 0, 0, np.inf, -np.inf
    with np.errstate(all="ignore"):
        for block in blocks:
            part = voxels[done : done + block.size]
            part[...] = block
            done += block.size
            # NaN is the minimum of whatever holds one
            least, most = float(part.min()), float(part.max())
            if not (math.isfinite(least) and math.isfinite(most)):
                bad += part.size - int(np.count_nonzero(np.isfinite(part)))
            low, high = min(low, least), max(high, most)
    refuse_infinite(grid.path, bad)
    if low == high:
        raise InputError(f"{grid.path}: empty image, every voxel has the value {low:g}; export the scan again")
    return voxels.reshape(grid.shape, order="F")


def label_values(place: Grid | Volume, scheme: LabelScheme | None = None) -> Volume:
    """The whole numbers of a label map, behind a header that was read or in memory, by one rule for both.

    An integer type of up to 32 bits is kept, of others the smallest of uint8, int16 and int32 is taken. Where all
    values lie close to whole numbers (a hundredth, or what scaled integers can hold of the scheme's values), they were
    rounded by a program and are rounded back; the notes say so.

    Raises:
        InputError: the file is truncated, or values are not finite, lie between labels or are too large for labels.
    """
    if isinstance(place, Volume):
        values, mended = labels_in_memory(place.array, place.path, scheme)
    else:
        values, mended = _labels_in_file(place, scheme)
    return Volume(values, place.affine, place.path, place.header, (*place.notes, *mended))


def _labels_in_file(grid: Grid, scheme: LabelScheme | None) -> tuple[npt.NDArray[np.integer], tuple[str, ...]]:
    dtype, factors = stored_type(grid.path, grid.header).newbyteorder("="), scaling(grid.path, grid.header)
    blocks = _scaled_blocks(grid)
    if factors is None and is_ordinary(dtype):
        voxels, done = _allocated(grid, dtype), 0
        for block in blocks:
            voxels[done : done + block.size] = block
            done += block.size
        return voxels.reshape(grid.shape, order="F"), ()
    labels = WholeLabels(grid.path, scheme, abs(factors[0]) if factors is not None and dtype.kind in "iu" else 0.0)
    values = labels.take(blocks, _allocated(grid, np.dtype(np.int32)))
    return values.reshape(grid.shape, order="F"), labels.notes


def _scaled_blocks(grid: Grid) -> Iterator[npt.NDArray[Any]]:
    """Voxels in the file's order with slope and intercept applied (float64), or as stored where there are none."""
    path, header = grid.path, grid.header
    if itk.is_itk(path):
        return itk.blocks_of(path)
    stored = voxel_blocks(path, whole_file(path), voxel_offset(path, header), grid.shape, stored_type(path, header))
    factors = scaling(path, header)
    if factors is None:
        return stored
    slope, intercept = factors
    return (block.astype(np.float64) * slope + intercept for block in stored)


def _allocated(grid: Grid, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    try:
        return np.empty(math.prod(grid.shape), dtype)
    except MemoryError:
        raise InputError(
            f"{grid.path}: {math.prod(grid.shape):,} voxels do not fit into memory; crop or resample the scan"
        ) from None
