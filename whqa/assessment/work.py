"""What a person would have to correct in a mask: every piece worth a stroke of the brush, the largest first."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from whqa.assessment.places import deepest_voxel, most_frequent
from whqa.contract.work_json import Piece, Work
from whqa.metrics.error_places import MORE_PROBABLY_WRONG, pieces
from whqa.quality import box_around

# Smaller ones are a frayed border that nobody redraws.
SMALLEST_PIECE_ML = 0.1
_LISTED = 50


def work_to_do(
    probability: npt.NDArray[np.floating],
    mask: npt.NDArray[np.uint8],
    opinion: npt.NDArray[np.uint8] | None = None,
    *,
    keys: Sequence[str],
    voxel_ml: float,
) -> Work:
    """Pieces in which P >= 0.5, from 0.1 ml on.

    Args:
        probability: P (X, Y, Z).
        mask: label indices.
        opinion: label indices of the second opinion, or None.
        keys: of the structures 1..C.
        voxel_ml: volume of one voxel.
    """
    wrong = probability >= MORE_PROBABLY_WRONG
    # errors lie close together in a large scan
    box = box_around(wrong, (0, 0, 0))
    found = pieces(wrong[box], voxel_ml, SMALLEST_PIECE_ML)
    listed = []
    for n, (inside, inner) in islice(zip(found.voxels, found.cut_out(), strict=True), _LISTED):
        there = tuple(slice(o.start + s.start, o.start + s.stop) for o, s in zip(box, inner, strict=True))
        listed.append(
            Piece(
                ml=int(n) * voxel_ml,
                structure=most_frequent(mask[there][inside], keys),
                opinion=None if opinion is None else most_frequent(opinion[there][inside], keys),
                probability=min(1.0, float(probability[there][inside].mean(dtype=np.float64))),
                voxel=deepest_voxel(inside, there),
            )
        )
    voxels = int(found.voxels.sum())
    return {
        "smallest_ml": SMALLEST_PIECE_ML,
        "pieces": len(found.numbers),
        "voxels": voxels,
        "ml": voxels * voxel_ml,
        "largest": listed,
        "look": listed[0]["voxel"] if listed else _most_probable_error(probability),
    }


def _most_probable_error(probability: npt.NDArray[np.floating]) -> list[int] | None:
    at = np.unravel_index(int(probability.argmax()), probability.shape)
    return [int(i) for i in at] if probability[at] > 0 else None
