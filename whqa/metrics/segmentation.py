"""Dice of a mask, structure by structure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whqa.metrics.arrays import FloatArray, mean_defined


def segmentation_dice(mask: Tensor, reference: Tensor, n_classes: int) -> FloatArray:
    """Dice of structures 1..C from one pass over the voxels.

    Args:
        mask, reference: labels 0..C of any one shape.
        n_classes: C + 1.

    Returns:
        (C,) float64. A structure that both lack is nan and drops out of means; one that either lacks is 0.

    Raises:
        ValueError: shapes differ, or a label is not below `n_classes`.

    >>> segmentation_dice(torch.tensor([1, 1, 0]), torch.tensor([1, 0, 0]), n_classes=3)
    array([0.66666667,        nan])
    """
    return dice_of_confusion(confusion(mask, reference, n_classes))


def dice_of_confusion(counts: np.ndarray) -> FloatArray:
    """Dice of structures 1..C from their `confusion`, see `segmentation_dice`.

    >>> dice_of_confusion(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]]))
    array([0.66666667,        nan])
    """
    overlap = np.diag(counts)[1:]
    total = counts.sum(axis=0)[1:] + counts.sum(axis=1)[1:]
    return np.divide(2.0 * overlap, total, out=np.full(len(overlap), np.nan), where=total > 0)


def pairwise_dice(masks: Sequence[Tensor], n_classes: int) -> float:
    """Mean over all pairs of masks of their mean Dice: how far several segmenters agree.

    Args:
        masks: labels 0..C, all of one shape.
        n_classes: C + 1.

    Returns:
        nan for fewer than two masks, and where no two of them have a structure.

    >>> pairwise_dice([torch.tensor([1, 1]), torch.tensor([1, 0]), torch.tensor([1, 1])], n_classes=2)
    0.7777777777777777
    """
    pairs = combinations(masks, 2)
    return mean_defined([mean_defined(segmentation_dice(one, other, n_classes)) for one, other in pairs])


def paired_mean_dice(before: npt.ArrayLike, after: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Mean Dice of masks before and after a change, over the same structures: what the change gains is the difference.

    The structures are those that have a Dice before or after. One without a Dice is lacked by mask and reference, which
    then agree, so that it counts 1: of n structures, one that the change invents costs 1 / n, and one that it rightly
    removes gains 1 / n.

    Args:
        before, after: Dice of each structure, (..., C); nan where mask and reference lack it.

    Returns:
        Two arrays (...,); nan where no structure has a Dice before or after.

    >>> before, after = paired_mean_dice([0.8, float("nan")], [0.9, 0.0])
    >>> float(before), float(after)
    (0.9, 0.45)
    """
    both = np.stack(np.broadcast_arrays(np.asarray(before, np.float64), np.asarray(after, np.float64)))
    there = ~np.isnan(both).all(axis=0)
    n = there.sum(axis=-1)
    total = np.where(there, np.nan_to_num(both, nan=1.0), 0.0).sum(axis=-1)
    first, second = np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)
    return first, second


def confusion(mask: Tensor, reference: Tensor, n_classes: int) -> np.ndarray:
    """How many voxels have each pair of labels: int64 (C + 1, C + 1), mask by reference.

    Raises:
        ValueError: shapes differ, or a label is not below `n_classes`.
    """
    if mask.shape != reference.shape:
        raise ValueError(f"mask {tuple(mask.shape)} and reference {tuple(reference.shape)} differ in shape")
    highest = max((int(m.max()) for m in (mask, reference) if m.numel()), default=0)
    if highest >= n_classes:
        raise ValueError(f"label {highest} does not fit {n_classes} classes")
    small = torch.uint8 if n_classes <= 15 else torch.int64
    pair = mask.to(small) * n_classes + reference.to(small)
    return torch.bincount(pair.flatten(), minlength=n_classes**2).reshape(n_classes, n_classes).cpu().numpy()
