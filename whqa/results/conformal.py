"""Intervals for what nobody can measure on a new mask: its true accuracy and the true Dice of each structure.

Every fold's network has judged masks of cases that it never saw, with the truth at hand. For any candidate truth y
these masks tell what is predicted of masks that truly are about y. The interval holds every y of which the prediction
at hand is a usual one. This is conformal prediction conditional on the truth ("label-conditional" or Mondrian: Vovk,
Gammerman & Shafer 2005, ch. 4), read as Neyman's confidence belt (1937), with residuals of cross-validation (CV+,
Barber et al. 2021, Annals of Statistics 49(1)).

Why on the truth, not on the prediction: an interval that is right for nine in ten masks of one prediction may be wrong
for every perfect mask among them, as such are few. Given the truth it is right for perfect, good and bad masks alike,
and so for any mixture of them, also one unlike the run's own. The price is width where the judge cannot tell masks
apart.

Every patient weighs the same, and of a patient's masks most that is closest to y, so that the belt is as local as the
table is dense. Their predictions are shifted to y along the scale log(offset + 1 - x), on which errors of judging are
about alike for good and bad masks. Where no mask of truth y is known, the belt widens with the distance to the nearest.
Networks differ: how far a mask is off is measured from the middle of the masks that the other folds' networks judged.
What is usual lies, on each side of the middle, within the reach that holds for both sides together, or, where that is
more, within the reach that only half of the unusual masks pass on this side (an equal-tailed interval): kinds of mask
that the judge takes for better, or for worse, than they are lie on one side, and another program's may be such a kind.

Of a new mask every network gives its own interval, and a vote decides (Gasparin & Ramdas 2024, arXiv 2401.09379): means
of their ends would hold the truth of a perfect mask, which lies at the very end, only where all networks do. A
prediction better than the middle of the range that is usual for perfect masks says no more than that middle (nor a
worse one at the other end), so that chance rules out nothing at the ends (compare Feldman & Cousins 1998). The coverage
that was measured fold by fold and stratum by stratum stands in summary.json.

Libraries for this (crepes, MAPIE) know classes of rows, but neither patients nor a sliding neighbourhood in the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from whqa.metrics.arrays import FloatArray

NEIGHBOURHOOD = 0.1
"""Distance in truth, on the scale of `_scaled`, over which the weight of a mask falls to 1 / e of the nearest one's."""
WIDENING = 0.5
"""Of the distance to the nearest known truth: what the belt gains on both sides where no mask is known."""
MOST_GROUPS = 10
"""How many times masks are left out for a measurement: with each of 200 folds alone it took hours."""
_CANDIDATES = 200


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """One quantity in [0, 1] as predicted for masks of unseen cases, beside the truth; arrays of one length.

    Attributes:
        fold: of the network that predicted.
        patient: unit of exchangeability.
        predicted, true: the quantity.
    """

    fold: npt.NDArray[np.int64]
    patient: npt.NDArray[np.object_]
    predicted: FloatArray
    true: FloatArray

    @classmethod
    def of(cls, table: pd.DataFrame, predicted: str, true: str) -> OutOfFold:
        """From columns of a case table; rows where either is missing are left out."""
        rows = table[table[predicted].notna() & table[true].notna()]
        return cls(
            rows["fold"].to_numpy(np.int64),
            rows["patient"].to_numpy(object),
            rows[predicted].to_numpy(np.float64),
            rows[true].to_numpy(np.float64),
        )

    def __len__(self) -> int:
        return len(self.true)

    def where(self, keep: npt.NDArray[np.bool_ | np.int64]) -> OutOfFold:
        """A part of the rows, or the rows with these numbers."""
        return OutOfFold(self.fold[keep], self.patient[keep], self.predicted[keep], self.true[keep])


