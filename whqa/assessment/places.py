"""Where a mask is wrong, more probably than not, or by the look of the place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.contract.quality_json import Place
from whqa.metrics.error_places import MORE_PROBABLY_WRONG, pieces, place_certainty


def wrong_places(
    probability: npt.NDArray[np.floating],
    suspicion: npt.NDArray[np.floating],
    mask: npt.NDArray[np.uint8],
    keys: Sequence[str],
    *,
    doubt_above: float,
    voxel_ml: float,
) -> list[Place]:
    """Pieces of at least 1 ml in which P >= 0.5, or which look more wrong than those of right masks; largest first.

    Args:
        probability: P (X, Y, Z).
        suspicion: how wrong a voxel looks by itself (X, Y, Z).
        mask: label indices.
        keys: of the structures 1..C.
        doubt_above: of the suspicion, see `whqa.results.triage.choose_doubt`.
        voxel_ml: volume of one voxel.
    """
    found = pieces((probability >= MORE_PROBABLY_WRONG) | (suspicion > doubt_above), voxel_ml)
    return [
        {
            "ml": float(n * voxel_ml),
            "structure": most_frequent(mask[box][inside], keys),
            "voxel": deepest_voxel(inside, box),
            "certainty": place_certainty(np.where(inside, suspicion[box], 0), voxel_ml),
        }
        for n, (inside, box) in zip(found.voxels, found.cut_out(), strict=True)
    ]


def most_frequent(labels: npt.NDArray[np.uint8], keys: Sequence[str]) -> str | None:
    """The structure that most voxels are given to; None for background."""
    index = int(np.bincount(labels).argmax())
    return keys[index - 1] if index else None


def deepest_voxel(piece: npt.NDArray[np.bool_], box: Sequence[slice]) -> list[int]:
    """Indices in the scan of the voxel of a piece that is farthest from its border."""
    depth = ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1, 1:-1]
    deepest = np.unravel_index(int(depth.argmax()), piece.shape)
    return [int(axis.start + inner) for axis, inner in zip(box, deepest, strict=True)]
