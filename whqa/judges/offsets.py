"""Offsets of a mask's logits at which P adds up to the number of wrong voxels that is expected of it.

How many voxels of a mask are wrong is known better of the whole than of a part (`whqa.judges.mask_parts`), and which of
two voxels is rather wrong their logits tell better than the parts that they lie in. So the offset of a part is halfway
between the one that it would have by itself and that of the whole heart, and all are moved alike until P adds up over
the heart.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, logit

from whqa.metrics.arrays import FloatArray

LOGIT_RANGE = 12.0
BINS = 1024
OFFSET_RANGE = 40.0
PRECISION = 1e-8
"""Of an offset."""
RATES = (1e-4, 1 - 1e-4)
"""Of wrong voxels in a part: bounds."""
OWN_SHARE = 0.5
"""Of a part's own offset in its offset, see above; 1 in earlier versions."""


def bin_logits() -> FloatArray:
    """Logit at the centre of every bin, float64 (BINS,)."""
    return np.linspace(-LOGIT_RANGE, LOGIT_RANGE, BINS)


def part_offsets(slope: float, counts: FloatArray, rates: FloatArray, own_share: float = OWN_SHARE) -> FloatArray:
    """Offset of each part of each mask, see above.

    Args:
        slope: of the logit.
        counts: voxels of the heart in each part and bin (n, parts, BINS).
        rates: expected wrong voxels of each part by those of the heart (n, parts).
        own_share: see `OWN_SHARE`.

    Returns:
        (n, parts); a part that the heart lacks has that of the whole, where `own_share` is not 1.
    """
    own = offsets(slope, counts, rates)
    if counts.shape[1] == 1 or own_share == 1:
        return own
    every = rates.sum(axis=1, keepdims=True)
    whole = offsets(slope, counts.sum(axis=1, keepdims=True), every)
    found = np.where(counts.sum(axis=2) > 0, whole + own_share * (own - whole), whole)
    scaled = slope * bin_logits() + found[..., None]
    rows = len(counts), -1
    return found + _solved(scaled.reshape(rows), counts.reshape(rows), np.clip(every[:, 0], *RATES))[:, None]


def offsets(slope: float, counts: FloatArray, rates: FloatArray, bounds: tuple[float, float] = RATES) -> FloatArray:
    """The offset at which the sum of P over a part's voxels is the rate times those of all parts.

    Args:
        slope, counts, rates: see `part_offsets`.
        bounds: of the share of wrong voxels in a part.

    Returns:
        (n, parts), 0 for a part that the heart lacks.
    """
    of_part = counts.sum(axis=2)
    wanted = np.clip(rates * of_part.sum(axis=1, keepdims=True) / np.maximum(of_part, 1), *bounds)
    rows = counts.reshape(-1, BINS)
    return _solved(np.broadcast_to(slope * bin_logits(), rows.shape), rows, wanted.ravel()).reshape(of_part.shape)


def _solved(scaled: FloatArray, counts: FloatArray, wanted: FloatArray) -> FloatArray:
    """The offset of each row at which the mean of sigmoid(scaled + offset) is as wanted: (n,).

    By Newton's method for the mean's logit, which is nearly linear in the offset, and bisection where a step leaves the
    bracket: four to seven rounds to 1e-8 where bisection alone takes 30 to 1e-7, in a third of its time.

    Args:
        scaled: logits (n, bins).
        counts: voxels that have them (n, bins); a row without any has the offset 0.
        wanted: (n,).
    """
    size = counts.sum(axis=1)
    there = np.flatnonzero(size)
    # most bins of most rows are empty
    row, at = np.nonzero(counts[there])
    share, known = (values[there[row], at] for values in (counts / np.maximum(size, 1)[:, None], scaled))
    first = np.searchsorted(row, np.arange(len(there)))
    low, high, offset = (np.full(len(there), x) for x in (-OFFSET_RANGE, OFFSET_RANGE, 0.0))
    near = np.zeros(len(there), bool)
    while not near.all():
        p = expit(known + offset[row])
        mean, rise = (np.add.reduceat(share * each, first) for each in (p, p * (1 - p)))
        too_high = mean > wanted[there]
        low, high = np.where(too_high, low, offset), np.where(too_high, offset, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            # far away the mean is 0 or 1 and tells no step
            step = (logit(wanted[there]) - logit(mean)) * mean * (1 - mean) / rise
        near = (abs(step) < PRECISION) | (high - low < PRECISION)
        inside = (offset + step > low) & (offset + step < high)
        offset = np.where(inside | near, offset + np.nan_to_num(step), (low + high) / 2)
    found = np.zeros(len(counts))
    found[there] = offset.clip(-OFFSET_RANGE, OFFSET_RANGE)
    return found
