import math

import numpy as np
import pytest
from scipy import stats

from whqa.metrics.correlation import mae, mae_constant, pearson, spearman, why_undefined


@pytest.mark.parametrize("seed", range(5))
def test_correlations_are_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    acc = 1 - rng.random(20) * 1e-3
    qi = np.round(acc + rng.normal(0, 3e-4, 20), 4)
    assert pearson(qi, acc) == pytest.approx(stats.pearsonr(qi, acc)[0], abs=1e-9)
    assert spearman(qi, acc) == pytest.approx(stats.spearmanr(qi, acc)[0], abs=1e-12)


def test_a_line_correlates_fully() -> None:
    x = np.linspace(0, 1, 7)
    assert pearson(x, 1 - 2 * x) == pytest.approx(-1)
    assert pearson(x, x * 1e-100) == pytest.approx(1)
    assert abs(pearson(x, x)) <= 1
    assert spearman(x, x**9) == pytest.approx(1)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ([1.0, 2.0], [1.0, 2.0], r"only 2 case\(s\)"),
        ([], [], r"only 0 case\(s\)"),
        ([1.0, 2.0, math.nan], [1.0, 2.0, 3.0], r"only 2 case\(s\)"),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], "no variation"),
        ([1.0, 2.0, 3.0], [0.1, 0.1, 0.1], "no variation"),
    ],
)
def test_undefined_correlations_say_why(x: list[float], y: list[float], reason: str) -> None:
    assert math.isnan(pearson(x, y))
    assert math.isnan(spearman(x, y))
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(why_undefined(x, y))


def test_defined_correlations_need_no_reason() -> None:
    assert why_undefined([1, 2, 3], [3, 1, 2]) is None


def test_mean_absolute_errors() -> None:
    acc = np.array([0.9, 0.8, 1.0])
    assert mae([0.8, 0.8, 0.7], acc) == pytest.approx(0.4 / 3)
    assert mae([0.8, math.nan, 0.7], acc) == pytest.approx(0.2)
    assert math.isnan(mae([], []))
    assert mae_constant(acc, 0.85) == pytest.approx((0.05 + 0.05 + 0.15) / 3)
    assert mae_constant(acc, [0.9, 0.9, 0.9]) == pytest.approx(0.2 / 3)
    assert mae_constant(acc) == pytest.approx(np.abs(acc - acc.mean()).mean())
    assert math.isnan(mae_constant([]))


def test_vectors_must_be_alike() -> None:
    with pytest.raises(ValueError, match="one length"):
        pearson([1.0, 2.0, 3.0], [1.0, 2.0])
