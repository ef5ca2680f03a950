"""What follows from a judgement and from the run's own unseen cases: intervals, correction or not, and a decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from whqa.assessment.ensemble import Judgement
from whqa.assessment.model import TrainedRun
from whqa.quality import one_minus_mean
from whqa.results.breakdown import measured_correction
from whqa.results.conformal import OutOfFold, interval
from whqa.results.mean_dice import expected_mean_dice
from whqa.results.triage import Rule, choose_rule, measured_risk

REGIONS = ("volume", "heart")
POPULATION = (
    *("case", "mask_kind", "acc_volume", "qi_volume", "acc_heart", "qi_heart"),
    *("mean_dice", "mean_dice_predicted"),
)
FEW = "too few unseen cases in the run for an interval of this confidence"
NO_LABELS = "the run's network has no label head (errormap.head=label)"
LOST = "the mask has no voxel on the grid of the run"
FAR_OUTSIDE = 0.1


def intervals_of(run: TrainedRun, judgement: Judgement, confidence: float) -> dict[str, Any]:
    """The parts `qi` and `structures` of quality.json, the latter without volumes."""
    qi = {region: _qi(run, judgement, region, confidence) for region in REGIONS}
    structures = {key: _structure(run, judgement, index, key, confidence) for index, key in enumerate(run.scheme.keys)}
    return {"qi": qi, "structures": structures}


def correction_record(run: TrainedRun) -> dict[str, Any]:
    """Whether masks are corrected: only where that raised the mean Dice of the run's unseen final masks.

    Returns:
        {"applied", "reason", "threshold", "out_of_fold"} of quality.json.
    """
    if run.head != "label":
        return {"applied": False, "reason": f"left alone: {NO_LABELS}", "threshold": None, "out_of_fold": None}
    chosen = [n.module.calibration.correction for n in run.networks]
    thresholds = [t for t in chosen if t is not None]
    measured = measured_correction(run.cases, run.scheme.keys)
    threshold = float(np.mean(thresholds)) if 2 * len(thresholds) > len(chosen) else None
    record = {"threshold": threshold, "out_of_fold": measured}
    if threshold is None:
        return {"applied": False, "reason": "left alone: on held-back training cases no correction helped", **record}
    if measured is None:
        return {"applied": False, "reason": "left alone: no unseen masks to measure the correction on", **record}
    told = (
        f"on {measured['n']} of the run's own {'final masks' if measured['final'] else 'masks'}, of unseen cases, "
        "correction changed the mean Dice from "
        f"{measured['dice_before']:.3f} to {measured['dice_after']:.3f}"
    )
    if measured["gain"] <= 0 or (measured["ci95"] is not None and measured["ci95"][0] <= 0):
        return {"applied": False, "reason": f"left alone: {told}, which is no reliable gain", **record}
    return {"applied": True, "reason": f"applied: {told}", **record}


def verdict_of(run: TrainedRun, quality: Mapping[str, Any], judgement: Judgement) -> dict[str, Any]:
    """The part `verdict` of quality.json: decision, reasons in plain words, the rule and its measured risk."""
    column, words = _score_column(run)
    rows = run.cases[run.cases[column].notna() & run.cases["mean_dice"].notna()]
    scores, dice, patients = rows[column].to_numpy(float), rows["mean_dice"].to_numpy(float), _patients(rows)
    rule = choose_rule(scores, dice, patients)
    score = _score(quality, judgement)
    decision, reason = _decision(score, words, rule, judgement)
    doubts = _doubts(quality, rule)
    if doubts and decision == "accept":
        decision = "review"
    return {
        "decision": decision,
        "reasons": [reason, *doubts],
        "score": score,
        "rule": _rule_text(rule, words),
        "accept_from": rule.accept,
        "reject_below": rule.reject,
        "risk": {
            "bad_if": f"mean Dice over structures below {rule.bad_dice:g}",
            **measured_risk(scores, dice, patients, rows["fold"].to_numpy(np.int64), rule),
        },
    }


def population(run: TrainedRun) -> tuple[dict[str, Any], ...]:
    """`Assessment.population` of a run."""
    rows = run.cases[list(POPULATION)].astype(object)
    records = rows.where(rows.notna(), None).to_dict("records")
    return tuple({str(k): v for k, v in record.items()} for record in records)


def _patients(rows: pd.DataFrame) -> npt.NDArray[np.object_]:
    return rows["patient"].to_numpy(object)


def _qi(run: TrainedRun, judgement: Judgement, region: str, confidence: float) -> dict[str, Any]:
    if region == "heart" and judgement.heart is None:
        return {"value": None, "soft": None, "interval": None, "reason": LOST}
    own = {k: v.qi[region] for k, v in judgement.by_fold.items()}
    where = None if region == "volume" else judgement.heart
    found = interval(OutOfFold.of(run.cases, f"qi_{region}", f"acc_{region}"), own, confidence)
    return {
        "value": one_minus_mean(judgement.error_map, where),
        "soft": one_minus_mean(judgement.probability, where),
        "interval": None if found is None else list(found),
        "reason": FEW if found is None else None,
    }


def _structure(run: TrainedRun, judgement: Judgement, index: int, key: str, confidence: float) -> dict[str, Any]:
    if judgement.expected_dice is None:
        return {"dice_expected": None, "dice_interval": None, "reason": NO_LABELS}
    value = float(judgement.expected_dice[index])
    if np.isnan(value):
        return {
            "dice_expected": None,
            "dice_interval": None,
            "reason": "not in the mask, and no more than a trace of it expected",
        }
    own = {k: v.dice[index] for k, v in judgement.by_fold.items() if not np.isnan(v.dice[index])}
    found = interval(OutOfFold.of(run.cases, f"dice_{key}_predicted", f"dice_{key}"), own, confidence)
    return {
        "dice_expected": value,
        "dice_interval": None if found is None else list(found),
        "reason": FEW if found is None else None,
    }


def _score_column(run: TrainedRun) -> tuple[str, str]:
    if run.head == "label":
        return "mean_dice_predicted", "expected mean Dice"
    return "qi_heart", "QI over the heart"


def _score(quality: Mapping[str, Any], judgement: Judgement) -> float | None:
    if judgement.expected_dice is None:
        value = quality["qi"]["heart"]["value"]
        return None if value is None else float(value)
    return expected_mean_dice(quality["structures"])


def _decision(score: float | None, words: str, rule: Rule, judgement: Judgement) -> tuple[str, str]:
    if judgement.heart is None:
        return "reject", f"{LOST[0].upper()}{LOST[1:]}."
    decision = "review" if score is None else rule.decide(score)
    return decision, _score_reason(score, words, rule, decision)


def _score_reason(score: float | None, words: str, rule: Rule, decision: str) -> str:
    if score is None:
        return "No structure of the run is in the mask or expected in the image."
    if decision == "accept":
        return f"The {words} of {score:.2f} is at or above {rule.accept:.2f}, from which on masks are accepted."
    if decision == "reject":
        return f"The {words} of {score:.2f} is below {rule.reject:.2f}, under which masks are rejected."
    if rule.accept is None:
        return f"The {words} is {score:.2f}; the run's unseen masks show no value from which on masks may be accepted."
    return f"The {words} of {score:.2f} is below {rule.accept:.2f}, from which on masks are accepted."


def _doubts(quality: Mapping[str, Any], rule: Rule) -> list[str]:
    """What forbids to accept a mask although its score would allow it."""
    doubts = [
        f"The {s['name']} is expected to be poor (Dice {s['dice_expected']:.2f})."
        for s in quality["structures"].values()
        if s["dice_expected"] is not None and s["dice_expected"] < rule.bad_dice
    ]
    if quality["out_of_distribution"]:
        doubts.append("The scan or the mask is unlike those that the run was trained on, so its numbers may not hold.")
    if quality["outside"]["mask_share"] > FAR_OUTSIDE:
        doubts.append("A large part of the mask lies outside of what the run judges.")
    return doubts


def _rule_text(rule: Rule, words: str) -> str:
    accept = "never accept" if rule.accept is None else f"accept from an {words} of {rule.accept:.3f} on"
    reject = "never reject" if rule.reject is None else f"reject below {rule.reject:.3f}"
    return (
        f"{accept}, {reject}, else review; chosen on the run's unseen masks so that at most {100 * rule.risk:.0f} % of "
        f"the accepted have a mean Dice below {rule.bad_dice:g} and at most {100 * rule.risk:.0f} % of the rejected "
        "have not; a doubt listed above turns accept into review"
    )
