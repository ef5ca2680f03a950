"""Calibration of predicted error probabilities on training cases that the error-map network has not seen.

Platt scaling (Platt 1999: sigmoid(a x + b) by maximum likelihood) from one histogram of logits a mask makes the
probabilities, and so the soft QI, honest. Then the error map follows by one of two rules:

    expected  each mask has its tau, the one with the best Dice that P itself lets expect: a bad mask gets a large map,
              a good one a small map
    dice      one tau for all masks, with the best mean error Dice on those cases
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from whqa.files import read_json, reading
from whqa.judges.threshold_rule import ThresholdRule
from whqa.quality import ErrorPrediction

CALIBRATION = "calibration.json"
LOGIT_RANGE = 12.0
BINS = 1024
SCALE_RANGE = (0.01, 10.0)


@dataclass(frozen=True)
class Calibration:
    """P = sigmoid(scale * logit + bias); wrong is where P >= threshold, None stands for the rule "expected".

    `correction` is the P from which a label head's correction helps; None leaves masks alone.
    """

    scale: float = 1.0
    bias: float = 0.0
    threshold: float | None = 0.5
    correction: float | None = None

    def predict(self, logit_DHW: Tensor) -> ErrorPrediction:
        """Calibrated probability float32 (D, H, W) and error map bool (D, H, W)."""
        probability = torch.sigmoid(self.scale * logit_DHW.float() + self.bias)
        threshold = expected_dice_threshold(probability) if self.threshold is None else self.threshold
        return ErrorPrediction(probability, probability >= threshold)

    def corrected_from(self, logit: float | None) -> Calibration:
        """The same with the correction threshold given as an uncalibrated logit."""
        if logit is None:
            return replace(self, correction=None)
        return replace(self, correction=float(expit(self.scale * logit + self.bias)))

    def to_dict(self) -> dict[str, float | None]:
        """Plain numbers for calibration.json."""
        return asdict(self)


def read_calibration(path: Path, remedy: str) -> Calibration:
    """The calibration that a run keeps.

    Raises:
        InputError: the file is missing or damaged; ends with `remedy`.
    """
    with reading(path, "a calibration", remedy):
        numbers = {k: None if v is None else float(v) for k, v in read_json(path, remedy).items()}
        # one without numbers would find no error anywhere
        if numbers.keys() != Calibration().to_dict().keys() or None in (numbers["scale"], numbers["bias"]):
            raise ValueError("scale, bias, threshold or correction is missing")
        if not all(v is None or isfinite(v) for v in numbers.values()):
            raise ValueError("a number is not finite")
        return Calibration(**numbers)  # type: ignore[arg-type]


def expected_dice_threshold(probability: Tensor) -> float:
    """tau whose map [P >= tau] has the best expected Dice; above 1 where not even half a wrong voxel is expected.

    With P the truth's distribution, a map of k voxels has the expected Dice 2 sum(P in the map) / (k + sum(P)), up to
    the expectation of the ratio (Lipton et al. 2014, arXiv 1402.1892, for F1). Candidates are k / 1024.
    """
    total = float(probability.double().sum())
    if total < 0.5:
        return 2.0
    level = (probability.flatten() * BINS).long().clamp(0, BINS)
    count = torch.bincount(level, minlength=BINS + 1).double()
    mass = torch.bincount(level, weights=probability.flatten().double(), minlength=BINS + 1)
    called, hit = (values.flip(0).cumsum(0).flip(0) for values in (count, mass))
    return float((2 * hit / (called + total)).argmax()) / BINS


@dataclass(frozen=True)
class LogitHistogram:
    """Counts of right and wrong voxels of one mask by logit bin, float64 (BINS,)."""

    right: Tensor
    wrong: Tensor

    @classmethod
    def of(cls, logit: Tensor, error: Tensor) -> LogitHistogram:
        """Count voxels; logits beyond ±12 fall into the end bins."""
        step = (logit.float().clamp(-LOGIT_RANGE, LOGIT_RANGE) + LOGIT_RANGE) / (2 * LOGIT_RANGE) * (BINS - 1)
        bins = step.round().long().flatten()
        everything = torch.bincount(bins, minlength=BINS)
        wrong = torch.bincount(bins[error.flatten()], minlength=BINS)
        return cls((everything - wrong).double().cpu(), wrong.double().cpu())


def bin_logits() -> Tensor:
    """Logit at the centre of every bin, float64 (BINS,)."""
    return torch.linspace(-LOGIT_RANGE, LOGIT_RANGE, BINS, dtype=torch.float64)


def fit_calibration(
    histograms: Sequence[LogitHistogram],
    weights: Sequence[float] | None = None,
    rule: ThresholdRule = ThresholdRule.expected,
) -> Calibration:
    """Platt scaling over all voxels, then the rule's threshold.

    Args:
        histograms: one a mask; none at all leaves logits as they are, with tau = 0.5.
        weights: of the masks, all alike by default.
        rule: see above.
    """
    if not histograms:
        return Calibration()
    share = torch.ones(len(histograms)) if weights is None else torch.tensor(weights)
    share = share.double() / share.double().sum()
    scale, bias = _platt(histograms, share)
    if rule == ThresholdRule.expected:
        return Calibration(scale, bias, None)
    cut = int((share[:, None] * _dice_by_cut(histograms)).sum(dim=0).argmax())
    # Half a bin below the first logit that counts as wrong, so that rounding cannot move a voxel across tau.
    logit = bin_logits()[cut] - LOGIT_RANGE / (BINS - 1)
    return Calibration(scale, bias, float(torch.sigmoid(scale * logit + bias)))


def _platt(histograms: Sequence[LogitHistogram], share: Tensor) -> tuple[float, float]:
    size = torch.stack([h.right.sum() + h.wrong.sum() for h in histograms])
    weight = (share / size)[:, None]
    right = (weight * torch.stack([h.right for h in histograms])).sum(dim=0)
    wrong = (weight * torch.stack([h.wrong for h in histograms])).sum(dim=0)
    if wrong.sum() == 0 or right.sum() == 0:
        return 1.0, 0.0
    x, r, w = bin_logits().numpy(), right.numpy(), wrong.numpy()

    def negative_log_likelihood(raw: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.exp(raw[0]) * x + raw[1]
        residual = r * expit(z) - w * expit(-z)
        value = (w * np.logaddexp(0, -z) + r * np.logaddexp(0, z)).sum()
        return float(value), np.array([(residual * np.exp(raw[0]) * x).sum(), residual.sum()])

    # Within these bounds float32 probabilities tell neighbouring bins apart; separable or reversed logits hit them.
    bounds = [tuple(np.log(SCALE_RANGE)), (None, None)]
    log_scale, bias = minimize(negative_log_likelihood, np.zeros(2), jac=True, bounds=bounds, method="L-BFGS-B").x
    return float(np.exp(log_scale)), float(bias)


def _dice_by_cut(histograms: Sequence[LogitHistogram]) -> Tensor:
    curves = []
    for h in histograms:
        hit = h.wrong.flip(0).cumsum(0).flip(0)
        called = hit + h.right.flip(0).cumsum(0).flip(0)
        size = called + h.wrong.sum()
        curves.append(torch.where(size > 0, 2 * hit / size.clamp(min=1), torch.ones_like(size)))
    return torch.stack(curves)
