"""Reading and writing of NIfTI volumes that may be broken or lie about themselves.

The header is read raw, because nibabel mends a bad one in silence (a zero spacing becomes 1 mm). Spacing stands twice
in a NIfTI header, in `pixdim` and as the column lengths of the sform affine, and real files (ACDC among them) disagree
with themselves; the spacing rule says which one holds. Format: NIfTI-1 standard, https://nifti.nimh.nih.gov/nifti-1.
"""

from __future__ import annotations

import gzip
import itertools
import math
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, get_args

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from whqa.data.case import SpacingRule
from whqa.errors import InputError
from whqa.files import atomic_path
from whqa.structures import LabelScheme

# Deflate cannot shrink data by more than this factor (zlib's technical details), so a header that declares more lies.
_MAX_DEFLATE_RATIO = 1032
_SPACING_TOLERANCE = 1e-3
_GRID_TOLERANCE_VOXELS = 0.1
_READ_ERRORS = (EOFError, OSError, zlib.error)


class HeaderConflictWarning(UserWarning):
    """A header's pixdim and affine state different spacings; the text says which one is used."""


@dataclass(frozen=True)
class Grid:
    """What a header says about the voxels of its file, after the spacing rule.

    Attributes:
        path: of the file.
        shape: of the volume, 3-D.
        affine: (4, 4) float64, voxel -> RAS mm.
        header: as it stands in the file.
        conflict: how pixdim and affine disagree, or None.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    header: nib.Nifti1Header
    conflict: str | None = None


@dataclass(frozen=True)
class Volume:
    """A 3-D array with its place in the world.

    Attributes:
        array: (X, Y, Z) in the file's own order; float32 for images, uint8 indices for labels.
        affine: (4, 4) float64, voxel -> RAS mm, corrected by the spacing rule.
        path: where it comes from, for messages.
        header: as it stands in the file, or None for a volume that was never a file.
    """

    array: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    path: Path
    header: nib.Nifti1Header | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape


def voxel_sizes(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Column lengths of an affine: (3,) mm along the array's axes."""
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def read_grid(path: Path, spacing_rule: SpacingRule = "pixdim") -> Grid:
    """Read the header alone and check all that can be checked without the voxels.

    Raises:
        InputError: no such file, not NIfTI, not 3-D, empty, more voxels declared than the file can hold, a spacing
            that is zero or not finite, a singular affine, or rule "refuse" and pixdim and affine disagree.
    """
    if spacing_rule not in get_args(SpacingRule):
        raise InputError(f"spacing rule {spacing_rule!r}: must be one of {', '.join(get_args(SpacingRule))}")
    header = _read_header(path)
    shape = _volume_shape(path, header)
    _check_size(path, header)
    affine, conflict = _affine(path, header, spacing_rule)
    return Grid(path, shape, affine, header, conflict)


def read_image(path: Path, spacing_rule: SpacingRule = "pixdim", announce: bool = True) -> Volume:
    """Read an image as float32.

    Args:
        path: `.nii` or `.nii.gz`; a trailing axis of one frame is squeezed.
        spacing_rule: what holds where pixdim and affine disagree.
        announce: warn with `HeaderConflictWarning` about such a header; a cohort's reader has done so already.

    Raises:
        InputError: as `read_grid`; or the file is truncated, its voxels are not real numbers, not finite or all alike.
    """
    grid = _announced(read_grid(path, spacing_rule), spacing_rule, announce)
    values = _scaled(grid)
    with np.errstate(over="ignore"):
        array = values.astype(np.float32, copy=False)
    _check_finite(grid.path, array)
    if array.min() == array.max():
        raise InputError(f"{path}: empty image, every voxel has the value {array.flat[0]:g}; export the scan again")
    return Volume(array, grid.affine, path, grid.header)


def read_label(path: Path, scheme: LabelScheme, spacing_rule: SpacingRule = "pixdim", announce: bool = True) -> Volume:
    """Read a label map as uint8 indices of the scheme (0 background, 1..C).

    Raises:
        InputError: as `read_grid`; or the file is truncated, or holds values that are not whole numbers or not of the
            scheme.
    """
    grid = _announced(read_grid(path, spacing_rule), spacing_rule, announce)
    values = _scaled(grid)
    if values.dtype.kind == "f":
        _check_finite(path, values)
        if not np.array_equal(values, np.rint(values)):
            raise InputError(f"{path}: label values must be whole numbers; was the label map resampled as an image?")
        values = _as_integers(path, values)
    return Volume(_to_indices(values, scheme, str(path)), grid.affine, path, grid.header)


