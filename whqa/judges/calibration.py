"""Calibration of predicted error probabilities on training cases that the error-map network has not seen.

P = sigmoid(slope * logit + offset), where the offset is the mask's own: the one at which the mean of P over the heart
is the error rate that `whqa.judges.error_rate` expects of this mask. So the soft QI is unbiased given what is known of
the mask, whether it is perfect or poor. Then the error map follows by one of two rules:

    expected  each mask has its tau, the one with the best Dice that P itself lets expect: a bad mask gets a large map,
              a good one a small map
    dice      one tau for all masks, with the best mean error Dice on those cases
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit, log_expit
from torch import Tensor

from whqa.files import read_json, reading
from whqa.judges.error_rate import N_FEATURES, OF_NETWORK, RateModel, between, fit_rate, rate_features
from whqa.judges.threshold import LEVELS
from whqa.judges.threshold_rule import ThresholdRule
from whqa.metrics.arrays import FloatArray
from whqa.quality import ErrorPrediction, JudgedCase, within

CALIBRATION = "calibration.json"
LOGIT_RANGE = 12.0
BINS = 1024
SLOPES = (0.05, 5.0)
OFFSET_RANGE = 40.0


@dataclass(frozen=True)
class CorrectionRule:
    """When a mask is corrected, see `whqa.judges.correction`.

    Attributes:
        probability: a voxel may change where another label is at least this probable.
        gain: a structure may change where its Dice is expected to gain at least this much.
    """

    probability: float
    gain: float


@dataclass(frozen=True)
class Calibration:
    """From error logits to P and the error map.

    Attributes:
        slope: of the logit.
        rate: the error rate that a mask is expected to have; None leaves logits as they are.
        threshold: wrong is where P >= threshold; None stands for the rule "expected".
        correction: when a label head's correction helps; None leaves masks alone.
        image_level: of a joint network's outputs of the whole mask, each; None leaves it as it is.
    """

    slope: float = 1.0
    rate: RateModel | None = None
    threshold: float | None = 0.5
    correction: CorrectionRule | None = None
    image_level: tuple[RateModel | None, ...] | None = None

    def predict(self, logit_DHW: Tensor, case: JudgedCase) -> ErrorPrediction:
        """Calibrated probability float32 (D, H, W) and error map bool (D, H, W); the reference is not looked at."""
        logit = logit_DHW.float().clamp(-LOGIT_RANGE, LOGIT_RANGE)
        probability = torch.sigmoid(self.slope * logit + self._offset(logit, case))
        threshold = expected_dice_threshold(probability) if self.threshold is None else self.threshold
        return ErrorPrediction(probability, probability >= threshold, calibrated=self.rate is not None)

    def _offset(self, logit_DHW: Tensor, case: JudgedCase) -> float:
        if self.rate is None:
            return 0.0
        rate = self.rate.rate(rate_features(logit_DHW, case)[None])
        return float(_offsets(self.slope, _counts(within(logit_DHW, case.heart))[None], rate)[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for calibration.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Calibration:
        """What `to_dict` made.

        Raises:
            ValueError, TypeError, KeyError: it did not.
        """
        rate, correction, threshold = numbers["rate"], numbers["correction"], numbers["threshold"]
        found = cls(
            float(numbers["slope"]),
            _rate_model(rate),
            None if threshold is None else float(threshold),
            None if correction is None else CorrectionRule(float(correction["probability"]), float(correction["gain"])),
            # runs of earlier versions know no joint network
            None if numbers.get("image_level") is None else tuple(map(_rate_model, numbers["image_level"])),
        )
        known = [found.slope, found.threshold or 0.0]
        known += [] if found.rate is None else [found.rate.intercept, *found.rate.coefficients]
        known += [] if found.correction is None else [found.correction.probability, found.correction.gain]
        known += [n for m in found.image_level or () if m is not None for n in (m.intercept, *m.coefficients)]
        if not np.isfinite(known).all():
            raise ValueError("a number is not finite")
        if found.rate is not None and len(found.rate.coefficients) not in N_FEATURES:
            raise ValueError("not the features that there are")
        return found


def _rate_model(numbers: Mapping[str, Any] | None) -> RateModel | None:
    if numbers is None:
        return None
    return RateModel(float(numbers["intercept"]), tuple(map(float, numbers["coefficients"])))


def read_calibration(path: Path, remedy: str) -> Calibration:
    """The calibration that a run keeps.

    Raises:
        InputError: the file is missing or damaged, or an older version wrote it; ends with `remedy`.
    """
    with reading(path, "a calibration", remedy):
        return Calibration.from_dict(read_json(path, remedy))


def expected_dice_threshold(probability: Tensor) -> float:
    """tau whose map [P >= tau] has the best expected Dice; above 1 where not even half a wrong voxel is expected.

    With P the truth's distribution, a map of k voxels has the expected Dice 2 sum(P in the map) / (k + sum(P)), up to
    the expectation of the ratio (Lipton et al. 2014, arXiv 1402.1892, for F1). Candidates are k / 1024.
    """
    total = float(probability.double().sum())
    if total < 0.5:
        return 2.0
    level = (probability.flatten() * LEVELS).long().clamp(0, LEVELS)
    count = torch.bincount(level, minlength=LEVELS + 1).double()
    mass = torch.bincount(level, weights=probability.flatten().double(), minlength=LEVELS + 1)
    called, hit = (values.flip(0).cumsum(0).flip(0) for values in (count, mass))
    return float((2 * hit / (called + total)).argmax()) / LEVELS


@dataclass(frozen=True, eq=False)
class MaskLogits:
    """What the calibration needs to know of one judged mask with reference, small enough to keep many.

    Attributes:
        features: see `rate_features`.
        rate: true share of wrong voxels over the heart.
        heart: voxels of the heart in each bin of the logit, right and wrong: float64 (2, BINS).
        volume: those of the whole crop.
    """

    features: FloatArray
    rate: float
    heart: FloatArray
    volume: FloatArray

    @classmethod
    def of(cls, logit_DHW: Tensor, case: JudgedCase) -> MaskLogits:
        """Count voxels; logits beyond ±12 fall into the end bins."""
        where = case.error.long().add_(case.heart, alpha=2)
        counts = torch.bincount((_bins(logit_DHW) + BINS * where).flatten(), minlength=4 * BINS)
        of_rest, of_heart = counts.double().cpu().numpy().reshape(2, 2, BINS)
        of_volume = of_rest + of_heart
        rate = float(of_heart[1].sum() / max(1.0, of_heart.sum()))
        return cls(rate_features(logit_DHW.clamp(-LOGIT_RANGE, LOGIT_RANGE), case), rate, of_heart, of_volume)


def bin_logits() -> FloatArray:
    """Logit at the centre of every bin, float64 (BINS,)."""
    return np.linspace(-LOGIT_RANGE, LOGIT_RANGE, BINS)


def fit_calibration(
    masks: Sequence[MaskLogits],
    weights: Sequence[float] | None = None,
    rule: ThresholdRule = ThresholdRule.expected,
    columns: Sequence[int] = OF_NETWORK,
    further: RateModel | None = None,
) -> Calibration:
    """Error rates, then the slope by maximum likelihood over the heart, then the rule's threshold.

    Args:
        masks: none at all leaves logits as they are, with tau = 0.5.
        weights: of the masks, all alike by default.
        rule: see above.
        columns: features of the regression, see `whqa.judges.error_rate`.
        further: a regression on other masks; the error rate lies between the two.
    """
    if not masks:
        return Calibration()
    share = np.ones(len(masks)) if weights is None else np.asarray(weights, np.float64)
    share = share / share.sum()
    rate = fit_rate([m.features for m in masks], [m.rate for m in masks], share.tolist(), columns)
    if rate is None:
        return Calibration(threshold=None if rule == ThresholdRule.expected else 0.5)
    if further is not None:
        rate = between([rate, further])
    heart = np.stack([m.heart for m in masks])
    rates = rate.rate(np.stack([m.features for m in masks]))
    slope = _likeliest_slope(heart, rates, share)
    if rule == ThresholdRule.expected:
        return Calibration(slope, rate, None)
    offsets = _offsets(slope, heart.sum(axis=1), rates)
    return Calibration(slope, rate, _best_threshold(masks, slope, offsets, share))


def corrected_by(calibration: Calibration, rule: CorrectionRule | None) -> Calibration:
    """The same with another rule of correction."""
    return replace(calibration, correction=rule)


def _counts(logits: Tensor) -> FloatArray:
    """Voxels in each bin, float64 (BINS,)."""
    return torch.bincount(_bins(logits).flatten(), minlength=BINS).double().cpu().numpy()


def _bins(logits: Tensor) -> Tensor:
    step = (logits.float().clamp(-LOGIT_RANGE, LOGIT_RANGE) + LOGIT_RANGE) / (2 * LOGIT_RANGE) * (BINS - 1)
    return step.round().long()


def _offsets(slope: float, counts: FloatArray, rates: FloatArray) -> FloatArray:
    """The offset at which the mean of P over the counted voxels is the rate, by bisection: (n, BINS), (n,) -> (n,)."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    scaled = slope * bin_logits()
    low, high = np.full(len(rates), -OFFSET_RANGE), np.full(len(rates), OFFSET_RANGE)
    for _ in range(60):
        middle = (low + high) / 2
        too_high = (share * expit(scaled + middle[:, None])).sum(axis=1) > rates
        low, high = np.where(too_high, low, middle), np.where(too_high, middle, high)
    return (low + high) / 2


