"""95 % intervals by patient: patients are drawn with replacement, all rows of a patient together.

A resample is a vector of whole-number weights, one a row: how often the row's patient was drawn. Every statistic here
takes rows of shape (n,) and weights (B, n) and gives (B,) values, equal to the plain statistic of the rows repeated as
often as their weight says. So 1,000 resamples cost a few matrix products and no loop. Efron & Tibshirani 1993, ch. 13
(percentile interval); Field & Welsh 2007 (cluster bootstrap); Hesterberg 2015, doi 10.1080/00031305.2015.1089789
(percentiles further out for few patients, whose resamples spread too little).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtr, stdtrit

from whqa.metrics.arrays import FloatArray

N_RESAMPLES = 1000
LEAST_PATIENTS = 6
"""With fewer no percentile of the resamples is far enough out."""
SEED = 20190712


def patient_weights(patients: Sequence[str], n_resamples: int = N_RESAMPLES, seed: int = SEED) -> FloatArray:
    """Weights (n_resamples, n) of rows whose patients are `patients` (n,); independent of the order of the rows."""
    return _weights(tuple(patients), n_resamples, seed)


# Every entry of a table asks for the weights of the same rows.
@functools.lru_cache(maxsize=4)
def _weights(patients: tuple[str, ...], n_resamples: int, seed: int) -> FloatArray:
    names, index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n_resamples)
    weights = drawn.astype(np.float64)[:, index]
    weights.flags.writeable = False
    return weights


def percentile_interval(values: FloatArray, n_patients: int) -> tuple[float, float] | None:
    """95 % interval from the statistic of the resamples (B,); None for fewer than `LEAST_PATIENTS` patients, or where
    fewer than nine in ten resamples are defined.

    Its percentiles are 2.5 and 97.5 for very many patients, and those that make the interval of a mean as wide as
    Student's t for few: Phi(-sqrt(n / (n - 1)) t(0.975, n - 1)).
    """
    defined = values[np.isfinite(values)]
    if n_patients < LEAST_PATIENTS or len(defined) < 0.9 * len(values):
        return None
    outside = ndtr(-np.sqrt(n_patients / (n_patients - 1)) * stdtrit(n_patients - 1, 0.975))
    low, high = np.quantile(defined, [outside, 1 - outside])
    return float(low), float(high)


def resampled_mean(x: FloatArray, weights: FloatArray) -> FloatArray:
    """Means, (B,); NaN where a resample has no row."""
    return _divide(weights @ x, weights.sum(axis=1))


def resampled_pooled_dice(hits: FloatArray, predicted: FloatArray, true: FloatArray, weights: FloatArray) -> FloatArray:
    """Dice of summed voxel counts, (B,); 1 where nothing is true and nothing predicted."""
    total = weights @ (predicted + true)
    return np.where(total > 0, _divide(2 * (weights @ hits), total), 1.0)


def resampled_pearson(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Pearson correlations, (B,); NaN where x or y does not vary."""
    return _correlation(np.broadcast_to(x, weights.shape), np.broadcast_to(y, weights.shape), weights)


