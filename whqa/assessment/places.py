"""Where a mask is wrong: connected pieces of voxels that are more probably wrong than right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.contract.quality_json import Place
from whqa.metrics.error_places import MORE_PROBABLY_WRONG, pieces, place_certainty


def wrong_places(
    probability: npt.NDArray[np.floating], mask: npt.NDArray[np.uint8], keys: Sequence[str], voxel_ml: float
) -> list[Place]:
    """Pieces of at least 1 ml in which P >= 0.5, the largest first.

    Args:
        probability: P (X, Y, Z).
        mask: label indices.
        keys: of the structures 1..C.
        voxel_ml: volume of one voxel.
    """
    found = pieces(probability >= MORE_PROBABLY_WRONG, voxel_ml)
    boxes = ndimage.find_objects(found.labelled)
    places = []
    for number, ml in zip(found.numbers, found.ml, strict=True):
        box = boxes[number - 1]
        inside = found.labelled[box] == number
        certainty = place_certainty(np.where(inside, probability[box], 0), voxel_ml)
        places.append(_place(inside, mask[box], box, float(ml), certainty, keys))
    return places


def _place(
    piece: npt.NDArray[np.bool_],
    mask: npt.NDArray[np.uint8],
    box: tuple[slice, ...],
    volume: float,
    certainty: float,
    keys: Sequence[str],
) -> Place:
    label = int(np.bincount(mask[piece]).argmax())
    depth = ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1, 1:-1]
    deepest = np.unravel_index(int(depth.argmax()), piece.shape)
    at = [int(axis.start + inner) for axis, inner in zip(box, deepest, strict=True)]
    return {"ml": volume, "structure": keys[label - 1] if label else None, "voxel": at, "certainty": certainty}