def _likeliest_slope(heart: FloatArray, rates: FloatArray, share: FloatArray) -> float:
    from scipy.optimize import minimize_scalar  # a fifth of a second, and only a training fits

    size = np.maximum(heart.sum(axis=(1, 2)), 1)
    weight = (share / size)[:, None]

    def negative_log_likelihood(log_slope: float) -> float:
        slope = float(np.exp(log_slope))
        z = slope * bin_logits() + _offsets(slope, heart.sum(axis=1), rates)[:, None]
        return -float((weight * (heart[:, 1] * log_expit(z) + heart[:, 0] * log_expit(-z))).sum())

    bounds = (np.log(SLOPES[0]), np.log(SLOPES[1]))
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x))


def _best_threshold(masks: Sequence[MaskLogits], slope: float, offsets: FloatArray, share: FloatArray) -> float:
    mean = np.zeros(LEVELS + 1)
    for mask, offset, weight in zip(masks, offsets, share, strict=True):
        level = (expit(slope * bin_logits() + offset) * LEVELS).round().astype(int)
        right, wrong = (np.bincount(level, weights=v, minlength=LEVELS + 1) for v in mask.volume)
        hit, called = (np.cumsum(v[::-1])[::-1] for v in (wrong, right + wrong))
        size = called + wrong.sum()
        mean += weight * np.divide(2 * hit, size, out=np.ones_like(size), where=size > 0)
    # half a level below, so that rounding cannot move a voxel across tau
    return max(0.0, (int(mean.argmax()) - 0.5) / LEVELS) if mean.argmax() else 0.0
