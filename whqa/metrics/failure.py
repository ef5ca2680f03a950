"""Failure detection: does a confidence rank good cases before bad ones.

For n cases in order of falling confidence, the selective risk at coverage i / n is the mean risk of the first i cases;
AURC is its mean over i = 1..n (Geifman, Uziel & El-Yaniv, ICLR 2019, "Bias-reduced uncertainty estimation", eq. 5 and
6), and E-AURC subtracts the AURC of the best possible order. Pairs with a nan are left out; nan without any pair.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from whqa.metrics.arrays import FloatArray
from whqa.metrics.correlation import finite_pairs


def risk_coverage(confidence: npt.ArrayLike, risk: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Coverage i / n and expected selective risk at it, both (n,).

    Cases of equal confidence come in random order; the expectation over all such orders is exact, since every case
    of a tied group then counts with the group's mean risk.

    >>> coverage, risk = risk_coverage([0.9, 0.5], [0.25, 0.75])
    >>> coverage.tolist(), risk.tolist()
    ([0.5, 1.0], [0.25, 0.5])
    """
    trust, loss = finite_pairs(confidence, risk)
    if not trust.size:
        return np.empty(0), np.empty(0)
    _, group = np.unique(trust, return_inverse=True)
    expected = (np.bincount(group, weights=loss) / np.bincount(group))[group]
    count = np.arange(1, trust.size + 1)
    return count / trust.size, np.cumsum(expected[np.argsort(-trust, kind="stable")]) / count


def aurc(confidence: npt.ArrayLike, risk: npt.ArrayLike) -> float:
    """Area under the risk-coverage curve, lower is better; e.g. confidence QI and risk 1 - Acc or 1 - Dice.

    >>> aurc([0.9, 0.5], [0.25, 0.75])
    0.375
    """
    _, selective = risk_coverage(confidence, risk)
    return float(selective.mean()) if selective.size else float("nan")


def e_aurc(confidence: npt.ArrayLike, risk: npt.ArrayLike) -> float:
    """Excess AURC: AURC minus that of the order by true risk; 0 is perfect.

    >>> e_aurc([0.9, 0.5], [0.25, 0.75]), e_aurc([0.5, 0.9], [0.25, 0.75])
    (0.0, 0.25)
    """
    trust, loss = finite_pairs(confidence, risk)
    return aurc(trust, loss) - aurc(-loss, loss)


def auroc(score: npt.ArrayLike, positive: npt.ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive case scores above a negative one, ties count half.

    Args:
        score: (n,), higher means more likely positive.
        positive: (n,) bool or 0/1.

    Returns:
        nan where all cases are of one kind.

    Raises:
        ValueError: `positive` holds anything but 0 and 1.

    >>> auroc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    0.75
    """
    values, truth = finite_pairs(score, np.asarray(positive, dtype=np.float64))
    if not np.isin(truth, (0.0, 1.0)).all():
        raise ValueError("positive must hold only 0 and 1")
    if len(np.unique(truth)) < 2:
        return float("nan")
    from sklearn.metrics import roc_auc_score  # seconds

    return float(roc_auc_score(truth, values))
