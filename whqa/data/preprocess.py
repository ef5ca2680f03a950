"""From a scan's own grid to the experiment's grid and back.

    reorient to the closest R, A, S axes (flips and swaps, no rotation)
    crop     a box of fixed size in mm round a centre
    resample to the experiment's spacing (images: cubic, anti-aliased; label maps: the class with most linear weight)
    normalise to [-1, 1]: CT by a window in HU, MR by percentiles of the crop

Crop and resampling are one linear map an axis (`resample.Line`), kept with the orientation in a `Geometry`, so that
label maps and probability maps return to the scan's own voxels. What is kept on the way there and back, for every
orientation, oblique or not, and every spacing:

    labels      exact along axes that are not resampled. Along the others a voxel keeps its label unless another label
                lies nearer than one cache voxel plus one voxel of the scan; so only the rim of a structure can change,
                and one that is thicker than twice that everywhere keeps its core. A structure that holds a box of one
                cache voxel plus one voxel along each axis is never lost; a thinner one can be (CropWarning).
                In figures: Dice of each structure of a heart at least 0.98 at the native spacing or finer, at least
                0.95 where walls of 6 mm are seen by a grid of 2 mm and drawn by voxels of 1.2 mm
    maps        the values of a map that is linear in space, and the limits of any (no overshoot)
    positions   a landmark's centroid within 0.05 voxels of the scan, in the cache and in a map that came back (grids
                2.5 times finer to 1.6 times coarser than the scan)
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

from whqa.data.case import Modality
from whqa.data.formats.volume_files import Volume, header_from_bytes, header_to_bytes, voxel_sizes
from whqa.data.preprocess_settings import Preprocess
from whqa.data.resample import Line, interpolate, interpolate_labels, labelled_box
from whqa.errors import InputError
from whqa.process import memory_gib
from whqa.structures import GREAT_VESSELS

Triple = tuple[float, float, float]

# Soft tissue to contrast-filled blood, in HU: leaves out air, lung, fat and dense bone.
_CT_TISSUE = (0.0, 600.0)
# Tissue is looked at this finely, in mm: its centroid needs no more.
_TISSUE_STEP = 2.0
# A grid this close to the wanted spacing is left alone: interpolation would only blur it.
_SAME_SPACING = 1e-3


@dataclass(frozen=True)
class Geometry:
    """Everything needed to return to the original grid.

    Attributes:
        shape: of the cache grid (D, H, W).
        spacing: mm of the cache grid along D, H, W.
        start, step: cache voxel i of an axis lies at `start + i * step` voxels of the reoriented original.
        original_shape: of the file.
        affine: of the file after the spacing rule, 4 x 4, voxel -> RAS mm.
        orientation: nibabel orientation (axis, flip) of each file axis.
        header_base64: the file's own header, or None.
    """

    shape: tuple[int, int, int]
    spacing: Triple
    start: Triple
    step: Triple
    original_shape: tuple[int, int, int]
    affine: tuple[tuple[float, float, float, float], ...]
    orientation: tuple[tuple[int, int], ...]
    header_base64: str | None = None

    @property
    def header(self) -> nib.Nifti1Header | None:
        """Header of the original file, for `write_volume(path, array, None, geometry.header)`."""
        return None if self.header_base64 is None else header_from_bytes(base64.b64decode(self.header_base64))

    @property
    def reoriented_shape(self) -> tuple[int, int, int]:
        """Shape of the original after its axes are brought to R, A, S."""
        shape = [0, 0, 0]
        for size, (axis, _) in zip(self.original_shape, self.orientation, strict=True):
            shape[axis] = size
        return shape[0], shape[1], shape[2]

    @property
    def cache_affine(self) -> npt.NDArray[np.float64]:
        """(4, 4), voxel of the cache grid -> RAS mm."""
        place = np.diag([*self.step, 1.0])
        place[:3, 3] = self.start
        return np.asarray(np.array(self.affine) @ inv_ornt_aff(np.array(self.orientation), self.original_shape) @ place)

    def lines(self) -> tuple[Line, Line, Line]:
        """From the reoriented original to the cache grid."""
        first, second, third = map(Line, self.start, self.step, self.shape)
        return first, second, third

    def lines_back(self) -> tuple[Line, Line, Line]:
        """From the cache grid to the reoriented original."""
        first, second, third = (
            line.inverse(size) for line, size in zip(self.lines(), self.reoriented_shape, strict=True)
        )
        return first, second, third

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; `from_dict` returns an equal record."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Geometry:
        """Back from `to_dict`, with or without a trip through JSON."""
        return cls(**{key: _tuples(value) for key, value in record.items()})


def preprocess_image(
    volume: Volume, modality: Modality, settings: Preprocess, heart: Volume | None = None
) -> tuple[npt.NDArray[np.float32], Geometry]:
    """Image on the experiment's grid, (D, H, W) float32 in [-1, 1], and the way back.

    Args:
        volume: of any integer or floating type.
        modality: of the image.
        settings: of the experiment's grid.
        heart: map on the image's grid that is not 0 in the heart (see `heart_of`), for centre "heart".
    """
    orientation = io_orientation(volume.affine).astype(int)
    array = apply_orientation(volume.array, orientation)
    sizes = np.empty(3)
    sizes[orientation[:, 0]] = voxel_sizes(volume.affine)
    centre = (np.array(array.shape) - 1) / 2
    if settings.crop_mm is not None:
        where = heart if settings.centre == "heart" else None
        found = labelled_box(apply_orientation(where.array, orientation)) if where is not None else None
        if found is not None:
            centre = np.array([(side.start + side.stop - 1) / 2 for side in found])
        elif settings.centre != "image":
            centre = _tissue_centre(array, sizes, modality)
    lines = [
        _line(array.shape[k], float(sizes[k]), settings.spacing[k], settings.crop_mm and settings.crop_mm[k], centre[k])
        for k in range(3)
    ]
    _check_grid(volume, sizes, lines)
    geometry = _geometry(volume, orientation, sizes, lines)
    if modality == "ct":
        # clipped first, so that metal does not bleed into its neighbours
        low, high = settings.ct_window
        return _to_unit(interpolate(array, lines, kernel="cubic", limits=settings.ct_window), low, high), geometry
    values = interpolate(array, lines, kernel="cubic")
    low, high = (float(p) for p in np.percentile(values, settings.mr_percentiles))
    if low >= high:
        low, high = float(values.min()), float(values.max())
    return _to_unit(values, low, high), geometry


def _check_grid(volume: Volume, sizes: npt.NDArray[np.float64], lines: Sequence[Line]) -> None:
    """Before memory is asked for: a header that is wrong by a factor asks for more than there is."""
    shape = tuple(line.length for line in lines)
    # float32, and again while it is normalised
    if 8 * math.prod(shape) > memory_gib() * 2**30:
        extent = " x ".join(f"{length * size:g}" for length, size in zip(volume.array.shape, sizes, strict=True))
        voxels = " x ".join(f"{length:,}" for length in shape)
        raise InputError(
            f"{volume.path}: its {extent} mm would be a grid of {voxels} voxels, for which "
            "this machine has not the memory; correct the header's spacing, or crop or resample the scan"
        )


def heart_of(label: Volume, keys: Sequence[str]) -> Volume:
    """The label map of structures `keys` with the great vessels taken out: not 0 in chambers and myocardium."""
    table = np.array([0, *(i + 1 if key not in GREAT_VESSELS else 0 for i, key in enumerate(keys))], dtype=np.uint8)
    return replace(label, array=table[label.array])


def preprocess_label(volume: Volume, geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Label indices on the grid of their preprocessed image: (D, H, W) uint8."""
    return interpolate_labels(_reoriented(volume, geometry), geometry.lines())


