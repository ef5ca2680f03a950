"""The threshold with the best mean Dice per case, found from histograms: one pass, no volume is kept.

For fixed candidates the Dice of all thresholds of a case follows from two histograms, of the scores of wrong and of
right voxels; only the running sum of those curves is kept. The mean over cases is exact for every candidate.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whqa.metrics.arrays import FloatArray

LEVELS = 1024


class LevelSearch:
    """Mean Dice per case of nested predictions: prediction k (k = 1..n) holds the voxels whose level is at least k.

    Attributes:
        cases: how many were seen.
        dice_sum: (n,) float64, sum over cases of the Dice of each prediction.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.cases = 0
        self.dice_sum: FloatArray = np.zeros(n)

    def update(self, level: Tensor, error: Tensor) -> None:
        """Add one case.

        Args:
            level: integers 0..n of any shape.
            error: the true error map, bool, same shape.
        """
        both = torch.bincount((level * 2 + error).flatten(), minlength=2 * (self.n + 1)).cpu().numpy().reshape(-1, 2)
        # voxels with level >= k, for k = 0..n
        right, wrong = both[::-1].cumsum(axis=0)[::-1].T
        total = (right + wrong)[1:] + wrong[0]
        self.dice_sum += np.divide(2.0 * wrong[1:], total, out=np.ones(self.n), where=total > 0)
        self.cases += 1

    def best(self) -> int:
        """The k of the best mean Dice, the middle one of equally good ones.

        Raises:
            ValueError: no case was added.
        """
        if not self.cases:
            raise ValueError("no case to choose a threshold on")
        mean = self.dice_sum / self.cases
        ties = np.flatnonzero(mean >= mean.max() - 1e-12)
        return int(ties[len(ties) // 2]) + 1


def score_levels(score: Tensor) -> Tensor:
    """Levels 0..1024 of scores in [0, 1]: score >= k / 1024 is level >= k.

    Raises:
        ValueError: a score is not in [0, 1].
    """
    low, high = (float(v) for v in torch.aminmax(score))
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(f"scores must be in [0, 1], got {low} to {high}")
    return (score.float() * LEVELS).to(torch.int32)
