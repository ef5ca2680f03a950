"""What a person would have to correct in a mask: every piece worth a stroke of the brush, the largest first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.contract.work_json import Piece, Work
from whqa.metrics.error_places import MORE_PROBABLY_WRONG
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
    labelled, n = ndimage.label(wrong[box])
    voxels = np.bincount(labelled.ravel(), minlength=n + 1)[1:]
    smallest = max(1, int(np.ceil(SMALLEST_PIECE_ML / voxel_ml - 1e-9)))
    order = [int(i) for i in np.argsort(-voxels, kind="stable") if voxels[i] >= smallest]
    boxes = ndimage.find_objects(labelled)
    pieces = []
    for i in order[:_LISTED]:
        inner = tuple(slice(o.start + s.start, o.start + s.stop) for o, s in zip(box, boxes[i], strict=True))
        inside = labelled[boxes[i]] == i + 1
        pieces.append(
            Piece(
                ml=int(voxels[i]) * voxel_ml,
                structure=_most(mask[inner][inside], keys),
                opinion=None if opinion is None else _most(opinion[inner][inside], keys),
                probability=min(1.0, float(probability[inner][inside].mean(dtype=np.float64))),
                voxel=_middle(inside, inner),
            )
        )
    return {
        "smallest_ml": SMALLEST_PIECE_ML,
        "pieces": len(order),
        "voxels": sum(int(voxels[i]) for i in order),
        "ml": sum(int(voxels[i]) for i in order) * voxel_ml,
        "largest": pieces,
        "look": pieces[0]["voxel"] if pieces else _most_probable_error(probability),
    }


def _most(labels: npt.NDArray[np.uint8], keys: Sequence[str]) -> str | None:
    index = int(np.bincount(labels).argmax())
    return keys[index - 1] if index else None


def _middle(piece: npt.NDArray[np.bool_], box: Sequence[slice]) -> list[int]:
    depth = ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1, 1:-1]
    deepest = np.unravel_index(int(depth.argmax()), piece.shape)
    return [int(axis.start + inner) for axis, inner in zip(box, deepest, strict=True)]


def _most_probable_error(probability: npt.NDArray[np.floating]) -> list[int] | None:
    at = np.unravel_index(int(probability.argmax()), probability.shape)
    return [int(i) for i in at] if probability[at] > 0 else None