def preprocess_map(volume: Volume, geometry: Geometry) -> npt.NDArray[np.float32]:
    """A map, such as a probability, on the grid of its preprocessed image: (D, H, W), 0 outside the scan.

    Voxels weigh as in `preprocess_label`.
    """
    return interpolate(_reoriented(volume, geometry), geometry.lines(), kernel="narrow")


def lost_voxels(volume: Volume, geometry: Geometry) -> dict[int, float]:
    """For each label index of a label map on the original grid: the share of its voxels that the crop cuts away."""
    array = _reoriented(volume, geometry)
    box = labelled_box(array)
    if box is None:
        return {}
    labelled = array[box]
    sides = zip(geometry.lines_back(), geometry.shape, box, strict=True)
    kept = [line.inside(size)[side] for line, size, side in sides]
    total = _counts(labelled)
    inside = total if all(k.all() for k in kept) else _counts(labelled[np.ix_(*kept)])
    return {int(i): 1 - float(inside[i] / total[i]) for i in np.flatnonzero(total) if i}


def kept_box(geometry: Geometry) -> tuple[slice, slice, slice]:
    """The voxels of the file's own grid that the crop keeps."""
    kept = [line.inside(size) for line, size in zip(geometry.lines_back(), geometry.shape, strict=True)]
    sides = [np.flatnonzero(kept[axis][::flip]) for axis, flip in geometry.orientation]
    first, second, third = (slice(int(side[0]), int(side[-1]) + 1) if len(side) else slice(0) for side in sides)
    return first, second, third