@dataclass(frozen=True, eq=False)
class ConfidenceBelt:
    """For every candidate truth the predictions that are usual for it, on the scale of `_scaled`, where bad is high.

    Attributes:
        offset: of the scale.
        truth: candidates, rising, (n,).
        lower, upper: a usual prediction lies between them, (n,).
        ends: a prediction beyond the first or the second counts as that one.
    """

    offset: float
    truth: FloatArray
    lower: FloatArray
    upper: FloatArray
    ends: tuple[float, float]

    def intervals(self, predicted: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Lowest and highest truth of which a prediction is usual, (m,) each, for predictions (m,)."""
        value = np.clip(_scaled(predicted, self.offset), *self.ends)
        # worse truths are ruled out by a prediction that is too good for them, better ones by one that is too bad
        worst = _last_below(self.truth, self.lower, value)
        best = -_last_below(-self.truth[::-1], -self.upper[::-1], -value)
        found = np.sort([_unscaled(worst, self.offset), _unscaled(best, self.offset)], axis=0)
        return found[0], found[1]


def belt_of(known: OutOfFold, confidence: float) -> ConfidenceBelt | None:
    """The belt of out-of-fold predictions; None where there are too few patients for this confidence."""
    # in the order in which they are shifted to every candidate, so that each need hardly be sorted again
    offset = max(1e-3, float(np.median(1 - known.predicted))) if len(known) else 1.0
    known = known.where(np.argsort(_scaled(known.predicted, offset) - _scaled(known.true, offset), kind="stable"))
    _, patient = np.unique(known.patient.astype(str), return_inverse=True)
    n = int(patient.max()) + 1 if len(known) else 0
    # the new patient counts as one of whom nothing is known
    share = confidence * (n + 1) / n if n else 2.0
    if share > 1 + 1e-12:
        return None
    truth, predicted = _scaled(known.true, offset), _scaled(known.predicted, offset)
    candidates = np.linspace(np.log(offset), np.log(1 + offset), _CANDIDATES)
    distance = np.abs(truth - candidates[:, None])
    weight = np.stack([_local_weights(d, patient) for d in distance])
    shifted = predicted - truth + candidates[:, None]
    middle = _quantiles(shifted, weight, 0.5)
    usual = np.repeat(middle[:, None], len(known), axis=1)
    group = _groups(known.fold)
    for one in np.unique(group) if group.any() else ():
        others = group != one
        usual[:, ~others] = _quantiles(shifted[:, others], weight[:, others], 0.5)[:, None]
    off = np.clip(shifted, middle.min(), middle.max()) - np.clip(usual, middle.min(), middle.max())
    reach, tail = _quantiles(np.abs(off), weight, share), (1 + share) / 2
    better, worse = _quantiles(-off, weight, tail), _quantiles(off, weight, tail)
    centre = middle + (worse - better) / 2
    beyond = WIDENING * distance.min(axis=1)
    return ConfidenceBelt(
        offset,
        candidates,
        middle - np.maximum(reach, better) - beyond,
        middle + np.maximum(reach, worse) + beyond,
        (float(centre.min()), float(centre.max())),
    )


def belt_of_folds(known: OutOfFold, folds: Sequence[int], confidence: float) -> ConfidenceBelt | None:
    """The belt of the predictions of these folds, those whose networks judge a new mask; None as of `belt_of`."""
    return belt_of(known.where(np.isin(known.fold, folds)), confidence)


def interval_of(belt: ConfidenceBelt, predicted: Sequence[float]) -> tuple[float, float]:
    """Interval (low, high) within [0, 1] for the truth of a new mask.

    It holds what at least half of the networks' own intervals hold, and what lies between.

    Args:
        belt: of the networks' folds.
        predicted: what each network predicts for the mask.
    """
    low, high = belt.intervals(np.array(predicted, np.float64))
    half = (len(low) + 1) // 2
    return float(np.sort(low)[half - 1]), float(np.sort(high)[-half])


def held_out_intervals(known: OutOfFold, confidence: float = 0.9) -> dict[str, FloatArray]:
    """Measured without looking: each fold's masks get intervals from the masks of the other folds.

    Of more than `MOST_GROUPS` folds, several together get theirs from those of all the others.

    Returns:
        `low`, `high` of every row (nan where none could be given) and `hit`, whether the truth lies within (1, 0, nan).
    """
    low, high = np.full(len(known), np.nan), np.full(len(known), np.nan)
    group = _groups(known.fold)
    for one in np.unique(group):
        judged = group == one
        belt = belt_of(known.where(~judged), confidence)
        if belt:
            low[judged], high[judged] = belt.intervals(known.predicted[judged])
    inside = (known.true >= low - 1e-9) & (known.true <= high + 1e-9)
    return {"low": low, "high": high, "hit": np.where(np.isnan(low), np.nan, inside)}


def _groups(fold: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers from 0 on for folds that are left out together."""
    return np.unique(fold, return_inverse=True)[1].reshape(-1) % MOST_GROUPS


def _scaled(x: FloatArray, offset: float) -> FloatArray:
    return np.log(offset + 1 - np.clip(x, 0, 1))


def _unscaled(value: FloatArray, offset: float) -> FloatArray:
    return np.clip(1 + offset - np.exp(value), 0, 1)


def _local_weights(distance: FloatArray, patient: npt.NDArray[np.int64]) -> FloatArray:
    """Weights (n,) that fall with the distance; those of each patient sum to 1, however far the patient's masks are."""
    nearest = np.full(int(patient.max()) + 1, np.inf)
    np.minimum.at(nearest, patient, distance)
    weight = np.exp((nearest[patient] - distance) / NEIGHBOURHOOD)
    return weight / np.bincount(patient, weights=weight)[patient]


def _quantiles(values: FloatArray, weight: FloatArray, share: float) -> FloatArray:
    """The smallest value of each row up to which lies at least this share of the row's weight: (m, n) twice -> (m,)."""
    order = np.argsort(values, axis=1, kind="stable")
    cumulative = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)
    place = (cumulative < share * cumulative[:, -1:] - 1e-9).sum(axis=1)
    last = np.minimum(place, values.shape[1] - 1)[:, None]
    return np.take_along_axis(values, np.take_along_axis(order, last, axis=1), axis=1)[:, 0]


def _last_below(truth: FloatArray, edge: FloatArray, value: FloatArray) -> FloatArray:
    """The highest candidate whose edge is not above a value."""
    # the lowest edge of this and all higher candidates never falls, so that it can be searched
    rising = np.minimum.accumulate(edge[::-1])[::-1]
    return truth[np.maximum(np.searchsorted(rising, value + 1e-12, side="right") - 1, 0)]
