"""Intervals for what nobody can measure on a new mask: its true accuracy and the true Dice of each structure.

Every fold's network has judged cases that it never saw, with the truth at hand. How far it was off there says how far
it may be off on a new case: CV+ (Barber et al. 2021, Annals of Statistics 49(1), "Predictive inference with the
jackknife+"), which for one fold alone is split conformal prediction. Residuals are divided by a scale that grows with
the predicted share of errors, as bad masks are judged less precisely than good ones. A mask that is predicted to be as
good as the segmenters' final masks is compared with these, one a patient; a worse one with masks of all kinds, which
share their patient's weight. The guarantee (coverage of at least 1 - 2 alpha, close to 1 - alpha in practice) holds for
cases like the run's own; what was measured stands in summary.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from whqa.metrics.per_case import FloatArray


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """One quantity in [0, 1] as predicted for masks of unseen cases, beside the truth; arrays of one length.

    Attributes:
        fold: of the network that predicted.
        patient: unit of exchangeability.
        predicted, true: the quantity.
        final: whether the row is a segmenter's final mask.
    """

    fold: npt.NDArray[np.int64]
    patient: npt.NDArray[np.object_]
    predicted: FloatArray
    true: FloatArray
    final: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, table: pd.DataFrame, predicted: str, true: str) -> OutOfFold:
        """From columns of a case table; rows where either is missing are left out."""
        rows = table[table[predicted].notna() & table[true].notna()]
        return cls(
            rows["fold"].to_numpy(np.int64),
            rows["patient"].to_numpy(object),
            rows[predicted].to_numpy(np.float64),
            rows[true].to_numpy(np.float64),
            (rows["mask_kind"] == "final").to_numpy(bool),
        )

    def __len__(self) -> int:
        return len(self.true)

    def where(self, keep: npt.NDArray[np.bool_]) -> OutOfFold:
        """A part of the rows."""
        return OutOfFold(self.fold[keep], self.patient[keep], self.predicted[keep], self.true[keep], self.final[keep])

    def comparable(self, predicted: float) -> OutOfFold:
        """Final masks alone where one of them is predicted to be as bad as this, else masks of all kinds."""
        if self.final.any() and predicted >= self.predicted[self.final].min():
            return self.where(self.final)
        return self


def conformal_interval(
    known: OutOfFold, predicted: Mapping[int, float], confidence: float = 0.9
) -> tuple[float, float] | None:
    """Interval for the truth of a new mask.

    Args:
        known: out-of-fold predictions.
        predicted: fold -> what that fold's network predicts for the new mask. Rows of other folds are not used.
        confidence: 1 - alpha.

    Returns:
        (low, high) within [0, 1]; None where there are too few patients for this confidence.
    """
    known = known.where(np.isin(known.fold, list(predicted))).comparable(float(np.mean(list(predicted.values()))))
    if not len(known):
        return None
    offset = _offset(known.predicted)
    new = np.array([predicted[int(k)] for k in known.fold])
    scaled = np.abs(known.true - known.predicted) / _scale(known.predicted, offset)
    reach = scaled * _scale(new, offset)
    weight = patient_shares(known.patient)
    low, high = _upper_quantile(reach - new, weight, confidence), _upper_quantile(new + reach, weight, confidence)
    if low is None or high is None:
        return None
    return max(0.0, -low), min(1.0, high)


def held_out_intervals(known: OutOfFold, confidence: float = 0.9) -> dict[str, npt.NDArray[np.float64]]:
    """Measured without looking: each fold's masks get intervals from the residuals of the other folds.

    Returns:
        `low`, `high` of every row (nan where none could be given) and `hit`, whether the truth lies within (1, 0, nan).
    """
    low, high = np.full(len(known), np.nan), np.full(len(known), np.nan)
    for fold in np.unique(known.fold):
        others = known.where(known.fold != fold)
        # all residuals count as those of one network: the one that judges this fold
        pooled = replace(others, fold=np.zeros(len(others), np.int64))
        for i in np.flatnonzero(known.fold == fold):
            found = conformal_interval(pooled, {0: float(known.predicted[i])}, confidence)
            if found:
                low[i], high[i] = found
    inside = (known.true >= low - 1e-12) & (known.true <= high + 1e-12)
    return {"low": low, "high": high, "hit": np.where(np.isnan(low), np.nan, inside)}


def patient_shares(patient: npt.NDArray[np.object_]) -> FloatArray:
    """Every patient weighs one, shared by the patient's masks."""
    _, inverse, count = np.unique(patient.astype(str), return_inverse=True, return_counts=True)
    return 1.0 / count[inverse]


def _offset(predicted: FloatArray) -> float:
    """The scale of a mask without any predicted error: the typical share of predicted errors."""
    return max(1e-3, float(np.median(1 - predicted)))


def _scale(predicted: FloatArray, offset: float) -> FloatArray:
    return offset + np.clip(1 - predicted, 0, 1)


def _upper_quantile(values: FloatArray, weight: FloatArray, confidence: float) -> float | None:
    """The smallest value with a share of at least `confidence`, the new patient counting as one at infinity."""
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weight[order]) / (weight.sum() + 1)
    place = int(np.searchsorted(share, confidence - 1e-12))
    return float(values[order[place]]) if place < len(values) else None
