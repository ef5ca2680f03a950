"""Accept, review or reject a mask, with thresholds chosen for a stated risk on masks of unseen cases.

A mask is bad when its mean Dice over structures is below `BAD_DICE`. The score is what the network predicts in place of
that Dice, or QI over the heart where it has no label head. A mask is accepted above the lowest score from which on at
most `RISK` of the run's out-of-fold masks are bad, and rejected below the highest score up to which at most `RISK` of
them are good; in between a person should look. The shares are taken as (count + 1) / (n + 1) over patients, as in
conformal risk control (Angelopoulos et al. 2024, arXiv 2208.02814), so that eight patients or fewer prove nothing. As
the threshold is the best of many, this is no guarantee: what became of each fold's masks is measured with the rule of
the others.

A fault may be too small to tell in a mean. So a place where the mask is probably wrong forbids to accept too, if it is
more certain than the surest one in most masks without any error (a conformal p-value below `RISK`): a judge is
never sure of every border, and most right masks have some place of P >= 0.5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from whqa.metrics.arrays import FloatArray
from whqa.metrics.error_places import MORE_PROBABLY_WRONG
from whqa.quality import LOWEST_DICE
from whqa.results.bootstrap import share_ci95

Decision = Literal["accept", "review", "reject"]
DECISIONS: tuple[Decision, ...] = ("accept", "review", "reject")
BAD_DICE = LOWEST_DICE["fair"]
RISK = 0.1
"""Of both thresholds; also the share of masks without any error that a place may forbid to accept."""


@dataclass(frozen=True)
class TriageRule:
    """Accept from score `accept` on, reject below `reject`; None: that never happens.

    Attributes:
        accept, reject: scores.
        risk: share of bad masks among the accepted, and of good ones among the rejected, that the choice allows.
        bad_dice: a mask with a lower mean Dice is bad.
    """

    accept: float | None
    reject: float | None
    risk: float = RISK
    bad_dice: float = BAD_DICE

    def decide(self, score: float) -> Decision:
        """What to do with a mask of this score; one without a score is for a person."""
        if self.accept is not None and score >= self.accept:
            return "accept"
        return "reject" if self.reject is not None and score < self.reject else "review"


def choose_rule(
    score: FloatArray,
    dice: FloatArray,
    patient: npt.NDArray[np.object_],
    risk: float = RISK,
    bad_dice: float = BAD_DICE,
) -> TriageRule:
    """Thresholds from out-of-fold masks: score, true mean Dice and patient of each."""
    order = np.argsort(-score, kind="stable")
    bad = (dice < bad_dice).astype(float)[order]
    people = patient[order]
    accept = _last_within(score[order], bad, people, risk)
    reject = _last_within(-score[order][::-1], 1 - bad[::-1], people[::-1], risk)
    # just above the last score that belongs to the rejected
    below = None if reject is None else float(np.nextafter(-reject, np.inf))
    if accept is not None and below is not None and below > accept:
        # scores at which either would do are for a person
        accept, below = below, accept
    return TriageRule(accept, below, risk, bad_dice)


def choose_doubt(certainty: FloatArray, patient: npt.NDArray[np.object_], share: float = RISK) -> float:
    """Above which certainty a place forbids to accept, from out-of-fold masks without any error.

    Args:
        certainty: `whqa.metrics.error_places.place_certainty` of each.
        patient: of each; the surest place in all of a patient's masks counts.
        share: of patients that may have a surer one, counting one more than seen.

    Returns:
        At least 0.5, and that where there are too few patients: then every place is a doubt.
    """
    surest: dict[object, float] = {}
    for person, value in zip(patient, certainty, strict=True):
        surest[person] = max(surest.get(person, 0.0), float(value))
    rank = int(np.ceil((len(surest) + 1) * (1 - share) - 1e-9))
    return max(MORE_PROBABLY_WRONG, sorted(surest.values())[rank - 1]) if rank <= len(surest) else MORE_PROBABLY_WRONG


def surest_place_words(places: Sequence[Mapping[str, Any]], structures: Mapping[str, Any]) -> str:
    """Size of the most certain place and where it lies, such as "2.5 ml in the right atrium"; of quality.json."""
    place = max(places, key=lambda place: place["certainty"])
    key = place["structure"]
    where = f"in the {structures[key]['name']}" if key else "outside of the mask's structures"
    return f"{place['ml']:.1f} ml {where}"


def measured_risk(
    score: FloatArray, dice: FloatArray, patient: npt.NDArray[np.object_], fold: npt.NDArray[np.int64], rule: TriageRule
) -> dict[str, Any]:
    """What became of out-of-fold masks under rules chosen on the other folds.

    Returns:
        For "accept", "review" and "reject": {"n", "bad", "rate", "ci95"}: masks, bad masks, their share, each patient
        counting once, and its Clopper-Pearson interval for so many patients; null where there are none.
    """
    decided = np.empty(len(score), dtype=object)
    for k in np.unique(fold):
        others = fold != k
        if others.any():
            chosen = choose_rule(score[others], dice[others], patient[others], rule.risk, rule.bad_dice)
            decided[~others] = [chosen.decide(float(s)) for s in score[~others]]
    bad = dice < rule.bad_dice
    return {d: _share(bad[decided == d], patient[decided == d]) for d in DECISIONS}


def _last_within(score: FloatArray, wrong: FloatArray, patient: npt.NDArray[np.object_], risk: float) -> float | None:
    """Scores fall: the lowest down to which at most a share `risk` is wrong, with one wrong patient more than seen.

    A patient counts once, with the share of wrong ones among the patient's masks down to that score.
    """
    masks: dict[object, tuple[int, float]] = {}
    total, lowest = 0.0, None
    for i, (person, is_wrong) in enumerate(zip(patient, wrong, strict=True)):
        n, bad = masks.get(person, (0, 0.0))
        masks[person] = n + 1, bad + is_wrong
        total += (bad + is_wrong) / (n + 1) - (bad / n if n else 0.0)
        # masks of one score stand or fall together
        last_of_score = i + 1 == len(score) or score[i + 1] != score[i]
        if last_of_score and (total + 1) / (len(masks) + 1) <= risk + 1e-12:
            lowest = float(score[i])
    return lowest


def _share(bad: npt.NDArray[np.bool_], patient: npt.NDArray[np.object_]) -> Mapping[str, Any]:
    if not len(bad):
        return {"n": 0, "bad": 0, "rate": None, "ci95": None}
    people = patient.astype(str)
    rate = float(np.mean([bad[people == p].mean() for p in np.unique(people)]))
    return {
        "n": len(bad),
        "bad": int(bad.sum()),
        "rate": rate,
        "ci95": list(share_ci95(bad.astype(float), people.tolist())),
    }
