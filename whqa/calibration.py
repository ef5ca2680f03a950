"""Calibration of predicted error probabilities on training cases that the error-map network has not seen.

Two steps, both from one histogram of logits a mask: Platt scaling (Platt 1999: sigmoid(a x + b) by maximum likelihood)
makes the probabilities, and so the soft QI, honest; then tau is the threshold with the best mean error Dice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from whqa.data.judged import ErrorPrediction

LOGIT_RANGE = 12.0
BINS = 1024


@dataclass(frozen=True)
class Calibration:
    """P = sigmoid(scale * logit + bias); a voxel is called wrong where P >= threshold."""

    scale: float = 1.0
    bias: float = 0.0
    threshold: float = 0.5

    def predict(self, logit_DHW: Tensor) -> ErrorPrediction:
        """Calibrated probability float32 (D, H, W) and error map bool (D, H, W)."""
        probability = torch.sigmoid(self.scale * logit_DHW.float() + self.bias)
        return ErrorPrediction(probability, probability >= self.threshold)

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for calibration.json."""
        return asdict(self)


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


def fit_calibration(histograms: list[LogitHistogram]) -> Calibration:
    """Platt scaling over all voxels, every mask with equal weight, then the threshold with the best mean error Dice."""
    if not histograms:
        return Calibration()
    scale, bias = _platt(histograms)
    cut = int(_mean_dice_by_cut(histograms).argmax())
    # Half a bin below the first logit that counts as wrong, so that rounding cannot move a voxel across tau.
    logit = bin_logits()[cut] - LOGIT_RANGE / (BINS - 1)
    return Calibration(scale, bias, float(torch.sigmoid(scale * logit + bias)))


def _platt(histograms: list[LogitHistogram]) -> tuple[float, float]:
    right = torch.stack([h.right / (h.right.sum() + h.wrong.sum()) for h in histograms]).mean(dim=0)
    wrong = torch.stack([h.wrong / (h.right.sum() + h.wrong.sum()) for h in histograms]).mean(dim=0)
    if wrong.sum() == 0 or right.sum() == 0:
        return 1.0, 0.0
    x, r, w = bin_logits().numpy(), right.numpy(), wrong.numpy()

    def negative_log_likelihood(raw: np.ndarray) -> tuple[float, np.ndarray]:
        z = np.exp(raw[0]) * x + raw[1]
        residual = r * expit(z) - w * expit(-z)
        value = (w * np.logaddexp(0, -z) + r * np.logaddexp(0, z)).sum()
        return float(value), np.array([(residual * np.exp(raw[0]) * x).sum(), residual.sum()])

    log_scale, bias = minimize(negative_log_likelihood, np.zeros(2), jac=True, method="L-BFGS-B").x
    return float(np.exp(log_scale)), float(bias)


def _mean_dice_by_cut(histograms: list[LogitHistogram]) -> Tensor:
    curves = []
    for h in histograms:
        hit = h.wrong.flip(0).cumsum(0).flip(0)
        called = hit + h.right.flip(0).cumsum(0).flip(0)
        size = called + h.wrong.sum()
        curves.append(torch.where(size > 0, 2 * hit / size.clamp(min=1), torch.ones_like(size)))
    return torch.stack(curves).mean(dim=0)
