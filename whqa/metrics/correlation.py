"""Does the quality indicator follow the accuracy: Pearson, Spearman, mean absolute error and a constant's error.

Pairs with a nan are left out. Correlations are nan for fewer than three pairs or where one side does not vary;
`why_undefined` says which, for tables that print a reason beside every missing number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from whqa.metrics.arrays import FloatArray


def finite_pairs(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Both as 1-D float64 without the pairs that hold a nan.

    Raises:
        ValueError: not 1-D, or of different lengths.
    """
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"need two vectors of one length, got shapes {a.shape} and {b.shape}")
    kept = ~(np.isnan(a) | np.isnan(b))
    return a[kept], b[kept]


def why_undefined(x: npt.ArrayLike, y: npt.ArrayLike) -> str | None:
    """Why the correlation of x and y is nan, or None where it is defined.

    >>> why_undefined([0.9, 0.8], [0.7, 0.6])
    'only 2 case(s); a correlation needs 3'
    """
    a, b = finite_pairs(x, y)
    if a.size < 3:
        return f"only {a.size} case(s); a correlation needs 3"
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return "no variation: all cases have the same value"
    return None


def pearson(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Pearson correlation in [-1, 1]; nan as `why_undefined` says.

    >>> round(pearson([0.7, 0.8, 0.9], [0.75, 0.8, 0.95]), 4)
    0.9608
    """
    if why_undefined(x, y):
        return float("nan")
    a, b = (v - v.mean() for v in finite_pairs(x, y))
    # dividing each side first keeps products of tiny deviations from underflowing
    return float(np.clip(np.dot(a / np.linalg.norm(a), b / np.linalg.norm(b)), -1.0, 1.0))


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Spearman correlation: Pearson of ranks, ties get their mean rank; nan as `why_undefined` says.

    >>> round(spearman([0.7, 0.8, 0.9], [0.1, 0.2, 0.9]), 9)
    1.0
    """
    from scipy.stats import rankdata  # a third of a second

    a, b = finite_pairs(x, y)
    return pearson(rankdata(a), rankdata(b))


def mae(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Mean absolute error; nan without any pair.

    >>> mae([0.5, 0.75], [0.25, 0.75])
    0.125
    """
    a, b = finite_pairs(x, y)
    return float(np.abs(a - b).mean()) if a.size else float("nan")


def mae_constant(accuracy: npt.ArrayLike, constant: float | npt.ArrayLike | None = None) -> float:
    """MAE of predicting a constant: the training mean of Acc, one number or one a case.

    None stands for the mean of `accuracy` itself: it has seen the test cases, so it flatters the constant.

    >>> mae_constant([0.5, 1.0]), mae_constant([0.5, 1.0], 0.25)
    (0.25, 0.5)
    """
    truth = np.asarray(accuracy, dtype=np.float64)
    if constant is None:
        constant = float(np.nanmean(truth)) if np.isfinite(truth).any() else float("nan")
    return mae(np.broadcast_to(np.asarray(constant, dtype=np.float64), truth.shape), truth)
