"""Error rates by boosted trees: read as scikit-learn reads them, and they tell kinds of mask apart."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor

from whqa.judges.boosted_rate import LEAST_DOUBT, SETTINGS, BoostedRate, fit_boosted
from whqa.judges.mask_parts import MASK_PARTS
from whqa.judges.rate_features import OPINION_FEATURES, SMALLEST

N = len(OPINION_FEATURES)
OWN, *EACH = (1 + OPINION_FEATURES.index(name) for name in ("own_doubt", *MASK_PARTS))
SEAM = EACH[MASK_PARTS.index("seam")]


def _sample(n: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks of whose doubt all, nothing or a part is borne out, by the width of their seams, which no line tells."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(0, 1, (n, 1 + N))
    share = np.select([x[:, SEAM] < 0.3, x[:, SEAM] < 0.6], [1.0, 0.0], 0.7)
    return x, _doubts(x) * share[:, None], rng.uniform(0.2, 3.0, n)


def _doubts(x: np.ndarray) -> np.ndarray:
    """As shares of the heart: parts are told by the opinion's own doubt."""
    return x[:, EACH] * (x[:, [OWN]] + SMALLEST)


def _fit(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> BoostedRate:
    found = fit_boosted(list(x), list(y), w.tolist())
    assert found is not None
    return found


def test_the_trees_are_read_as_scikit_learn_reads_them() -> None:
    x, y, w = _sample()
    new, _, _ = _sample(seed=1)
    found = _fit(x, y, w).rates(new)
    assert found.shape == (200, 4)
    for part in range(4):
        doubt = _doubts(x)[:, part] + LEAST_DOUBT
        trust = w * doubt
        model = GradientBoostingRegressor(**SETTINGS)
        model.fit(x[:, 1:], y[:, part] / doubt, sample_weight=trust / trust.mean())
        expected = np.maximum(model.predict(new[:, 1:]), 0) * (_doubts(new)[:, part] + LEAST_DOUBT)
        np.testing.assert_allclose(found[:, part], expected, rtol=1e-9)


def test_right_masks_masks_of_the_opinions_kind_and_faults_are_told_apart() -> None:
    found, (new, truth, _) = _fit(*_sample()), _sample(seed=1)
    off = np.abs(found.rates(new).sum(axis=1) - truth.sum(axis=1))
    assert np.median(off) < 0.02
    assert off.mean() < 0.25 * np.abs(truth.sum(axis=1) - truth.sum(axis=1).mean()).mean()


def test_the_mean_rate_of_training_masks_is_met() -> None:
    x, y, w = _sample()
    np.testing.assert_allclose(
        np.average(_fit(x, y, w).rates(x), axis=0, weights=w), np.average(y, axis=0, weights=w), rtol=0.01
    )


def test_the_network_is_not_asked() -> None:
    found, (x, _, _) = _fit(*_sample()), _sample()
    other = x.copy()
    other[:, 0] = -50.0
    np.testing.assert_array_equal(found.rates(other), found.rates(x))


def test_weights_count_masks_as_often_as_they_say() -> None:
    x, y, _ = _sample(n=40)
    found = _fit(x, y, np.r_[np.full(20, 30.0), np.full(20, 1e-6)])
    first = _fit(x[:20], y[:20], np.ones(20))
    for one, other in zip(found.parts, first.parts, strict=True):
        assert one.start == pytest.approx(other.start, rel=1e-4)


@pytest.mark.parametrize("n", [1, 3])
def test_few_masks_give_the_share_of_doubt_that_was_borne_out(n: int) -> None:
    x, _, w = _sample(n=n)
    found = _fit(x, 0.5 * (_doubts(x) + LEAST_DOUBT), w)
    new, _, _ = _sample(seed=1)
    np.testing.assert_allclose(found.rates(new), 0.5 * (_doubts(new) + LEAST_DOUBT), rtol=1e-6)


def test_masks_without_any_error_and_no_masks_teach_nothing() -> None:
    x, y, w = _sample()
    assert fit_boosted(list(x), list(0 * y), w.tolist()) is None
    assert fit_boosted([], [], []) is None


def test_a_rate_is_never_negative() -> None:
    found = _fit(*_sample())
    wild = np.array([[0.0] * (1 + N), [1e9] * (1 + N), [*([0.0] * 3), *([1.0] * (N - 2))]])
    assert (found.rates(wild) >= 0).all()
    assert np.isfinite(found.rates(wild)).all()


def test_the_trees_survive_json() -> None:
    found, (x, _, _) = _fit(*_sample()), _sample()
    again = BoostedRate.from_dict(json.loads(json.dumps(asdict(found))))
    assert again == found
    np.testing.assert_array_equal(again.rates(x), found.rates(x))
