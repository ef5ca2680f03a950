"""Places: connected pieces of an error map that are large enough to look at, and how many of the true ones are found.

A voxelwise Dice says little about whether a fault is found at all: a seam of a voxel along every border outweighs a
hole. So the pieces are counted too, face neighbours being connected, as lesions are in detection (compare Maier-Hein et
al. 2024, Nature Methods 21, on instance-wise metrics).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from torch import Tensor

from whqa.quality import box_around

MORE_PROBABLY_WRONG = 0.5
SMALLEST_ML = 1.0
OVERLAP = 0.1
"""Share of a true place that must be shown to be found, and of a shown one that must be wrong not to be a false one."""
PLACE_COLUMNS = ("true_places", "found_places", "false_places")
CERTAINTY_COLUMN = "place_certainty"
_LEVELS = 255


@dataclass(frozen=True)
class Pieces:
    """Connected pieces of a map that are large enough.

    Attributes:
        labelled: number of the piece that a voxel belongs to, 0 for none (D, H, W).
        numbers: of the pieces that are large enough, the largest first.
        voxels: how many each has.
    """

    labelled: npt.NDArray[np.integer]
    numbers: npt.NDArray[np.integer]
    voxels: npt.NDArray[np.integer]

    @property
    def inside(self) -> npt.NDArray[np.bool_]:
        """Where they are (D, H, W)."""
        is_one = np.zeros(int(self.labelled.max(initial=0)) + 1, dtype=bool)
        is_one[self.numbers] = True
        return is_one[self.labelled]

    def cut_out(self) -> Iterator[tuple[npt.NDArray[np.bool_], tuple[slice, ...]]]:
        """Each piece in the box around it, and where that lies."""
        boxes = ndimage.find_objects(self.labelled)
        for number in self.numbers:
            box = boxes[number - 1]
            yield self.labelled[box] == number, box


def pieces(of: npt.NDArray[np.bool_], voxel_ml: float, smallest_ml: float = SMALLEST_ML) -> Pieces:
    """The connected pieces of a map that have at least so many ml.

    Args:
        of: (D, H, W).
        voxel_ml: volume of one voxel.
        smallest_ml: volume of the smallest piece.
    """
    # what makes up a millilitre is not to fail by a rounding
    least = max(1, np.ceil(smallest_ml / voxel_ml - 1e-9))
    labelled = np.zeros(of.shape, np.int32)
    voxels = np.zeros(0, np.intp)
    if np.count_nonzero(of) >= least:
        box = box_around(of, (0,) * of.ndim)
        part, n = ndimage.label(of[box])
        labelled[box] = part
        voxels = np.bincount(part[of[box]], minlength=n + 1)[1:]
    order = np.argsort(-voxels, kind="stable")
    order = order[voxels[order] >= least]
    return Pieces(labelled, order + 1, voxels[order])


def places_of(true: Tensor, spacing: Sequence[float]) -> Pieces:
    """The places where a mask is wrong; of all methods that judge it they are the same, see `place_counts`."""
    return pieces(true.cpu().numpy(), millilitres(spacing))


def place_counts(
    shown: Tensor, true: Tensor, spacing: Sequence[float], faults: Pieces | None = None
) -> dict[str, float]:
    """`PLACE_COLUMNS`: places where the mask is wrong, those of them that are shown, and shown ones that are right.

    A true place is found if at least a tenth of it lies in places that are shown, a shown one is false if less than a
    tenth of it is wrong. Both are of at least 1 ml.

    Args:
        shown, true: bool (D, H, W).
        spacing: mm per voxel along D, H, W.
        faults: `places_of` what is true, where they are known.
    """
    return counts_and_places(shown, true, spacing, faults)[0]


def counts_and_places(
    shown: Tensor, true: Tensor, spacing: Sequence[float], faults: Pieces | None = None
) -> tuple[dict[str, float], npt.NDArray[np.bool_]]:
    """What `place_counts` says, and the places that are shown, bool (D, H, W)."""
    faults = places_of(true, spacing) if faults is None else faults
    told = pieces(shown.cpu().numpy(), millilitres(spacing))
    places = told.inside
    found, vain = _shares(faults, places) >= OVERLAP, _shares(told, true.cpu().numpy()) < OVERLAP
    return dict(zip(PLACE_COLUMNS, map(float, (len(found), found.sum(), vain.sum())), strict=True)), places


def place_certainty(probability: npt.NDArray[np.floating], voxel_ml: float) -> float:
    """The highest P that a connected piece of at least 1 ml reaches everywhere, in steps of 1/255, to 4 digits.

    Args:
        probability: P (D, H, W) in [0, 1].
        voxel_ml: volume of one voxel.

    Returns:
        0 where no piece is large enough.
    """
    low, high = 0, _LEVELS
    while low < high:
        middle = (low + high + 1) // 2
        reached = probability >= middle / _LEVELS
        if len(pieces(reached, voxel_ml).numbers):
            low = middle
            # what reaches more lies within
            probability = probability[box_around(reached, (0,) * reached.ndim)]
        else:
            high = middle - 1
    return round(low / _LEVELS, 4)


def millilitres(spacing: Sequence[float]) -> float:
    """Volume of a voxel in ml, of its sides in mm."""
    return float(np.prod(spacing)) / 1000


def _shares(of: Pieces, inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """What share of each piece lies inside a map: (n,) as `of.numbers`."""
    hit = np.bincount(of.labelled[inside], minlength=int(of.numbers.max(initial=0)) + 1)
    return hit[of.numbers] / of.voxels
