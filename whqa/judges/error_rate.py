"""A share between 0 and 1 by regression on a few numbers, such as a mask's error rate where there is no second opinion.

The regression is a quasi-binomial one with logit link (Papke & Wooldridge 1996, Journal of Applied Econometrics 11(6)),
fitted by scikit-learn's logistic regression on fractional responses: given its inputs, the mean is met. With an opinion
error rates are those of `whqa.judges.boosted_rate`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from whqa.metrics.arrays import FloatArray

STRENGTH = 50.0
"""Inverse of the ridge penalty, in masks."""


@dataclass(frozen=True)
class RateModel:
    """expit(intercept + sum of coefficients times features)."""

    intercept: float
    coefficients: tuple[float, ...]

    def rate(self, features: FloatArray) -> FloatArray:
        """Expected share: (n, features) -> (n,)."""
        logit = self.intercept + np.asarray(features) @ np.asarray(self.coefficients)
        return expit(logit)

    def rates(self, features: FloatArray) -> FloatArray:
        """The same of a mask's one part, that is all of it: (n, features) -> (n, 1)."""
        return self.rate(features)[:, None]


def fit_rate(
    features: Sequence[FloatArray],
    rates: Sequence[float],
    weights: Sequence[float],
) -> RateModel | None:
    """The regression on masks with reference; None where all shares are 0 or all are 1.

    Args:
        features: of each mask.
        rates: the true share, such as that of wrong voxels over the heart.
        weights: of the masks.
    """
    # half a second, and only a training fits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    x, y, w = np.array(features, np.float64), np.array(rates, np.float64), np.array(weights, np.float64)
    if not len(x) or not 0 < (w * y).sum() < w.sum():
        return None
    w = w * len(x) / w.sum()
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-9
    spread[spread < 1e-6] = np.inf
    z = (x - mean) / spread
    model = LogisticRegression(C=STRENGTH, max_iter=2000)
    with warnings.catch_warnings():
        # the ridge makes it unique; a step less changes nothing that counts
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(np.r_[z, z], np.r_[np.ones(len(z)), np.zeros(len(z))], sample_weight=np.r_[w * y, w * (1 - y)])
    slopes = model.coef_[0] / spread
    return RateModel(float(model.intercept_[0] - slopes @ mean), tuple(map(float, slopes)))
