"""Slices in space -> a stack with an affine, or the reason why they are none.

Positions and directions are DICOM's: mm in LPS, Image Position (Patient) is the centre of the first pixel, Image
Orientation (Patient) the direction of a row, then of a column. Source: DICOM PS3.3, C.7.6.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whqa.data.formats.volume_files import check_placement, check_spacing, convert_dicom
from whqa.errors import InputError

_Array = npt.NDArray[np.float64]

# Of the distance of two slices: what a position may be off the row. Some scanners round to a tenth of a millimetre.
_OFF_ROW = 0.2
_SAME_DIRECTION = 1e-3
_SAME_POSITION_MM = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_AGAIN = "export the whole series again"


@dataclass(frozen=True, eq=False)
class Slice:
    """One plane of pixels.

    Attributes:
        name: of its file, and the frame where there are several, for messages.
        file: number of its file.
        frame: number in its file.
        position: (3,) mm, LPS.
        directions: (2, 3) of a row and of a column.
        spacing: mm between columns and between rows.
        shape: columns, rows.
    """

    name: str
    file: int
    frame: int
    position: _Array
    directions: _Array
    spacing: tuple[float, float]
    shape: tuple[int, int]

    @property
    def normal(self) -> _Array:
        """Of the plane: the direction in which slices are stacked."""
        return np.cross(self.directions[0], self.directions[1])


@dataclass(frozen=True, eq=False)
class SliceStack:
    """Slices in order.

    Attributes:
        places: number of the slice in the stack, for each of the slices given.
        shape: columns, rows, slices.
        affine: (4, 4), voxel -> RAS mm.
    """

    places: tuple[int, ...]
    shape: tuple[int, int, int]
    affine: _Array


def slice_of(
    name: str, file: int, frame: int, plane: tuple[Any, Any, Any], shape: tuple[int, int], path: Path
) -> Slice:
    """A slice of what its header says.

    Args:
        name: for messages.
        file: number of its file.
        frame: number in its file.
        plane: Image Position, Image Orientation and Pixel Spacing.
        shape: columns, rows.
        path: of the whole, for messages.

    Raises:
        InputError: one of them is missing or no number.
    """
    try:
        position, directions, spacing = (np.array([float(v) for v in value]) for value in plane)
        if (position.size, directions.size, spacing.size) != (3, 6, 2):
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"{path}: {name} does not say where it lies (position, orientation or pixel spacing is missing); {_AGAIN} "
            "from the archive, not from a viewer"
        ) from None
    return Slice(name, file, frame, position, directions.reshape(2, 3), (spacing[1], spacing[0]), shape)


def stacked(path: Path, slices: Sequence[Slice], step_mm: float | None = None, sparse: bool = False) -> SliceStack:
    """The stack that slices of one series are.

    A row of positions that is not at right angles to the slices, as of a tilted gantry, is kept: the affine is sheared.

    Args:
        path: for messages.
        slices: in any order.
        step_mm: the distance of two slices that the header states, of sparse ones.
        sparse: several slices may lie at one place, and places may be empty, as in segmentations.

    Raises:
        InputError: orientations, sizes or distances differ, slices are missing, or several lie at one place.
    """
    _check_alike(path, slices)
    first = slices[0]
    along = np.array([slice_.position @ first.normal for slice_ in slices])
    order = np.argsort(along, kind="stable")
    if sparse:
        order = order[np.diff(along[order], prepend=-np.inf) > _SAME_POSITION_MM]
    elif len(slices) > 1:
        _check_single(path, [slices[i] for i in order], along[order])
    positions = np.array([slices[i].position for i in order])
    if len(positions) == 1:
        step = first.normal * _only_step(path, first, step_mm)
        numbers = np.zeros(1, dtype=int)
    else:
        numbers, step = _row(
            path, [slices[i].name for i in order], positions, along[order], step_mm if sparse else None
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = first.directions * np.array(first.spacing)[:, None]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    shape = (*first.shape, int(numbers[-1]) + 1)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    check_spacing(path, "its header", sizes, shape, _AGAIN)
    check_placement(path, affine)
    nearest = np.abs(along[:, None] - along[order]).argmin(axis=1)
    return SliceStack(tuple(numbers[nearest].tolist()), shape, _LPS_TO_RAS @ affine)


def _only_step(path: Path, slice_: Slice, step_mm: float | None) -> float:
    if step_mm:
        return step_mm
    raise InputError(f"{path}: {slice_.name} is one slice alone; give the folder of the whole series")


def _check_alike(path: Path, slices: Sequence[Slice]) -> None:
    """Whether orientation, pixels and spacing are those of one stack."""
    keys = {
        "orientations": [tuple(np.rint(s.directions.ravel() / _SAME_DIRECTION).astype(int)) for s in slices],
        "sizes": [s.shape for s in slices],
        "pixel spacings": [tuple(round(v, 3) for v in s.spacing) for s in slices],
    }
    for what, values in keys.items():
        counts = Counter(values).most_common()
        # rounding puts neighbours into two groups
        if len(counts) > 1 and not (what == "orientations" and _all_parallel(slices)):
            usual, other = (slices[values.index(value)].name for value, _ in counts[:2])
            odd = len(slices) - counts[0][1]
            raise InputError(
                f"{path}: mixes slices of several {what}, {counts[0][1]} like {usual} and {odd} others like {other}; "
                f"move the {odd} into a folder of their own"
            )


def _all_parallel(slices: Sequence[Slice]) -> bool:
    first = slices[0].directions
    return all(np.allclose(s.directions, first, rtol=0, atol=2 * _SAME_DIRECTION) for s in slices)


def _check_single(path: Path, slices: Sequence[Slice], along: _Array) -> None:
    """Whether each place has one slice."""
    starts = np.flatnonzero(np.diff(along, prepend=-np.inf) > _SAME_POSITION_MM)
    if len(starts) == len(slices):
        return
    counts = np.diff([*starts, len(slices)])
    first = int(starts[counts.argmax()])
    if len(starts) > 1 and (counts == counts[0]).all():
        raise InputError(
            f"{path}: holds {counts[0]} volumes of {len(starts)} slices in one series, as phases of the heart or "
            f"echoes do; {convert_dicom(path)}, then give one of them"
        )
    raise InputError(
        f"{path}: {slices[first].name} and {slices[first + 1].name} lie at the same place; remove one of them, or "
        "give the folder of one acquisition"
    )


def _row(
    path: Path, names: Sequence[str], positions: _Array, along: _Array, step_mm: float | None
) -> tuple[npt.NDArray[np.int_], _Array]:
    """The number of each position, and the step from one number to the next."""
    gaps = np.diff(along)
    even = np.arange(len(along))
    # first as they are: the smallest gap of rounded positions misleads
    if step_mm is not None or _off(positions, even) > _OFF_ROW:
        unit = _unit(along, step_mm)
        even = np.concatenate([[0], np.cumsum(np.rint(gaps / unit))]).astype(int)
        if np.abs(gaps - np.diff(even) * unit).max() > _OFF_ROW * unit:
            raise InputError(
                f"{path}: its slices lie {gaps.min():.3g} to {gaps.max():.3g} mm apart; "
                f"{convert_dicom(path)}, which makes the distances equal (the file with _Eq), then give that"
            )
    if _off(positions, even) > _OFF_ROW:
        raise InputError(f"{path}: its slices do not lie in one row; give the folder of one series")
    missing = int(even[-1]) + 1 - len(positions)
    if missing and step_mm is None:
        wide = int(np.flatnonzero(np.diff(even) > 1)[0])
        raise InputError(
            f"{path}: {missing} slice(s) are missing, the first between {names[wide]} and {names[wide + 1]}, "
            f"{gaps[wide]:.4g} mm apart where others are {gaps.min():.4g}; {_AGAIN}"
        )
    return even, (positions[-1] - positions[0]) / even[-1]


def _off(positions: _Array, numbers: npt.NDArray[np.int_]) -> float:
    """How far positions are from a row in which they have these numbers, in steps."""
    step = (positions[-1] - positions[0]) / numbers[-1]
    return float(np.abs(positions - positions[0] - numbers[:, None] * step).max() / np.linalg.norm(step))


def _unit(along: _Array, step_mm: float | None) -> float:
    """The stated distance where all positions are multiples of it, else the smallest one that there is."""
    smallest = float(np.diff(along).min())
    if not step_mm or step_mm <= 0:
        return smallest
    numbers = (along - along[0]) / step_mm
    return step_mm if np.abs(numbers - np.rint(numbers)).max() <= _OFF_ROW else smallest
