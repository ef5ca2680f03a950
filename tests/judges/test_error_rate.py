"""The regression of a share: its fit against scipy's minimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from whqa.judges.error_rate import STRENGTH, RateModel, fit_rate


def _sample(n: int = 60, n_features: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(-3, [1.0, 2.0, 0.3, 1.0, 1.0, 1.0][:n_features], (n, n_features))
    y = expit(x @ np.linspace(0.8, -0.2, n_features) + 1 + rng.normal(0, 0.5, n))
    return x, y, rng.uniform(0.2, 3.0, n)


def _ridge_quasi_binomial(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Fitted rates of scipy's minimiser: weights of mean 1, penalty on slopes of standardised features."""
    w = w / w.mean()
    z = np.c_[np.ones(len(x)), (x - x.mean(axis=0)) / x.std(axis=0)]

    def loss(b: np.ndarray) -> tuple[float, np.ndarray]:
        eta = z @ b
        value = (w * (y * np.logaddexp(0, -eta) + (1 - y) * np.logaddexp(0, eta))).sum() + b[1:] @ b[1:] / (
            2 * STRENGTH
        )
        return value, z.T @ (w * (expit(eta) - y)) + np.r_[0, b[1:]] / STRENGTH

    found = minimize(loss, np.zeros(z.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9})
    return expit(z @ found.x)


@pytest.mark.parametrize("n_features", [1, 3, 6])
def test_the_fit_is_the_ridge_quasi_binomial_regression(n_features: int) -> None:
    x, y, w = _sample(n_features=n_features)
    model = fit_rate(list(x), y.tolist(), w.tolist())
    assert model is not None
    np.testing.assert_allclose(model.rate(x), _ridge_quasi_binomial(x, y, w), atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_the_mean_rate_is_met(seed: int) -> None:
    x, y, w = _sample(seed=seed)
    model = fit_rate(list(x), y.tolist(), w.tolist())
    assert model is not None
    assert np.average(model.rate(x), weights=w) == pytest.approx(np.average(y, weights=w), abs=1e-4)


def test_weights_count_masks_as_often_as_they_say() -> None:
    x, y, _ = _sample(n=20)
    weighted = fit_rate(list(x), y.tolist(), [3.0] * 5 + [1.0] * 15)
    assert weighted is not None
    np.testing.assert_allclose(weighted.rate(x), _ridge_quasi_binomial(x, y, np.r_[[3.0] * 5, [1.0] * 15]), atol=1e-3)
    scaled = fit_rate(list(x), y.tolist(), [300.0] * 5 + [100.0] * 15)
    assert scaled is not None
    np.testing.assert_allclose(scaled.rate(x), weighted.rate(x), atol=1e-6)


def test_a_feature_that_never_varies_does_not_count() -> None:
    x, y, w = _sample()
    x[:, 1] = -7.0
    model = fit_rate(list(x), y.tolist(), w.tolist())
    assert model is not None
    assert model.coefficients[1] == 0
    without = fit_rate(list(x[:, [0, 2]]), y.tolist(), w.tolist())
    assert without is not None
    np.testing.assert_allclose(model.rate(x), without.rate(x[:, [0, 2]]), atol=1e-5)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_masks_that_are_all_right_or_all_wrong_have_no_regression(rate: float) -> None:
    x, y, w = _sample()
    assert fit_rate(list(x), [rate] * len(y), w.tolist()) is None


def test_no_masks_have_no_regression() -> None:
    assert fit_rate([], [], []) is None


def test_one_mask_gives_its_own_rate() -> None:
    model = fit_rate([np.array([-1.0, -2.0])], [0.3], [2.0])
    assert model is not None
    assert model.coefficients == (0.0, 0.0)
    assert model.rate(np.array([[5.0, 9.0]]))[0] == pytest.approx(0.3, abs=1e-3)


def test_extreme_masks_overflow_nothing() -> None:
    found = RateModel(0.0, (1.0,)).rate(np.array([[-2000.0], [0.0], [2000.0]]))
    np.testing.assert_array_equal(found, [0.0, 0.5, 1.0])