def check_same_grid(image: Volume | Grid, label: Volume | Grid) -> None:
    """Whether image and label lie on one grid: same shape, corners within a tenth of a voxel.

    Raises:
        InputError: they do not; the message names both files.
    """
    advice = "resample the label map onto the image's grid"
    if image.shape != label.shape:
        raise InputError(
            f"{label.path}: shape {_times(label.shape)} differs from {_times(image.shape)} of {image.path}; {advice}",
            "grid-mismatch",
        )
    corners = np.array([[*c, 1] for c in itertools.product(*((-0.5, n - 0.5) for n in image.shape))])
    shift = np.linalg.norm((corners @ (image.affine - label.affine).T)[:, :3], axis=1).max()
    if shift > _GRID_TOLERANCE_VOXELS * voxel_sizes(image.affine).min():
        raise InputError(
            f"{label.path}: affine differs from that of {image.path}, corners are up to {shift:.3g} mm apart; {advice}",
            "grid-mismatch",
        )


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
        like: header whose units, codes and description are kept.
    """
    header = None
    if like is not None:
        header = like.copy()
        header.set_data_dtype(array.dtype)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        affine = header.get_best_affine() if affine is None else affine
    if affine is None:
        raise ValueError("write_volume needs an affine or a header")
    image = nib.Nifti1Image(array, affine, header)
    if header is None:
        image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def header_to_bytes(header: nib.Nifti1Header) -> bytes:
    """The header as it stands in a file, without extensions."""
    return bytes(header.binaryblock)


def header_from_bytes(block: bytes) -> nib.Nifti1Header:
    """Back from `header_to_bytes`, without nibabel's mending."""
    kind = nib.Nifti2Header if len(block) == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Header
    return kind(block, check=False)


def _read_header(path: Path) -> nib.Nifti1Header:
    try:
        with _open(path) as stream:
            block = stream.read(nib.Nifti2Header.sizeof_hdr)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except _READ_ERRORS as error:
        raise InputError(f"{path}: truncated or not readable ({_cause(error)}); copy or download it again") from None
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        try:
            header = kind(block[: kind.sizeof_hdr], check=False)
        except (WrapStructError, HeaderDataError, ValueError):
            continue
        if int(header["sizeof_hdr"]) == kind.sizeof_hdr and bytes(header["magic"])[:3] in (b"n+1", b"n+2"):
            return header
    raise InputError(f"{path}: not a NIfTI file (.nii or .nii.gz), or cut off within its header")


def _open(path: Path) -> IO[bytes] | gzip.GzipFile:
    stream = open(path, "rb")  # noqa: SIM115 - handed to the caller, who closes it
    magic = stream.read(2)
    stream.seek(0)
    if magic != b"\x1f\x8b":
        return stream
    stream.close()
    return gzip.open(path, "rb")


def _volume_shape(path: Path, header: nib.Nifti1Header) -> tuple[int, int, int]:
    try:
        shape = tuple(int(n) for n in header.get_data_shape())
    except (HeaderDataError, ValueError):
        shape = ()
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        raise InputError(f"{path}: {len(shape)}-D of shape {_times(shape)}, must be 3-D; give one volume a file")
    if min(shape) < 1:
        raise InputError(f"{path}: empty image of shape {_times(shape)}; export the scan again")
    return shape[0], shape[1], shape[2]


