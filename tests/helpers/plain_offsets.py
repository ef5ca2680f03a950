"""Offsets of a mask's parts by a plain search over its voxels, for tests to compare with."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit


def plain_offsets(scaled: np.ndarray, part: np.ndarray, rates: np.ndarray) -> np.ndarray:
    """Halfway between the offset of each part and that of the whole, moved until the mean of P is the sum of rates.

    Args:
        scaled: logits of the heart's voxels, times the slope (n,).
        part: of each (n,).
        rates: expected wrong voxels of each part by all (parts,).
    """

    def solved(values: np.ndarray, mean: float) -> float:
        wanted = np.clip(mean, 1e-4, 1 - 1e-4)
        return float(brentq(lambda b: expit(values + b).mean() - wanted, -60, 60))

    whole = solved(scaled, rates.sum())
    found = np.full(len(rates), whole)
    for k, rate in enumerate(rates):
        mine = part == k
        if mine.any():
            found[k] = (whole + solved(scaled[mine], rate * len(part) / mine.sum())) / 2
    return found + solved(scaled + found[part], rates.sum())
