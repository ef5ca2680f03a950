"""Errors by size: thin seams along borders, blobs, and structures that a mask lacks.

Each wrong voxel belongs to one of them:

    missing  the reference gives it to a structure of which the mask has no voxel at all
    blob     of the others, those where they are at least three voxels thick: a wrong voxel whose neighbours are all
             wrong, and the wrong ones among those that touch it, corners too
    thin     the rest

Slices that are thick compared with their pixels do not make an error thin: axes whose voxels are more than half again
as long as the shortest side are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from whqa.metrics.error_places import OVERLAP, millilitres, pieces
from whqa.quality import JudgedCase, box_around

SIZES = ("thin", "blob", "missing")
SIZE_COLUMNS = tuple(
    name
    for size in SIZES
    for name in (f"{size}_voxels", f"{size}_hit_voxels", f"{size}_places", f"found_{size}_places")
)
_LONGER = 1.5 * (1 + 1e-6)  # sides in mm are rounded


@dataclass(frozen=True)
class SizedErrors:
    """The n true errors of a mask by size.

    Attributes:
        at: numbers of the wrong voxels in the flattened volume (n,).
        size: number of each one's size in `SIZES` (n,).
        place: number of its place, a connected piece of one size of at least 1 ml, from 1 on; 0 for none (n,).
        place_size: of each place, its size as above (places,).
    """

    at: npt.NDArray[np.integer]
    size: npt.NDArray[np.integer]
    place: npt.NDArray[np.integer]
    place_size: npt.NDArray[np.integer]


def sized_errors(case: JudgedCase) -> SizedErrors:
    """The true errors of a mask with reference, by size."""
    error, mask = case.error.cpu().numpy(), case.mask.cpu().numpy()
    box = box_around(error, (0, 0, 0))
    wrong = error[box]
    assert case.reference is not None  # whoever has errors has one
    reference = case.reference.cpu().numpy()[box]
    missing = np.zeros_like(wrong)
    for label in np.unique(reference[wrong]):
        if label and not (mask == label).any():
            missing |= reference == label
    rest = wrong & ~missing
    blob = thick(rest, case.spacing)
    size, place = np.zeros(wrong.shape, np.uint8), np.zeros(wrong.shape, np.int32)
    place_size: list[int] = []
    for number, part in enumerate((rest & ~blob, blob, missing)):
        size[part] = number
        found = pieces(part, millilitres(case.spacing))
        numbers = np.zeros(int(found.labelled.max(initial=0)) + 1, np.int32)
        numbers[found.numbers] = len(place_size) + 1 + np.arange(len(found.numbers))
        place += numbers[found.labelled]
        place_size += [number] * len(found.numbers)
    return SizedErrors(np.flatnonzero(error), size[wrong], place[wrong], np.array(place_size, int))


def thick(of: npt.NDArray[np.bool_], spacing: Sequence[float]) -> npt.NDArray[np.bool_]:
    """Where a map is at least three voxels thick, bool (D, H, W); outside the array nothing is True.

    Args:
        of: (D, H, W).
        spacing: mm per voxel along D, H, W.
    """
    axes = flat_axes(spacing)
    found = of.copy()
    for axis in axes:
        inner, before = np.moveaxis(found, axis, 0), np.moveaxis(of, axis, 0)
        inner[1:] &= before[:-1]
        inner[:-1] &= before[1:]
        inner[[0, -1]] = False
    for axis in axes:
        before = np.moveaxis(found.copy(), axis, 0)
        grown = np.moveaxis(found, axis, 0)
        grown[1:] |= before[:-1]
        grown[:-1] |= before[1:]
    return found & of


def flat_axes(spacing: Sequence[float]) -> list[int]:
    """Axes along which voxels are no more than half again as long as their shortest side, in mm."""
    return [axis for axis, edge in enumerate(spacing) if edge <= _LONGER * min(spacing)]


def size_counts(shown: npt.NDArray[np.bool_], in_places: npt.NDArray[np.bool_], true: SizedErrors) -> dict[str, float]:
    """`SIZE_COLUMNS`: wrong voxels of each size, those of them that are shown; places, those of them that are found.

    A place is found as in `whqa.metrics.error_places`.

    Args:
        shown: the predicted error map (D, H, W).
        in_places: its places (D, H, W).
        true: the true errors.
    """
    n, n_places = len(SIZES), len(true.place_size) + 1
    told = np.bincount(true.place, weights=in_places.ravel()[true.at], minlength=n_places)[1:]
    found = told >= OVERLAP * np.bincount(true.place, minlength=n_places)[1:]
    counts = (
        np.bincount(true.size, minlength=n),
        np.bincount(true.size[shown.ravel()[true.at]], minlength=n),
        np.bincount(true.place_size, minlength=n),
        np.bincount(true.place_size[found], minlength=n),
    )
    return dict(zip(SIZE_COLUMNS, map(float, np.stack(counts, axis=1).ravel()), strict=True))
