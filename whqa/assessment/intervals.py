"""What the networks say about each region and structure, with intervals for the truth from the run's unseen masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from whqa.assessment.ensemble import LOST, NO_LABELS, Judgement
from whqa.assessment.model import TrainedRun
from whqa.assessment.one_heart import NO_CHAMBERS
from whqa.contract.quality_json import QualityIndicator, Regions
from whqa.quality import one_minus_mean
from whqa.results.conformal import interval_of

FEW = "too few unseen cases in the run for an interval of this confidence"


class ExpectedDice(NamedTuple):
    """The Dice that a structure is expected to have, an interval for the truth, and why one of them is None."""

    value: float | None
    interval: list[float] | None
    reason: str | None


def quality_indicators(run: TrainedRun, judgement: Judgement, confidence: float, keys: Sequence[str]) -> Regions:
    """QI of both regions, of a mask with these structures."""
    found: Regions = {
        "volume": _quality_indicator(run, judgement, "volume", confidence),
        "heart": _quality_indicator(run, judgement, "heart", confidence),
    }
    if tuple(keys) != run.scheme.keys:
        return {"volume": _without_interval(found["volume"]), "heart": _without_interval(found["heart"])}
    return found


def _without_interval(found: QualityIndicator) -> QualityIndicator:
    reason = found["reason"] if found["value"] is None else NO_CHAMBERS
    return {**found, "interval": None, "reason": reason}


def expected_dice_by_structure(
    run: TrainedRun, judgement: Judgement, confidence: float, keys: Sequence[str]
) -> dict[str, ExpectedDice]:
    """Structure of the mask -> expected Dice, in the order of its labels."""
    chambers = tuple(keys) == run.scheme.keys
    return {key: _expected(run, judgement, index, key, confidence, chambers) for index, key in enumerate(keys)}


def _quality_indicator(run: TrainedRun, judgement: Judgement, region: str, confidence: float) -> QualityIndicator:
    if region == "heart" and judgement.lost:
        return {"value": None, "soft": None, "interval": None, "reason": LOST}
    by_fold = {k: v.qi[region] for k, v in judgement.by_fold.items()}
    where = None if region == "volume" else judgement.heart
    found = _interval(run, f"qi_{region}", f"acc_{region}", by_fold, confidence)
    value = judgement.quality(where)
    return {
        "value": value,
        "soft": one_minus_mean(judgement.probability, where),
        # a vote of the folds may leave out what the mean of their maps says
        "interval": None if found is None else [min(found[0], value), max(found[1], value)],
        "reason": FEW if found is None else None,
    }


def _expected(
    run: TrainedRun, judgement: Judgement, index: int, key: str, confidence: float, chambers: bool
) -> ExpectedDice:
    if judgement.expected_dice is None:
        return ExpectedDice(None, None, NO_LABELS)
    value = float(judgement.expected_dice[index])
    if np.isnan(value):
        return ExpectedDice(None, None, "not in the mask, and no more than a trace of it expected")
    if not chambers:
        return ExpectedDice(value, None, NO_CHAMBERS)
    by_fold = {k: v.dice[index] for k, v in judgement.by_fold.items() if not np.isnan(v.dice[index])}
    found = _interval(run, f"dice_{key}_predicted", f"dice_{key}", by_fold, confidence)
    return ExpectedDice(value, None if found is None else list(found), FEW if found is None else None)


def _interval(
    run: TrainedRun, predicted: str, true: str, by_fold: Mapping[int, float], confidence: float
) -> tuple[float, float] | None:
    belt = run.belt(predicted, true, tuple(by_fold), confidence)
    return None if belt is None else interval_of(belt, list(by_fold.values()))
