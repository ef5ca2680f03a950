"""Accept, review or reject: the run's rule on the mask's score, and the doubts that forbid to accept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from whqa.assessment.ensemble import LOST
from whqa.assessment.input_findings import InputFindings
from whqa.assessment.model import TrainedRun
from whqa.contract.quality_json import JudgedStructure, Place, Regions, Risk, Verdict
from whqa.metrics.arrays import FloatArray
from whqa.metrics.error_places import CERTAINTY_COLUMN, MORE_PROBABLY_WRONG, SMALLEST_ML
from whqa.results.mean_dice import expected_mean_dice
from whqa.results.triage import (
    Decision,
    TriageRule,
    choose_doubt,
    choose_rule,
    measured_risk,
    surest_place_words,
)

FAR_OUTSIDE = 0.1
_OF_IMAGE = ", and an image in doubt turns reject into review too"


def verdict_of(
    run: TrainedRun,
    qi: Regions,
    structures: Mapping[str, JudgedStructure],
    places: Sequence[Place],
    *,
    certainty: float,
    doubt_above: float,
    lost: bool,
    unfamiliar: bool,
    outside: float,
    findings: InputFindings,
) -> Verdict:
    """Decision, reasons in plain words, the rule and its measured risk.

    Args:
        run: whose unseen masks the rule is chosen on.
        qi, structures, places: of quality.json.
        certainty: of the surest place, for the middle one of the networks.
        doubt_above: a higher one forbids to accept, see `doubtful_above`.
        lost: whether the mask has no voxel on the run's grid.
        unfamiliar: whether scan or mask are unlike the run's own.
        outside: share of the mask outside the box that the run judges.
        findings: an image in doubt is named first, and its mask neither accepted nor rejected.
    """
    column, words = _score_column(run)
    rows = run.cases[run.cases[column].notna() & run.cases["mean_dice"].notna()]
    scores, dice = rows[column].to_numpy(float), rows["mean_dice"].to_numpy(float)
    rule = choose_rule(scores, dice, rows["patient"].to_numpy(object))
    score = _score(run, qi, structures)
    decision, reason = _decision(score, words, rule, lost)
    place = _told_place(structures, places) if certainty > doubt_above else []
    doubts = [*findings.mask, *_doubts(structures, rule, unfamiliar, outside), *place]
    # what decides stands first
    reasons = [*doubts, reason] if decision == "accept" else [reason, *doubts]
    if (doubts and decision == "accept") or (findings.image and not lost):
        decision = "review"
    return {
        "decision": decision,
        "reasons": [*findings.image, *reasons],
        "score": score,
        "rule": _rule_text(rule, words, doubt_above) + (_OF_IMAGE if findings.image else ""),
        "accept_from": rule.accept,
        "reject_below": rule.reject,
        "certainty": certainty,
        "doubt_above": doubt_above,
        "risk": _risk(rows, scores, dice, rule),
    }


def _risk(rows: pd.DataFrame, scores: FloatArray, dice: FloatArray, rule: TriageRule) -> Risk:
    found = measured_risk(scores, dice, rows["patient"].to_numpy(object), rows["fold"].to_numpy(np.int64), rule)
    return {
        "bad_if": f"mean Dice over structures below {rule.bad_dice:g}",
        "accept": found["accept"],
        "review": found["review"],
        "reject": found["reject"],
    }


def doubtful_above(run: TrainedRun) -> float:
    """The certainty of a place above which it is a doubt, by the run's unseen masks without any error."""
    if CERTAINTY_COLUMN not in run.cases:
        # a run of an older version: every place is a doubt
        return MORE_PROBABLY_WRONG
    right = run.cases[(run.cases["error_voxels"] == 0) & run.cases[CERTAINTY_COLUMN].notna()]
    return choose_doubt(right[CERTAINTY_COLUMN].to_numpy(float), right["patient"].to_numpy(object))


def _score_column(run: TrainedRun) -> tuple[str, str]:
    if run.head == "label":
        return "mean_dice_predicted", "expected mean Dice"
    return "qi_heart", "QI over the heart"


def _score(run: TrainedRun, qi: Regions, structures: Mapping[str, JudgedStructure]) -> float | None:
    return expected_mean_dice(structures) if run.head == "label" else qi["heart"]["value"]


def _decision(score: float | None, words: str, rule: TriageRule, lost: bool) -> tuple[Decision, str]:
    if lost:
        return "reject", f"{LOST[0].upper()}{LOST[1:]}."
    decision = "review" if score is None else rule.decide(score)
    return decision, _score_reason(score, words, rule, decision)


def _score_reason(score: float | None, words: str, rule: TriageRule, decision: str) -> str:
    if score is None:
        return "No structure of the run is in the mask or expected in the image."
    if decision == "accept":
        return f"The {words} of {score:.2f} is at or above {rule.accept:.2f}, from which on masks are accepted."
    if decision == "reject":
        value, limit = _told_apart(score, rule.reject)
        return f"The {words} of {value} is below {limit}, under which masks are rejected."
    if rule.accept is None:
        return f"The {words} is {score:.2f}; the run's unseen masks show no value from which on masks may be accepted."
    value, limit = _told_apart(score, rule.accept)
    return f"The {words} of {value} is below {limit}, from which on masks are accepted."


def _told_apart(score: float, limit: float | None) -> tuple[str, str]:
    """A score and a limit above it with so many digits, two at least, that they differ."""
    assert limit is not None
    for digits in range(2, 18):
        texts = f"{score:.{digits}f}", f"{limit:.{digits}f}"
        if texts[0] != texts[1]:
            break
    return texts


def _doubts(
    structures: Mapping[str, JudgedStructure],
    rule: TriageRule,
    unfamiliar: bool,
    outside: float,
) -> list[str]:
    """What forbids to accept a mask although its score would allow it."""
    doubts = [
        f"The {s['name']} is expected to be poor (Dice {s['dice_expected']:.2f})."
        for s in structures.values()
        if s["dice_expected"] is not None and s["dice_expected"] < rule.bad_dice
    ]
    if unfamiliar:
        doubts.append("The scan or the mask is unlike those that the run was trained on, so its numbers may not hold.")
    if outside > FAR_OUTSIDE:
        doubts.append("A large part of the mask lies outside of what the run judges.")
    return doubts


def _told_place(structures: Mapping[str, JudgedStructure], places: Sequence[Place]) -> list[str]:
    """The surest place; the mean of the networks, which tells places, may have none where most networks have one."""
    if not places:
        return [f"Most networks hold a piece of {SMALLEST_ML:g} ml for wrong, which their mean does not."]
    more = f", and {len(places) - 1} more" if len(places) > 1 else ""
    return [f"A piece of {surest_place_words(places, structures)} looks wrong{more}."]


def _rule_text(rule: TriageRule, words: str, doubt_above: float) -> str:
    accept = "never accept" if rule.accept is None else f"accept from an {words} of {rule.accept:.3f} on"
    reject = "never reject" if rule.reject is None else f"reject below {rule.reject:.3f}"
    return (
        f"{accept}, {reject}, else review; chosen on the run's unseen masks so that at most {100 * rule.risk:.0f} % of "
        f"the accepted have a mean Dice below {rule.bad_dice:g} and at most {100 * rule.risk:.0f} % of the rejected "
        f"have not; a doubt listed above turns accept into review, such as a place of {SMALLEST_ML:g} ml that is more "
        f"suspect than {doubt_above:.2f}, which at most {100 * rule.risk:.0f} % of the run's unseen masks without "
        "any error have"
    )
