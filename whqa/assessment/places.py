"""Where a mask is wrong: connected pieces of voxels that are more probably wrong than right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.contract.quality_json import Place

MORE_PROBABLY_WRONG = 0.5
SMALLEST_ML = 1.0


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
    labelled, n = ndimage.label(probability >= MORE_PROBABLY_WRONG)
    volumes = np.bincount(labelled.ravel(), minlength=n + 1)[1:] * voxel_ml
    boxes = ndimage.find_objects(labelled)
    large = [i for i in np.argsort(-volumes, kind="stable") if volumes[i] >= SMALLEST_ML]
    return [_place(labelled[boxes[i]] == i + 1, mask[boxes[i]], boxes[i], float(volumes[i]), keys) for i in large]


def _place(
    piece: npt.NDArray[np.bool_],
    mask: npt.NDArray[np.uint8],
    box: tuple[slice, ...],
    volume: float,
    keys: Sequence[str],
) -> Place:
    label = int(np.bincount(mask[piece]).argmax())
    depth = ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1, 1:-1]
    deepest = np.unravel_index(int(depth.argmax()), piece.shape)
    at = [int(axis.start + inner) for axis, inner in zip(box, deepest, strict=True)]
    return {"ml": volume, "structure": keys[label - 1] if label else None, "voxel": at}