def resampled_spearman(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    """Spearman rank correlations with mean ranks for ties, (B,)."""
    return _correlation(_ranks(x, weights), _ranks(y, weights), weights)


def resampled_auroc(score: FloatArray, positive: npt.NDArray[np.bool_], weights: FloatArray) -> FloatArray:
    """Areas under the ROC curve, ties count half, (B,); NaN where only one class was drawn."""
    of_positives = weights * positive
    n_positive = of_positives.sum(axis=1)
    n_negative = weights.sum(axis=1) - n_positive
    rank_sum = (of_positives * _ranks(score, weights)).sum(axis=1)
    return _divide(rank_sum - n_positive * (n_positive + 1) / 2, n_positive * n_negative)


def resampled_aurc(confidence: FloatArray, risk: FloatArray, weights: FloatArray) -> FloatArray:
    """Areas under the risk-coverage curve, (B,): the mean risk of the i most confident rows, averaged over i.

    Rows of equal confidence count with their mean risk, which is what a random order among them gives on average.
    """
    order = np.argsort(-confidence, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(confidence[order]) != 0])
    size = np.add.reduceat(weights[:, order], starts, axis=1)
    total = np.add.reduceat((weights * risk)[:, order], starts, axis=1)
    level = np.divide(total, size, out=np.zeros_like(total), where=size > 0)
    until, cumulative = np.cumsum(size, axis=1), np.cumsum(total, axis=1)
    before, cumulative_before = until - size, cumulative - total
    # sum over j = 1..w of (S + j r) / (N + j)  =  w r + (S - N r) (H(N + w) - H(N)), H the harmonic numbers
    harmonic = np.r_[0.0, np.cumsum(1 / np.arange(1, int(until.max()) + 1))]
    span = harmonic[until.astype(int)] - harmonic[before.astype(int)]
    return _divide((size * level + (cumulative_before - before * level) * span).sum(axis=1), until[:, -1])


def resampled_e_aurc(confidence: FloatArray, risk: FloatArray, weights: FloatArray) -> FloatArray:
    """AURC minus that of the perfect order, (B,)."""
    return resampled_aurc(confidence, risk, weights) - resampled_aurc(-risk, risk, weights)


def ci95(
    statistic: Callable[..., FloatArray], *columns: npt.NDArray, patients: Sequence[str]
) -> tuple[float, float] | None:
    """95 % interval of `statistic(*columns, weights)`, or None, see `percentile_interval`."""
    n_patients = len(set(patients))
    if n_patients < LEAST_PATIENTS:
        return None
    return percentile_interval(statistic(*columns, patient_weights(patients)), n_patients)


def mean_ci95(x: FloatArray, patients: Sequence[str]) -> tuple[float, float] | None:
    """`ci95(resampled_mean, x)` from one sum a patient: the same, and far cheaper for tables with many columns."""
    names, index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if len(names) < LEAST_PATIENTS:
        return None
    weights = patient_weights([str(name) for name in names])
    sums, sizes = np.bincount(index, weights=x), np.bincount(index).astype(np.float64)
    return percentile_interval(_divide(weights @ sums, weights @ sizes), len(names))


def share_ci95(hit: FloatArray, patients: Sequence[str]) -> tuple[float, float]:
    """95 % interval of a share of masks (n,) from 0 to 1, one of each at least: Clopper & Pearson 1934, by patient.

    Where all masks hit, resamples do not differ, and an interval of percentiles would have no width. Each patient
    counts once, with the share of the patient's own masks.
    """
    _, index = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    of_patients = np.bincount(index, weights=hit) / np.bincount(index)
    k, n, mean = float(of_patients.sum()), len(of_patients), float(np.mean(hit))
    low = float(betaincinv(k, n - k + 1, 0.025)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 0.975)) if k < n else 1.0
    return min(low, mean), max(high, mean)


def _divide(a: FloatArray, b: FloatArray) -> FloatArray:
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)


def _ranks(x: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean ranks of the repeated rows, (B, n)."""
    _, group = np.unique(x, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0])
    size = np.add.reduceat(weights[:, order], starts, axis=1)
    return (np.cumsum(size, axis=1) - size + (size + 1) / 2)[:, group]


def _correlation(x: FloatArray, y: FloatArray, weights: FloatArray) -> FloatArray:
    n = weights.sum(axis=1, keepdims=True)
    x = x - (weights * x).sum(axis=1, keepdims=True) / np.maximum(n, 1)
    y = y - (weights * y).sum(axis=1, keepdims=True) / np.maximum(n, 1)
    xx, yy, xy = ((weights * a * b).sum(axis=1) for a, b in ((x, x), (y, y), (x, y)))
    # Rounding leaves a constant column a variance of about 1e-32 of its square.
    varies = (xx > 1e-20 * n[:, 0]) & (yy > 1e-20 * n[:, 0])
    return np.where(varies, _divide(xy, np.sqrt(np.where(varies, xx * yy, 1.0))), np.nan)
