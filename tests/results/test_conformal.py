"""Intervals: against a plain reading of the method, and their coverage of perfect, good and bad masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from whqa.results import conformal
from whqa.results.conformal import (
    NEIGHBOURHOOD,
    WIDENING,
    OutOfFold,
    belt_of,
    belt_of_folds,
    held_out_intervals,
    interval_of,
)

FOLDS = 5


def conformal_interval(
    known: OutOfFold, predicted: dict[int, float], confidence: float = 0.9
) -> tuple[float, float] | None:
    belt = belt_of_folds(known, tuple(predicted), confidence)
    return None if belt is None else interval_of(belt, list(predicted.values()))


def _cohort(seed: int, n: int = 40, perfect: int = 1, others: int = 8, folds: int = FOLDS) -> OutOfFold:
    """Masks with no error at all among others of up to 40 % errors; false alarms of a patient hide which is which."""
    rng = np.random.default_rng(seed)
    share = np.concatenate([np.zeros((n, perfect)), np.exp(rng.uniform(-7, -0.9, (n, others)))], axis=1)
    found = share * np.clip(rng.normal(0.85, 0.07, share.shape), 0, 1)
    false = np.exp(rng.normal(-3, 0.3, (n, 1)) + rng.normal(0, 0.1, share.shape)) * (1 - share)
    patient = np.repeat(np.arange(n), share.shape[1])
    return OutOfFold(patient % folds, patient.astype(object), 1 - (found + false).ravel(), 1 - share.ravel())


def _plain_interval(known: OutOfFold, predicted: float, confidence: float) -> tuple[float, float]:
    """Every candidate truth tried by itself, patient by patient."""
    offset = max(1e-3, np.median(1 - known.predicted))
    scale = lambda x: np.log(offset + 1 - x)  # noqa: E731
    people = np.unique(known.patient.astype(str))
    candidates, belt = np.linspace(np.log(offset), np.log(1 + offset), 200), []

    def least(values, weights, needed):
        """The smallest value up to which lies this much weight."""
        return min(v for v in values if weights[values <= v].sum() >= needed - 1e-9)

    for y in candidates:
        values, weights = np.empty(len(known)), np.empty(len(known))
        for person in people:
            rows = known.patient.astype(str) == person
            weight = np.exp(-np.abs(scale(known.true[rows]) - y) / NEIGHBOURHOOD)
            weights[rows] = weight / weight.sum()
            values[rows] = scale(known.predicted[rows]) - scale(known.true[rows]) + y
        others = {f: known.fold != f for f in {*known.fold}}
        middles = {f: least(values[m], weights[m], weights[m].sum() / 2) for f, m in others.items()}
        elsewhere = np.array([middles[f] for f in known.fold])
        belt.append((y, values, weights, least(values, weights, weights.sum() / 2), elsewhere))
    first, last = min(row[3] for row in belt), max(row[3] for row in belt)
    usual = []
    for y, values, weights, middle, elsewhere in belt:
        gaps = np.clip(values, first, last) - np.clip(elsewhere, first, last)
        needed = confidence * (len(people) + 1)
        reach = least(np.abs(gaps), weights, needed)
        better, worse = (least(side * gaps, weights, (needed + len(people)) / 2) for side in (-1, 1))
        beyond = WIDENING * np.abs(scale(known.true) - y).min()
        edges = middle - max(reach, better) - beyond, middle + max(reach, worse) + beyond
        usual.append((y, *edges, middle + (worse - better) / 2))
    value = np.clip(scale(predicted), min(row[3] for row in usual), max(row[3] for row in usual))
    worst_truth = max(y for y, lower, _, _ in usual if value >= lower - 1e-12)
    best_truth = min(y for y, _, upper, _ in usual if value <= upper + 1e-12)
    return 1 + offset - np.exp(worst_truth), 1 + offset - np.exp(best_truth)


@pytest.mark.parametrize("predicted", [0.55, 0.8, 0.93, 0.95])
def test_every_truth_is_kept_of_which_the_prediction_is_usual(predicted: float) -> None:
    known = _cohort(0, n=14, others=3)
    found = conformal_interval(known, dict.fromkeys(range(FOLDS), predicted), 0.8)
    assert found == pytest.approx(_plain_interval(known, predicted, 0.8), abs=1e-9)


def test_masks_of_one_truth_and_one_a_patient_make_a_plain_conformal_interval() -> None:
    rng = np.random.default_rng(2)
    n = 50
    known = OutOfFold(np.zeros(n, int), np.arange(n).astype(object), 0.9 + 0.01 * rng.standard_normal(n), np.ones(n))
    belt = belt_of(known, 0.9)
    assert belt is not None
    offset = np.median(1 - known.predicted)
    scaled = np.sort(np.log(offset + 1 - known.predicted))
    middle = scaled[n // 2 - 1]
    # better than the middle one counts as that one
    off = np.sort(np.maximum(scaled - middle, 0))
    reach, tail = (off[int(np.ceil(share)) - 1] for share in (0.9 * (n + 1), (n + 0.9 * (n + 1)) / 2))
    assert tail > reach > 0
    assert belt.truth[0] == pytest.approx(np.log(offset))
    assert (belt.lower[0], belt.upper[0]) == pytest.approx((middle - reach, middle + tail))
    assert belt.ends[0] == pytest.approx(middle + tail / 2)


@pytest.mark.parametrize("confidence", [0.9, 0.8])
def test_perfect_good_and_bad_masks_are_covered_alike_whatever_their_mixture(confidence: float) -> None:
    hits: dict[str, list[bool]] = {"perfect": [], "good": [], "bad": []}
    widths: dict[str, list[float]] = {"perfect": [], "good": [], "bad": []}
    for seed in range(12):
        # one mask in nine is perfect where the intervals come from, all of some new patients are
        belt = belt_of(_cohort(seed), confidence)
        assert belt is not None
        new = _cohort(1000 + seed, n=30, perfect=6)
        low, high = belt.intervals(new.predicted)
        hit = (low - 1e-9 <= new.true) & (new.true <= high + 1e-9)
        for kind, rows in (
            ("perfect", new.true == 1),
            ("good", (new.true < 1) & (new.true > 0.95)),
            ("bad", new.true < 0.85),
        ):
            hits[kind] += list(hit[rows])
            widths[kind] += list((high - low)[rows])
    # a perfect mask can be missed on one side only
    assert confidence < np.mean(hits["perfect"]) < (1 + confidence) / 2 + 0.02
    assert all(np.mean(found) > confidence - 0.03 for found in hits.values())
    assert np.mean(widths["perfect"]) < 0.07
    assert np.mean(widths["bad"]) < 0.2


@pytest.mark.parametrize("side", [-1, 1])
def test_where_judges_err_to_one_side_the_truth_is_missed_there_no_more_than_elsewhere(side: int) -> None:
    """A fifth of the masks is taken for far better, or worse, than it is; of the misses half may be of them."""
    missed = []
    for seed in range(12):
        known, new = _skewed(seed, side), _skewed(100 + seed, side)
        belt = belt_of(known, 0.9)
        assert belt is not None
        low, high = belt.intervals(new.predicted)
        missed.append([(new.true < low).mean(), (new.true > high).mean()])
    assert np.mean(missed, axis=0).max() < 0.065


def _skewed(seed: int, side: int, n: int = 200) -> OutOfFold:
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.6, 0.9, n)
    off = np.where(rng.random(n) < 0.2, rng.exponential(0.03, n), 0.005 * rng.standard_normal(n))
    return OutOfFold(np.arange(n) % FOLDS, np.arange(n).astype(object), true + side * off, true)


def test_too_few_patients_give_no_interval() -> None:
    assert conformal_interval(_cohort(0, 8, folds=1), {0: 0.9}) is None
    assert conformal_interval(_cohort(0, 9, folds=1), {0: 0.9}) is not None
    assert conformal_interval(_cohort(0, 9, folds=1), {3: 0.9}) is None
    assert conformal_interval(_cohort(0, 8, others=40, folds=1), {0: 0.9}) is None, "masks of a patient are no patients"
    assert np.isnan(held_out_intervals(_cohort(0, 8))["hit"]).all()


def test_intervals_lie_within_zero_and_one_and_widen_with_confidence() -> None:
    known = _cohort(1, 60)
    for level in (0.0, 0.4, 0.9, 1.0):
        predicted = dict.fromkeys(range(FOLDS), level)
        narrow, wide = conformal_interval(known, predicted, 0.8), conformal_interval(known, predicted, 0.95)
        assert narrow is not None
        assert wide is not None
        assert 0 <= wide[0] <= narrow[0] <= narrow[1] <= wide[1] <= 1


def test_what_is_predicted_better_is_never_said_to_be_worse() -> None:
    belt = belt_of(_cohort(4), 0.9)
    assert belt is not None
    low, high = belt.intervals(np.linspace(0.5, 0.95, 100))
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()


def test_intervals_widen_beyond_all_that_is_known() -> None:
    known = _cohort(5)
    known = known.where(known.true > 0.8)
    belt = belt_of(known, 0.9)
    assert belt is not None
    predicted = np.array([known.predicted.min(), 0.7, 0.6, 0.5, 0.4])
    low, high = belt.intervals(predicted)
    assert (np.diff(high - predicted) > 0.01).all()
    assert (low < predicted).all()
    # without perfect masks nothing rules out that a good one is perfect
    known = known.where(known.true < 0.95)
    belt = belt_of(known, 0.9)
    assert belt is not None
    predicted = np.array([known.predicted.max(), 0.98])
    low, high = belt.intervals(predicted)
    assert high == pytest.approx([1, 1], abs=0.02)
    assert (low < predicted).all()


@pytest.mark.parametrize(
    "predicted", [{0: 0.8, 1: 0.9}, {0: 0.8, 1: 0.99, 3: 0.9}, {0: 0.85, 1: 0.88, 3: 0.9, 4: 0.93}]
)
def test_networks_speak_for_their_own_folds_and_the_majority_counts(predicted: dict[int, float]) -> None:
    known = _cohort(6)
    found = conformal_interval(known, predicted)
    belt = belt_of(known.where(np.isin(known.fold, list(predicted))), 0.9)
    assert belt is not None
    assert found is not None
    low, high = belt.intervals(np.array(list(predicted.values())))
    truths = np.unique([*low, *high])
    votes = [((low <= y) & (y <= high)).sum() for y in truths]
    held = [y for y, n in zip(truths, votes, strict=True) if 2 * n >= len(predicted)]
    assert found == (min(held), max(held))
    spoiled = replace(known, true=np.where(known.fold == 2, 0.0, known.true))
    assert conformal_interval(spoiled, predicted) == found, "rows of folds that do not judge are not used"


def test_a_perfect_mask_is_held_where_most_networks_hold_it() -> None:
    known = _cohort(6)
    found = conformal_interval(known, {0: 0.98, 1: 0.5, 3: 0.98})
    assert found is not None
    assert found[1] == pytest.approx(1, abs=1e-9)


def test_coverage_uses_the_other_folds_alone() -> None:
    known = _cohort(3, 60)
    found = held_out_intervals(known)
    assert 0.87 < np.mean(found["hit"]) < 0.98
    spoiled = replace(known, true=np.where(known.fold == 2, 0.0, known.true))
    again = held_out_intervals(spoiled)
    np.testing.assert_array_equal(again["low"][known.fold == 2], found["low"][known.fold == 2])
    assert (again["low"][known.fold != 2] <= found["low"][known.fold != 2]).all()


def test_rows_without_a_value_are_left_out() -> None:
    table = pd.DataFrame({"fold": [0, 0, 1], "patient": ["a", "b", "c"], "p": [0.5, None, 0.7], "t": [0.5, 0.6, None]})
    found = OutOfFold.of(table, "p", "t")
    assert len(found) == 1
    assert found.patient.tolist() == ["a"]


def test_of_many_folds_several_are_left_out_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """With each of 200 folds alone a summary would take hours; up to `MOST_GROUPS` every fold is on its own."""
    rng = np.random.default_rng(0)
    fold = np.repeat(np.arange(60), 4)
    true = rng.uniform(0.5, 1, len(fold))
    known = OutOfFold(fold, fold.astype(str).astype(object), true + 0.02 * rng.standard_normal(len(fold)), true)
    belts: list[OutOfFold] = []
    belt = conformal.belt_of
    monkeypatch.setattr(conformal, "belt_of", lambda rows, confidence: (belts.append(rows), belt(rows, confidence))[1])
    found = conformal.held_out_intervals(known)
    assert len(belts) == conformal.MOST_GROUPS
    # no mask is judged by masks of its own fold
    for k, rows in enumerate(belts):
        assert set(rows.fold) == {one for one in range(60) if one % conformal.MOST_GROUPS != k}
    assert 0.85 < found["hit"].mean() < 0.98