def _check_size(path: Path, header: nib.Nifti1Header) -> None:
    """Refuse before memory is asked for: a broken header may declare terabytes."""
    with open(path, "rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    declared = _data_bytes(path, header)
    held = path.stat().st_size * (_MAX_DEFLATE_RATIO if compressed else 1)
    if _offset(header) + declared > held:
        raise InputError(
            f"{path}: truncated, the header declares {declared:,} bytes of voxels but the file has "
            f"{path.stat().st_size:,} bytes; copy or download it again"
        )


def _data_bytes(path: Path, header: nib.Nifti1Header) -> int:
    try:
        dtype = header.get_data_dtype()
    except (HeaderDataError, KeyError):
        dtype = np.dtype(object)
    if dtype.kind not in "iuf":
        raise InputError(f"{path}: voxels are not real numbers (NIfTI data type {int(header['datatype'])})")
    return math.prod(int(n) for n in header.get_data_shape()) * int(dtype.itemsize)


def _offset(header: nib.Nifti1Header) -> int:
    """Where the voxels begin; a header without a sound offset means the smallest that the format allows."""
    offset = float(header["vox_offset"])
    smallest = int(header.sizeof_hdr) + 4
    return int(offset) if math.isfinite(offset) and offset >= smallest else smallest


def _affine(path: Path, header: nib.Nifti1Header, rule: SpacingRule) -> tuple[npt.NDArray[np.float64], str | None]:
    pixdim = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64))
    try:
        affine = np.asarray(header.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise InputError(f"{path}: orientation in the header is not valid ({_cause(error)})") from None
    for what, sizes in (("pixdim", pixdim), ("affine", voxel_sizes(affine))):
        if not (np.isfinite(sizes).all() and (sizes > 0).all()) and not (what == "pixdim" and rule == "affine"):
            raise InputError(f"{path}: {what} gives a spacing of {_times(sizes)} mm; correct the header")
    sizes = voxel_sizes(affine)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3] / sizes)) < 1e-6:
        raise InputError(f"{path}: singular affine, its axes do not span space; correct the header")
    if np.allclose(sizes, pixdim, rtol=_SPACING_TOLERANCE, atol=0):
        return affine, None
    conflict = f"pixdim says {_times(pixdim)} mm, the affine {_times(sizes)} mm"
    if rule == "refuse":
        raise InputError(
            f"{path}: {conflict}; correct the header, or choose the spacing rule pixdim or affine", "header-conflict"
        )
    if rule == "pixdim":
        affine = affine.copy()
        affine[:3, :3] *= pixdim / sizes
    return affine, conflict


def _announced(grid: Grid, rule: SpacingRule, announce: bool) -> Grid:
    if announce and grid.conflict:
        warnings.warn(f"{grid.path}: {grid.conflict}; using {rule}", HeaderConflictWarning, stacklevel=3)
    return grid


def _scaled(grid: Grid) -> npt.NDArray[Any]:
    """Voxels with the header's slope and intercept applied; the stored type where there are none."""
    raw = _read_voxels(grid)
    try:
        slope, intercept = grid.header.get_slope_inter()
    except HeaderDataError as error:
        raise InputError(f"{grid.path}: scaling in the header is not valid ({_cause(error)})") from None
    if slope is None or (slope == 1 and not intercept):
        return raw
    return raw.astype(np.float64) * slope + intercept


def _read_voxels(grid: Grid) -> npt.NDArray[Any]:
    path, header = grid.path, grid.header
    wanted = _data_bytes(path, header)
    try:
        with _open(path) as stream:
            stream.read(_offset(header))
            block = stream.read(wanted)
            # gzip compares its checksum only at the end of the stream
            while stream.read(1 << 20):
                pass
    except _READ_ERRORS as error:
        raise InputError(f"{path}: truncated or damaged ({_cause(error)}); copy or download it again") from None
    if len(block) < wanted:
        raise InputError(f"{path}: truncated, {len(block):,} of {wanted:,} bytes of voxels; copy or download it again")
    stored = np.frombuffer(block, dtype=header.get_data_dtype()).reshape(grid.shape, order="F")
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)


def _check_finite(path: Path, array: npt.NDArray[Any]) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(array.sum(dtype=np.float64)):
            return
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InputError(f"{path}: {bad:,} voxel(s) are NaN or infinite; replace them or export the file again")


def _as_integers(path: Path, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if np.abs(values).max() > 2**31:
        raise InputError(f"{path}: label values up to {np.abs(values).max():g} are no labels")
    return values.astype(np.int64)


def _to_indices(values: npt.NDArray[Any], scheme: LabelScheme, source: str) -> npt.NDArray[np.uint8]:
    """`LabelScheme.to_indices` by a look-up table: sorting 10^8 voxels would take longer than reading them."""
    low, high = int(values.min()), int(values.max())
    if high - low > np.iinfo(np.uint16).max:
        return scheme.to_indices(values, source)
    seen = np.zeros(high - low + 1, dtype=bool)
    for k in range(values.shape[2]):
        seen[values[..., k].astype(np.int64) - low] = True
    present = np.flatnonzero(seen)
    table = np.zeros(seen.size, dtype=np.uint8)
    table[present] = scheme.to_indices(present + low, source)
    indices = np.empty(values.shape, dtype=np.uint8, order="F")
    for k in range(values.shape[2]):
        indices[..., k] = table[values[..., k].astype(np.int64) - low]
    return indices


def _times(numbers: Any) -> str:
    return " x ".join(f"{float(n):.4g}" for n in numbers) or "()"


def _cause(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
