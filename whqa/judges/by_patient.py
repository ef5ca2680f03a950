"""What a few held-back patients leave unsure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from whqa.metrics.arrays import FloatArray


def standard_error(of_masks: FloatArray, patients: Sequence[str]) -> FloatArray:
    """Of a sum over masks, between patients: masks of one patient err alike.

    Args:
        of_masks: (n, ...), the mean's share of each mask if a mean is meant.
        patients: of each mask.

    Returns:
        (...); of one patient 0 where all is 0, else without bound.
    """
    whose = np.array(patients)
    sums = np.stack([of_masks[whose == patient].sum(axis=0) for patient in np.unique(whose)])
    n = len(sums)
    if n == 1:
        return np.where(sums[0] == 0, 0.0, np.inf)
    found: FloatArray = np.sqrt(n) * sums.std(axis=0, ddof=1)
    return found
