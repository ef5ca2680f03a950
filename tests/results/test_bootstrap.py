"""Weighted statistics against the plain metrics of literally repeated rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from whqa.metrics import correlation, failure
from whqa.results import bootstrap


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    n = 40
    patients = [f"p{i // 3}" for i in range(n)]
    x = np.round(rng.random(n), 1)  # rounding makes ties
    y = np.round(x + 0.3 * rng.random(n), 2)
    return patients, x, y, bootstrap.patient_weights(patients, 50, seed=4)


PAIRS = [
    (bootstrap.resampled_pearson, correlation.pearson),
    (bootstrap.resampled_spearman, correlation.spearman),
    (bootstrap.resampled_aurc, failure.aurc),
    (bootstrap.resampled_e_aurc, failure.e_aurc),
]


@pytest.mark.parametrize(("weighted", "plain"), PAIRS, ids=lambda f: f"{f.__module__}.{f.__name__}")
def test_weights_are_repetitions(rows, weighted, plain):
    _, x, y, weights = rows
    repeated = [plain(np.repeat(x, w.astype(int)), np.repeat(y, w.astype(int))) for w in weights]
    np.testing.assert_allclose(weighted(x, y, weights), repeated, atol=1e-12)


def test_auroc_of_weights_is_that_of_repetitions(rows):
    _, x, y, weights = rows
    positive = y > 0.9
    repeated = [failure.auroc(np.repeat(x, w.astype(int)), np.repeat(positive, w.astype(int))) for w in weights]
    np.testing.assert_allclose(bootstrap.resampled_auroc(x, positive, weights), repeated, atol=1e-12)


def test_patients_are_drawn_whole_and_as_often_as_there_are_patients(rows):
    patients, _, _, weights = rows
    for name in set(patients):
        own = weights[:, [p == name for p in patients]]
        assert (own == own[:, :1]).all()
    first = [patients.index(name) for name in sorted(set(patients))]
    assert (weights[:, first].sum(axis=1) == len(first)).all()


def test_order_of_rows_changes_nothing(rows):
    patients, x, _, _ = rows
    order = np.random.default_rng(1).permutation(len(x))
    shuffled = bootstrap.ci95(bootstrap.resampled_mean, x[order], patients=[patients[i] for i in order])
    assert bootstrap.ci95(bootstrap.resampled_mean, x, patients=patients) == pytest.approx(shuffled)


def test_interval_of_a_mean_is_that_of_the_normal_approximation():
    x = np.random.default_rng(2).normal(3, 1, 400)
    found = bootstrap.ci95(bootstrap.resampled_mean, x, patients=[str(i) for i in range(400)])
    assert found is not None
    half = 1.96 * x.std() / 20
    assert found == pytest.approx((x.mean() - half, x.mean() + half), abs=0.15 * half)


def test_undefined_resamples_give_nan_and_too_many_no_interval():
    weights = np.array([[2.0, 0.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    x = np.array([1.0, 2.0, 1.0])
    assert np.isnan(bootstrap.resampled_pearson(x, np.array([1.0, 2.0, 3.0]), weights)).all()
    assert np.isnan(bootstrap.resampled_auroc(x, np.array([True, False, True]), weights)).all()
    np.testing.assert_array_equal(bootstrap.resampled_mean(x, weights), [1, 1, np.nan])
    assert bootstrap.percentile_interval(np.array([1.0, np.nan, 2.0]), 9) is None
    assert bootstrap.ci95(bootstrap.resampled_mean, x, patients=["a", "a", "a"]) is None


def test_pooled_dice_of_nothing_is_one():
    none, weights = np.zeros(2), np.ones((1, 2))
    assert bootstrap.resampled_pooled_dice(none, none, none, weights) == 1
    hits, predicted, true = np.array([1.0, 3.0]), np.array([2.0, 6.0]), np.array([4.0, 3.0])
    assert bootstrap.resampled_pooled_dice(hits, predicted, true, weights) == pytest.approx(8 / 15)


def test_mean_from_one_sum_a_patient_has_the_same_interval():
    rng = np.random.default_rng(4)
    x, patients = rng.normal(size=50), [f"p{i}" for i in rng.integers(0, 13, 50)]
    expected = bootstrap.ci95(bootstrap.resampled_mean, x, patients=patients)
    assert bootstrap.mean_ci95(x, patients) == pytest.approx(expected, rel=1e-12)
    assert bootstrap.mean_ci95(x, ["p"] * 50) is None


@pytest.mark.parametrize(("n", "least"), [(6, 0.92), (8, 0.92), (20, 0.93)])
def test_intervals_of_few_patients_hold_as_they_say(n, least):
    rng = np.random.default_rng(n)
    names = [f"p{i}" for i in range(n)]
    held = [low < 0 < high for low, high in (bootstrap.mean_ci95(rng.normal(size=n), names) for _ in range(600))]
    assert least < np.mean(held) < 0.98


def test_percentiles_are_those_of_students_t():
    values = np.random.default_rng(0).normal(size=1000)
    for n in (6, 30, 5000):
        outside = stats.norm.cdf(-np.sqrt(n / (n - 1)) * stats.t.ppf(0.975, n - 1))
        expected = np.quantile(values, [outside, 1 - outside])
        np.testing.assert_allclose(bootstrap.percentile_interval(values, n), expected, rtol=1e-12)
    np.testing.assert_allclose(expected, np.percentile(values, [2.5, 97.5]), atol=2e-3)
    assert bootstrap.percentile_interval(values, 5) is None
    assert bootstrap.mean_ci95(np.ones(5), list("abcde")) is None


def test_a_share_has_the_interval_of_clopper_and_pearson_by_patient():
    hit = np.array([1.0, 1, 0, 1, 1, 1, 1, 1])
    found = bootstrap.share_ci95(hit, [f"p{i}" for i in range(8)])
    expected = stats.binomtest(7, 8).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose(found, (expected.low, expected.high))
    assert bootstrap.share_ci95(np.ones(6), list("abcabc"))[0] == pytest.approx(stats.beta.ppf(0.025, 3, 1))
    assert bootstrap.share_ci95(np.zeros(3), list("abc")) == pytest.approx((0, stats.beta.ppf(0.975, 1, 3)))
