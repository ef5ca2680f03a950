"""Planes of a volume and what there is to see of a judged mask; whoever draws it needs neither torch nor nibabel.

Arrays are (D, H, W) along (R, A, S), so a plane across axis 0 is sagittal, 1 coronal, 2 axial. Planes are shown in
radiological convention: the patient's right on the left, up is anterior (axial) or superior.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from whqa.structures import LabelScheme

PLANES = ((2, "axial"), (1, "coronal"), (0, "sagittal"))
TRUE_ERROR, PREDICTED_ERROR, CHANGED = "#D55E00", "#F0389B", "#56B4E9"
_COUNTED_FROM = {2: "feet", 1: "back", 0: "left"}


@dataclass(frozen=True, eq=False)
class JudgedView:
    """The part of an assessed scan that holds mask and predicted errors, all arrays (D, H, W) along (R, A, S).

    Attributes:
        image: float32 intensities.
        mask: indices 0..C, uint8.
        corrected: the same after correction.
        probability: of an error, float32 in [0, 1].
        error_map: bool.
        affine: (4, 4), voxel of this part -> RAS mm.
        spacing: voxel size in mm along (R, A, S).
        start: first voxel of this part in the whole scan.
        whole: shape of the whole scan.
        scheme: names and colours.
        window: intensities shown as black and as white.
        opinion: most probable labels of the second opinion, like the mask; None without.
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    corrected: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    error_map: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    spacing: tuple[float, ...]
    start: tuple[int, ...]
    whole: tuple[int, ...]
    scheme: LabelScheme
    window: tuple[float, float]
    opinion: npt.NDArray[np.uint8] | None = None

    @cached_property
    def changed(self) -> npt.NDArray[np.bool_]:
        """Where the correction gave another label."""
        return self.mask != self.corrected

    def single_slice(self, axis_index: int, at: int) -> JudgedView:
        """One slice of it, still of three axes; a small part of what all of it takes to send."""
        first = list(self.start)
        first[axis_index] += at
        cut = (*(slice(None),) * axis_index, slice(at, at + 1))
        moved = self.affine.copy()
        moved[:3, 3] += at * self.affine[:3, axis_index]
        arrays = ("image", "mask", "corrected", "probability", "error_map", "opinion")
        thin: dict[str, Any] = {a: None if (array := getattr(self, a)) is None else array[cut] for a in arrays}
        return replace(self, **thin, affine=moved, start=tuple(first))

    def slice_words(self, axis_index: int, at: Sequence[int]) -> str:
        """Which slice of the whole scan that is, for people: "slice 37 of 84, counted from the feet"."""
        number = self.start[axis_index] + at[axis_index] + 1
        return f"slice {number} of {self.whole[axis_index]}, counted from the {_COUNTED_FROM[axis_index]}"


class Standing(NamedTuple):
    """One case among others.

    Attributes:
        points: family of masks -> (true, predicted) of each.
        value: predicted for this case, or None.
        interval: for its truth, or None.
        interval_words: what kind of interval that is.
        x: what is true.
        y: what is predicted.
        alt: the picture in words.
        caption: below it.
    """

    points: Mapping[str, Sequence[tuple[float, float]]]
    value: float | None
    interval: Sequence[float] | None
    interval_words: str
    x: str
    y: str
    alt: str
    caption: str


def tags_of(scheme: LabelScheme) -> tuple[str, ...]:
    """Short names that fit into a structure: LV, RV, ..., Myo."""
    return tuple(key.upper() if len(key) <= 2 else key.capitalize() for key in scheme.keys)


def worst_voxel(error: npt.NDArray, mask: npt.NDArray) -> tuple[int, ...]:
    """Per axis the slice with most wrong voxels; the middle of the mask where none is wrong."""
    error = np.asarray(error, dtype=bool)
    if not error.any():
        return middle(np.asarray(mask))
    return tuple(int(error.sum(axis=tuple(j for j in range(3) if j != i)).argmax()) for i in range(3))


def middle(label: npt.NDArray) -> tuple[int, ...]:
    """Centre of mass of what is not 0; the centre of the volume where nothing is, or where everything is."""
    foreground = label != 0
    if not foreground.any() or foreground.all():
        return tuple(n // 2 for n in label.shape)
    return tuple(round(float(i.mean())) for i in np.nonzero(foreground))


def grey_window(image: npt.NDArray) -> tuple[float, float]:
    """Intensities shown as black and as white: the 1st and the 99.5th percentile."""
    low, high = np.percentile(np.asarray(image, dtype=np.float32), [1, 99.5])
    return (float(low), float(high)) if high > low else (float(low) - 0.5, float(low) + 0.5)


def plane_of(volume: npt.NDArray, axis_index: int, at: Sequence[int]) -> npt.NDArray:
    """A slice as (rows from below, columns from the patient's right or posterior side)."""
    return np.take(np.asarray(volume), at[axis_index], axis=axis_index).T


def side_by_side(
    image: npt.NDArray, layers: Mapping[str, npt.NDArray], at: Sequence[int], spacing: Sequence[float]
) -> tuple[npt.NDArray[np.uint8], dict[str, npt.NDArray[np.uint8]]]:
    """Axial, coronal and sagittal plane in one row of about square pixels, for viewers that draw layers themselves.

    Args:
        image: (D, H, W) intensities.
        layers: name -> (D, H, W) whole numbers below 256.
        at: the voxel that the planes go through.
        spacing: mm along D, H, W.

    Returns:
        Grey image and layers, all (H', W') uint8, the first row on top.
    """
    low, high = grey_window(image)
    grey = np.clip((np.asarray(image, dtype=np.float32) - low) / (high - low), 0, 1) * 255
    return _row_of_planes(grey, at, spacing), {k: _row_of_planes(v, at, spacing) for k, v in layers.items()}


def _row_of_planes(volume: npt.NDArray, at: Sequence[int], spacing: Sequence[float]) -> npt.NDArray[np.uint8]:
    repeats = [max(1, round(s / min(spacing))) for s in spacing]
    planes = []
    for axis_index, _ in PLANES:
        across, up = (i for i in range(3) if i != axis_index)
        plane = plane_of(volume, axis_index, at)[::-1, :: 1 if axis_index == 0 else -1].astype(np.uint8)
        planes.append(plane.repeat(repeats[up], axis=0).repeat(repeats[across], axis=1))
    height = max(len(plane) for plane in planes)
    return np.hstack([np.pad(plane, ((0, height - len(plane)), (0, 0))) for plane in planes])
