"""How well a predicted error map finds the wrong voxels: Dice and the area under the precision-recall curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from whqa.metrics.arrays import FloatArray
from whqa.metrics.segmentation import confusion
from whqa.quality import count, within


@dataclass(frozen=True)
class ErrorCounts:
    """Voxel counts of one case: true errors, predicted errors and their overlap."""

    error: int
    predicted: int
    hit: int

    @property
    def dice(self) -> float:
        """2 |Ê ∩ E| / (|Ê| + |E|); 1 where there is no error and none is predicted."""
        return dice_of_counts(self.error, self.predicted, self.hit)


def dice_of_counts(error: float, predicted: float, hit: float) -> float:
    """Dice from voxel counts; 1 where both maps are empty.

    >>> dice_of_counts(error=3, predicted=1, hit=1), dice_of_counts(0, 0, 0)
    (0.5, 1.0)
    """
    return 2.0 * hit / (error + predicted) if error + predicted else 1.0


def error_counts(predicted: Tensor, true: Tensor) -> ErrorCounts:
    """Counts of two bool maps of the same shape.

    Raises:
        ValueError: not bool, or the shapes differ.
    """
    if predicted.dtype != torch.bool or true.dtype != torch.bool or predicted.shape != true.shape:
        raise ValueError(
            f"error maps must be bool and of one shape, got {predicted.dtype} {tuple(predicted.shape)} "
            f"and {true.dtype} {tuple(true.shape)}"
        )
    return ErrorCounts(*(count(m) for m in (true, predicted, predicted & true)))


def error_dice(predicted: Tensor, true: Tensor) -> float:
    """Dice of two bool error maps of any one shape; 1 where there is no error and none is predicted.

    >>> error_dice(torch.tensor([True, True, False]), torch.tensor([True, False, False]))
    0.6666666666666666
    """
    return error_counts(predicted, true).dice


def error_dice_by_structure(
    predicted: Tensor, mask: Tensor, reference: Tensor, n_classes: int, everywhere: np.ndarray | None = None
) -> FloatArray:
    """Error Dice within each structure: only voxels count that the mask or the reference gives to it.

    There the true errors are exactly the voxels that belong to the structure in one of the two but not in the other. A
    false alarm counts for the structure that the mask says, one in the background for none.

    Args:
        predicted: Ê, bool, any one shape.
        mask, reference: labels 0..C of the same shape.
        n_classes: C + 1.
        everywhere: `confusion` of mask and reference, where it is known.

    Returns:
        (C,) float64. nan for a structure that neither has; 1 where it has no error and none is predicted in it.

    Raises:
        ValueError: shapes differ, or a label is not below `n_classes`.

    >>> mask, reference = torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 0, 0])
    >>> error_dice_by_structure(mask != reference, mask, reference, n_classes=3).tolist()
    [1.0, nan]
    """
    if predicted.dtype != torch.bool or predicted.shape != mask.shape:
        raise ValueError(
            f"the predicted error map must be bool and of the mask's shape {tuple(mask.shape)}, got {predicted.dtype} "
            f"{tuple(predicted.shape)}"
        )
    everywhere = confusion(mask, reference, n_classes) if everywhere is None else everywhere
    called = confusion(within(mask, predicted), within(reference, predicted), n_classes)
    size, error = _union_and_error(everywhere)
    alarm, hit = _union_and_error(called)
    dice = np.where(error + alarm > 0, 2.0 * hit / np.maximum(error + alarm, 1), 1.0)
    return np.where(size > 0, dice, np.nan)


def _union_and_error(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (C,) that either gives to each structure, and those of them that only one of the two does."""
    both = np.diag(counts)[1:]
    each = counts.sum(axis=0)[1:] + counts.sum(axis=1)[1:]
    return each - both, each - 2 * both


def average_precision(score: Tensor, true: Tensor) -> float:
    """Area under the precision-recall curve as average precision, sum_n (R_n - R_{n-1}) P_n over distinct scores.

    Equal scores enter together, so ties are right; the number is scikit-learn's `average_precision_score`, which takes
    20 times as long for a volume of 3 million voxels. Recall rises only at scores that a wrong voxel has, so scores
    below the lowest of those are never sorted.

    Args:
        score: float, any shape; higher means more likely wrong. Must be finite.
        true: bool, same shape.

    Returns:
        In (0, 1]; nan where no voxel is wrong, because recall is then undefined. Means leave such cases out.

    >>> average_precision(torch.tensor([0.9, 0.8, 0.1]), torch.tensor([False, True, False]))
    0.5
    """
    if true.shape != score.shape:
        raise ValueError(f"score {tuple(score.shape)} and error map {tuple(true.shape)} differ in shape")
    positive = _sort(within(score, true))
    if positive.numel() == 0:
        return float("nan")
    everything = _sort(within(score, score >= positive[0]))
    level, n = torch.unique_consecutive(positive, return_counts=True)
    found = positive.numel() - torch.searchsorted(positive, level)
    called = everything.numel() - torch.searchsorted(everything, level)
    return float((n.double() * found / called).sum() / positive.numel())


def _sort(values: Tensor) -> Tensor:
    # numpy sorts plain floats several times faster than torch does on a CPU, which also sorts the indices
    if values.device.type != "cpu" or values.dtype == torch.bfloat16:
        return torch.sort(values).values
    array = values.detach().numpy().copy()
    array.sort()
    return torch.from_numpy(array)
