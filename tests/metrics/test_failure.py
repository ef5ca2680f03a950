import math
from itertools import permutations

import numpy as np
import pytest

from whqa.metrics.failure import aurc, auroc, e_aurc, risk_coverage


def aurc_over_all_orders(confidence: np.ndarray, risk: np.ndarray) -> float:
    """Mean over every order of falling confidence."""
    orders = [list(order) for order in permutations(range(len(risk)))]
    return float(np.mean([aurc_of_order(risk[o]) for o in orders if (np.diff(confidence[o]) <= 0).all()]))


def aurc_of_order(risk: np.ndarray) -> float:
    """Definition: mean over i of the mean risk of the first i cases."""
    return float(np.mean([risk[: i + 1].mean() for i in range(len(risk))]))


@pytest.mark.parametrize("seed", range(8))
def test_aurc_is_its_expectation_over_tied_orders(seed: int) -> None:
    rng = np.random.default_rng(seed)
    confidence, risk = rng.integers(0, 3, 5).astype(float), rng.random(5)
    expected = aurc_over_all_orders(confidence, risk)
    assert aurc(confidence, risk) == pytest.approx(expected, abs=1e-12)
    best = min(aurc_of_order(np.array(order)) for order in permutations(risk))
    assert e_aurc(confidence, risk) == pytest.approx(expected - best, abs=1e-12)


def test_best_worst_and_blind_confidence() -> None:
    risk = np.array([0.0, 0.1, 0.4, 0.9])
    assert e_aurc(-risk, risk) == 0.0
    assert aurc(risk, risk) > aurc(np.ones(4), risk) > aurc(-risk, risk)
    assert aurc(np.ones(4), risk) == pytest.approx(risk.mean())


def test_risk_coverage_ends_at_the_mean_risk() -> None:
    coverage, selective = risk_coverage([3.0, 1.0, 2.0], [0.3, 0.6, 0.0])
    np.testing.assert_allclose(coverage, [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(selective, [0.3, 0.15, 0.3])


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_share_of_pairs_in_the_right_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive, score = np.arange(15) % 3 == 0, rng.integers(0, 5, 15)
    pairs = np.sign(score[positive][:, None] - score[~positive])
    assert auroc(score, positive) == pytest.approx((pairs + 1).mean() / 2, abs=1e-12)


def test_undefined_cases() -> None:
    assert math.isnan(aurc([], []))
    assert math.isnan(e_aurc([math.nan], [1.0]))
    assert risk_coverage([], [])[0].shape == (0,)
    assert math.isnan(auroc([1.0, 2.0], [True, True]))
    assert aurc([1.0, math.nan, 2.0], [0.5, 9.0, 0.5]) == 0.5


def test_swapped_arguments_of_auroc_are_noticed() -> None:
    with pytest.raises(ValueError, match="only 0 and 1"):
        auroc([True, False], [0.3, 0.7])