def restore_labels(indices: npt.NDArray[np.uint8], geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Label indices (D, H, W) of the cache grid on the original grid; background outside the crop."""
    _check_shape(indices, geometry)
    return _original(interpolate_labels(indices, geometry.lines_back()), geometry)


def restore_map(values: npt.NDArray[np.floating], geometry: Geometry, outside: float = 0.0) -> npt.NDArray[np.float32]:
    """A map (D, H, W) of the cache grid, such as an error probability, on the original grid.

    Args:
        values: on the cache grid.
        geometry: of the case.
        outside: value of the voxels that the crop left out.
    """
    _check_shape(values, geometry)
    return _original(interpolate(values, geometry.lines_back(), outside), geometry)


def _line(size: int, native: float, spacing: float | None, extent_mm: float | None, centre: float) -> Line:
    """Where the cache grid's voxels lie on one axis of `size` voxels of `native` mm."""
    step = 1.0 if spacing is None or abs(spacing / native - 1) < _SAME_SPACING else spacing / native
    # a hair less than a voxel too many is rounding, not anatomy
    whole = max(1, int(np.ceil(size / step - 1e-3)))
    length = whole if extent_mm is None else min(whole, max(1, round(extent_mm / (native * step))))
    if length * step >= size:
        start = (size - 1) / 2 - (length - 1) / 2 * step
    else:
        half = length * step / 2
        start = float(np.clip(centre, half - 0.5, size - 0.5 - half)) - (length - 1) / 2 * step
    return Line(float(np.clip(round(start), 0, size - length)) if step == 1 else float(start), step, length)


def _geometry(
    volume: Volume, orientation: npt.NDArray[np.int_], sizes: npt.NDArray[np.float64], lines: list[Line]
) -> Geometry:
    header = None if volume.header is None else base64.b64encode(header_to_bytes(volume.header)).decode("ascii")
    return Geometry(
        shape=_tuples([line.length for line in lines]),
        spacing=_tuples([float(line.step * size) for line, size in zip(lines, sizes, strict=True)]),
        start=_tuples([line.start for line in lines]),
        step=_tuples([line.step for line in lines]),
        original_shape=_tuples([int(n) for n in volume.shape]),
        affine=_tuples(volume.affine.tolist()),
        orientation=_tuples(orientation.tolist()),
        header_base64=header,
    )


def _tissue_centre(
    array: npt.NDArray[Any], sizes: npt.NDArray[np.float64], modality: Modality
) -> npt.NDArray[np.float64]:
    """Centroid of tissue in voxels (3,); the middle of the image where there is none."""
    steps = [max(1, int(_TISSUE_STEP / size)) for size in sizes]
    # the samples lie around the middle, so that an even image has its centroid there
    offsets = [(n - 1) % step // 2 for n, step in zip(array.shape, steps, strict=True)]
    sample = array[tuple(slice(offset, None, step) for offset, step in zip(offsets, steps, strict=True))]
    low, high = _CT_TISSUE if modality == "ct" else (_otsu(sample), np.inf)
    tissue = (sample >= low) & (sample <= high)
    centre = (np.array(array.shape) - 1) / 2
    for axis in range(3):
        along = tissue.sum(axis=tuple(k for k in range(3) if k != axis), dtype=np.float64)
        if along.any():
            centre[axis] = offsets[axis] + steps[axis] * np.average(np.arange(along.size), weights=along)
    return centre


def _otsu(array: npt.NDArray[Any]) -> float:
    """Threshold with the largest variance between classes (Otsu 1979), over 256 bins up to the 99.5th percentile."""
    values = array.ravel(order="K")
    values = values[:: max(1, values.size // 1_000_000)].astype(np.float32)
    low, high = float(values.min()), float(np.percentile(values, 99.5))
    if low >= high:
        return low
    counts, edges = np.histogram(np.minimum(values, high), bins=256, range=(low, high))
    middles = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * middles)
    above = below[-1] - below
    sound = (below > 0) & (above > 0)
    between = np.zeros(256)
    difference = sums[sound] / below[sound] - (sums[-1] - sums[sound]) / above[sound]
    between[sound] = below[sound] * above[sound] * difference.astype(np.float64) ** 2
    return float(edges[int(between.argmax()) + 1])


def _counts(indices: npt.NDArray[np.uint8]) -> npt.NDArray[np.intp]:
    """Voxels of each index, (256,). A slice at a time: bincount makes 64-bit integers of what it counts."""
    slowest = max(range(3), key=lambda k: abs(indices.strides[k]))
    slices = np.moveaxis(indices, slowest, 0)
    counts = np.zeros(256, np.intp)
    for part in slices:
        counts += np.bincount(part.ravel(order="K"), minlength=256)
    return counts


def _to_unit(values: npt.NDArray[np.float32], low: float, high: float) -> npt.NDArray[np.float32]:
    """low -> -1, high -> 1, clipped; all -1 where there is no contrast that numbers of 32 bits can hold."""
    contrast = high - low > 2 / np.finfo(np.float32).max
    scaled = (values - np.float32(low)) * np.float32(2 / (high - low) if contrast else 0) - np.float32(1)
    return np.ascontiguousarray(np.clip(scaled, -1, 1))


def _reoriented(volume: Volume, geometry: Geometry) -> npt.NDArray[Any]:
    if tuple(volume.shape) != geometry.original_shape:
        raise ValueError(f"{volume.path}: shape {volume.shape} is not {geometry.original_shape} of its image")
    return np.asarray(apply_orientation(volume.array, np.array(geometry.orientation)))


def _original(array: npt.NDArray[Any], geometry: Geometry) -> npt.NDArray[Any]:
    """From R, A, S axes to the file's own; the inverse of `apply_orientation`."""
    flipped = array
    for axis, flip in geometry.orientation:
        if flip < 0:
            flipped = np.flip(flipped, axis)
    return np.ascontiguousarray(np.transpose(flipped, [axis for axis, _ in geometry.orientation]))


def _check_shape(array: npt.NDArray[Any], geometry: Geometry) -> None:
    if tuple(array.shape) != geometry.shape:
        raise ValueError(f"array of shape {array.shape} is not on the cache grid {geometry.shape}")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, (list, tuple)) else value
