"""How many voxels of a mask are wrong: a regression of its error rate over the heart on a few numbers of it.

A network sees a neighbourhood at a time. Whether the mask agrees with a second opinion everywhere (as the opinion's own
mask does), in thin seams (as a good mask of another maker does) or not at all in places (a gross fault) shows only in
the whole, and tells a perfect mask from a poor one that looks alike voxel by voxel.

The regression is a quasi-binomial one with logit link (Papke & Wooldridge 1996, Journal of Applied Econometrics 11(6)),
fitted by scikit-learn's logistic regression on fractional responses: given its inputs, the mean is met.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy import ndimage
from scipy.special import expit
from torch import Tensor

from whqa.metrics.arrays import FloatArray
from whqa.quality import JudgedCase, count, within

SMALLEST = 1e-3
"""Added to shares before their logarithm: smaller ones are alike."""
N_FEATURES = (1, 6)
"""Without and with a second opinion."""
OF_NETWORK, OF_OPINION = (0, 1, 2), (1, 2, 3, 4, 5)
"""Features that the error-map network's regression uses, which has few masks to learn from, and the opinion's own."""
STRENGTH = 50.0
"""Inverse of the ridge penalty, in masks."""


@dataclass(frozen=True)
class RateModel:
    """expit(intercept + sum of coefficients times `rate_features`)."""

    intercept: float
    coefficients: tuple[float, ...]

    def rate(self, features: FloatArray) -> FloatArray:
        """Expected share of wrong voxels over the heart: (n, features) -> (n,)."""
        logit = self.intercept + np.asarray(features) @ np.asarray(self.coefficients)
        return expit(logit)


def rate_features(logit_DHW: Tensor, case: JudgedCase) -> FloatArray:
    """What the regression sees of one mask: logarithms of shares and means over the heart.

    The mean of sigmoid(logit); with a second opinion also the mean of 1 - p_S(M), the share of voxels where the
    opinion's most probable label is not the mask's, that share without seams (after an erosion by a voxel), and the
    mean of 1 - p_S(M) where the two agree and where they do not.

    Args:
        logit_DHW: error logit, not calibrated.
        case: the mask; its reference is not looked at.

    Returns:
        float64 (6,), or (1,) without an opinion.
    """
    heart = case.heart
    values = [_mean(torch.sigmoid(logit_DHW.float()), heart)]
    if case.log_p is not None:
        # a mask's network and its rival ask the same
        if case not in _SAID:
            _SAID[case] = _said_of(case)
        values += _SAID[case]
    return np.log(np.array(values) + SMALLEST)


_SAID: WeakKeyDictionary[JudgedCase, list[float]] = WeakKeyDictionary()


def _said_of(case: JudgedCase) -> list[float]:
    """What a second opinion says of a mask, see `rate_features`."""
    heart, doubt = case.heart, case.doubt
    differs = (case.drawn != case.mask) & heart
    inner = ndimage.binary_erosion(differs.cpu().numpy())
    size = count(heart)
    return [
        _mean(doubt, heart),
        count(differs) / size if size else 0.0,
        float(inner.sum()) / max(1, size),
        _mean(doubt, heart & ~differs),
        _mean(doubt, differs),
    ]


def fit_rate(
    features: Sequence[FloatArray],
    rates: Sequence[float],
    weights: Sequence[float],
    columns: Sequence[int] | None = None,
) -> RateModel | None:
    """The regression on masks with reference; None where all masks, or none, are wrong everywhere or nowhere.

    Args:
        features: of each mask, see `rate_features`.
        rates: true share of wrong voxels over the heart.
        weights: of the masks.
        columns: features to use, None for all; the others get the coefficient 0.
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
    if columns is not None:
        spread[[i for i in range(x.shape[1]) if i not in columns]] = np.inf
    z = (x - mean) / spread
    model = LogisticRegression(C=STRENGTH, max_iter=2000)
    with warnings.catch_warnings():
        # the ridge makes it unique; a step less changes nothing that counts
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(np.r_[z, z], np.r_[np.ones(len(z)), np.zeros(len(z))], sample_weight=np.r_[w * y, w * (1 - y)])
    slopes = model.coef_[0] / spread
    return RateModel(float(model.intercept_[0] - slopes @ mean), tuple(map(float, slopes)))


def between(models: Sequence[RateModel]) -> RateModel:
    """The model whose odds are the geometric mean of those of several ones with the same features."""
    intercept = float(np.mean([model.intercept for model in models]))
    return RateModel(intercept, tuple(map(float, np.mean([model.coefficients for model in models], axis=0))))


def _mean(values: Tensor, region: Tensor) -> float:
    selected = within(values, region)
    return float(selected.double().mean()) if selected.numel() else 0.0
