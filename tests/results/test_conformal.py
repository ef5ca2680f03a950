"""Intervals: against a plain reading of the method, and their coverage on simulated cohorts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from whqa.results.conformal import OutOfFold, conformal_interval, held_out_intervals


def _cohort(seed: int, n: int, masks: int = 1, folds: int = 5, noise: float = 0.2) -> OutOfFold:
    """Quality 1 - x with x skewed, predicted with an error that grows with x; masks of one patient are alike."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), masks)
    share = np.repeat(rng.beta(2, 12, n), masks)
    error = np.repeat(rng.normal(0, noise, n), masks) * share
    predicted = np.clip(1 - share, 0, 1)
    final = np.ones(len(patient), bool) if masks == 1 else np.zeros(len(patient), bool)
    return OutOfFold(patient % folds, patient.astype(object), predicted, np.clip(predicted + error, 0, 1), final)


def test_one_mask_a_patient_and_one_fold_is_plain_split_conformal() -> None:
    known = _cohort(0, 50, folds=1)
    new = 0.9
    offset = np.median(1 - known.predicted)
    scores = np.sort(np.abs(known.true - known.predicted) / (offset + 1 - known.predicted))
    reach = scores[int(np.ceil(0.9 * 51)) - 1] * (offset + 1 - new)
    assert conformal_interval(known, {0: new}) == pytest.approx((new - reach, min(1, new + reach)))


def test_each_residual_goes_with_the_prediction_of_its_own_fold() -> None:
    known = OutOfFold(
        np.array([0] * 10 + [1] * 10),
        np.arange(20).astype(object),
        np.full(20, 0.5),
        np.full(20, 0.6),
        np.ones(20, bool),
    )
    found = conformal_interval(known, {0: 0.4, 1: 0.8})
    assert found is not None
    # scale is 0.5 + 1 - prediction, so 0.1 at 0.5 is 0.11 at 0.4 and 0.07 at 0.8
    assert found == pytest.approx((0.4 - 0.11, 0.87))
    only = conformal_interval(known, {1: 0.8})
    assert only == pytest.approx((0.73, 0.87)), "rows of folds that do not judge are not used"


def test_too_few_patients_give_no_interval() -> None:
    assert conformal_interval(_cohort(0, 8, folds=1), {0: 0.9}, 0.9) is None
    assert conformal_interval(_cohort(0, 9, folds=1), {0: 0.9}, 0.9) is not None
    assert conformal_interval(_cohort(0, 8, masks=6, folds=1), {0: 0.9}, 0.9) is None, (
        "masks of a patient are no patients"
    )
    assert conformal_interval(_cohort(0, 9, folds=1), {3: 0.9}) is None


def test_intervals_lie_within_zero_and_one_and_widen_with_confidence() -> None:
    known = _cohort(1, 60)
    predicted = dict.fromkeys(range(5), 0.99)
    narrow, wide = conformal_interval(known, predicted, 0.8), conformal_interval(known, predicted, 0.95)
    assert narrow is not None
    assert wide is not None
    assert 0 <= wide[0] <= narrow[0] <= 0.99 <= narrow[1] <= wide[1] <= 1


@pytest.mark.parametrize(("masks", "confidence"), [(1, 0.9), (6, 0.9), (1, 0.8)])
def test_new_patients_are_covered_as_often_as_stated(masks: int, confidence: float) -> None:
    hits = []
    for seed in range(60):
        known, new = _cohort(seed, 40, masks), _cohort(1000 + seed, 10)
        for predicted, true in zip(new.predicted, new.true, strict=True):
            found = conformal_interval(known, dict.fromkeys(range(5), float(predicted)), confidence)
            assert found is not None
            hits.append(found[0] - 1e-12 <= true <= found[1] + 1e-12)
    assert np.mean(hits) == pytest.approx(confidence, abs=0.04)


def test_coverage_uses_the_other_folds_alone() -> None:
    known = _cohort(3, 40)
    found = held_out_intervals(known)
    assert np.mean(found["hit"]) == pytest.approx(0.9, abs=0.1)
    spoiled = replace(known, true=np.where(known.fold == 2, 0.0, known.true))
    again = held_out_intervals(spoiled)
    np.testing.assert_array_equal(again["low"][known.fold == 2], found["low"][known.fold == 2])
    assert (again["low"][known.fold != 2] <= found["low"][known.fold != 2]).all()


def test_rows_without_a_value_are_left_out() -> None:
    table = pd.DataFrame(
        {
            "fold": [0, 0, 1],
            "patient": ["a", "b", "c"],
            "mask_kind": ["final", "early", "final"],
            "p": [0.5, None, 0.7],
            "t": [0.5, 0.6, None],
        }
    )
    found = OutOfFold.of(table, "p", "t")
    assert len(found) == 1
    assert found.patient.tolist() == ["a"]


def test_a_mask_as_good_as_final_ones_is_compared_with_these() -> None:
    final, other = _cohort(5, 40), _cohort(6, 40, masks=3, noise=0.8)
    both = OutOfFold(*(np.concatenate(pair) for pair in zip(vars(final).values(), vars(other).values(), strict=True)))
    good = dict.fromkeys(range(5), float(np.median(final.predicted)))
    bad = dict.fromkeys(range(5), float(final.predicted.min()) - 0.01)
    assert conformal_interval(both, good) == conformal_interval(final, good)
    assert conformal_interval(both, bad) == conformal_interval(replace(both, final=np.zeros(len(both), bool)), bad)
    assert conformal_interval(both, bad) != conformal_interval(final, bad)
