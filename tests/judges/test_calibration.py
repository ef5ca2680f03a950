"""Calibration against scikit-learn's logistic regression and a search through all thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from whqa.errors import InputError
from whqa.files import write_json
from whqa.judges.calibration import (
    BINS,
    LOGIT_RANGE,
    Calibration,
    LogitHistogram,
    bin_logits,
    fit_calibration,
    read_calibration,
)
from whqa.judges.threshold_rule import ThresholdRule

Case = tuple[torch.Tensor, torch.Tensor]


def _case(seed: int, scale: float = 1.0, bias: float = 0.0, n: int = 12) -> Case:
    """Logits x (n, n, n) and errors drawn with P = sigmoid(scale * x + bias)."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-2, 2, (n, n, n))
    error = rng.random(logit.shape) < 1 / (1 + np.exp(-(scale * logit + bias)))
    return torch.from_numpy(logit).float(), torch.from_numpy(error)


def _fit(cases: list[Case]) -> Calibration:
    return fit_calibration([LogitHistogram.of(*case) for case in cases], rule=ThresholdRule.dice)


def _dice(predicted: np.ndarray, error: np.ndarray) -> float:
    total = predicted.sum() + error.sum()
    return 1.0 if total == 0 else 2 * (predicted & error).sum() / total


def test_a_histogram_counts_every_voxel_once() -> None:
    logit, error = _case(0)
    histogram = LogitHistogram.of(logit, error)
    assert histogram.right.shape == (BINS,)
    assert int(histogram.wrong.sum()) == int(error.sum())
    assert int(histogram.right.sum()) == int((~error).sum())
    mean = float((bin_logits() * (histogram.right + histogram.wrong)).sum() / logit.numel())
    assert mean == pytest.approx(float(logit.mean()), abs=LOGIT_RANGE / BINS)


def test_logits_beyond_the_range_fall_into_the_end_bins() -> None:
    histogram = LogitHistogram.of(torch.tensor([-1e6, 1e6, 99.0]), torch.tensor([False, True, True]))
    assert histogram.right[0] == 1
    assert histogram.wrong[-1] == 2


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.5, -1.0), (2.0, 1.5)])
def test_platt_scaling_equals_logistic_regression(scale: float, bias: float) -> None:
    cases = [_case(seed, scale, bias) for seed in range(3)]
    x = np.concatenate([c[0].numpy().ravel() for c in cases])[:, None]
    y = np.concatenate([c[1].numpy().ravel() for c in cases])
    reference = LogisticRegression(C=np.inf, tol=1e-8).fit(x, y)
    found = _fit(cases)
    assert found.scale == pytest.approx(reference.coef_[0, 0], rel=0.01)
    assert found.bias == pytest.approx(reference.intercept_[0], abs=0.02)


def test_every_mask_weighs_the_same_whatever_its_size() -> None:
    small, large = _case(1, 1.0, 2.0, n=6), _case(2, 1.0, -2.0, n=14)
    x = np.concatenate([c[0].numpy().ravel() for c in (small, large)])[:, None]
    y = np.concatenate([c[1].numpy().ravel() for c in (small, large)])
    weights = np.concatenate([np.full(c[0].numel(), 1e4 / c[0].numel()) for c in (small, large)])
    reference = LogisticRegression(C=np.inf, tol=1e-8).fit(x, y, sample_weight=weights)
    found = _fit([small, large])
    assert found.scale == pytest.approx(reference.coef_[0, 0], rel=0.02)
    assert found.bias == pytest.approx(reference.intercept_[0], abs=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_the_threshold_has_the_best_mean_dice(seed: int) -> None:
    # logits that lie on bins, so that a search through all of them is exact
    rng = np.random.default_rng(seed)
    levels = bin_logits().numpy()[rng.integers(300, 700, 40)]
    cases = []
    for _ in range(3):
        logit = rng.choice(levels, (5, 6, 7))
        cases.append((torch.from_numpy(logit).float(), torch.from_numpy(rng.random(logit.shape) < 0.3)))
    found = _fit(cases)
    got = np.mean([_dice(found.predict(x).error_map.numpy(), e.numpy()) for x, e in cases])
    best = max(np.mean([_dice(x.numpy() >= np.float32(level) - 1e-3, e.numpy()) for x, e in cases]) for level in levels)
    assert got == pytest.approx(best, abs=1e-9)


def test_a_prediction_is_the_platt_probability_and_its_threshold() -> None:
    logit = torch.linspace(-30, 30, 121).view(1, 11, 11)
    prediction = Calibration(0.7, -0.4, 0.3).predict(logit)
    expected = 1 / (1 + np.exp(-(0.7 * logit.double().numpy() - 0.4)))
    np.testing.assert_allclose(prediction.probability.numpy(), expected, rtol=1e-4, atol=1e-12)
    np.testing.assert_array_equal(prediction.error_map.numpy(), expected >= 0.3)
    assert prediction.probability.dtype == torch.float32


def test_without_masks_or_without_errors_nothing_is_scaled() -> None:
    assert fit_calibration([]) == Calibration()
    x, _ = _case(0)
    for error in (torch.zeros_like(x, dtype=torch.bool), torch.ones_like(x, dtype=torch.bool)):
        found = _fit([(x, error)])
        assert (found.scale, found.bias) == (1.0, 0.0)


def test_masks_without_errors_ask_for_an_empty_map() -> None:
    x, _ = _case(0)
    found = _fit([(x, torch.zeros_like(x, dtype=torch.bool))])
    assert not found.predict(x).error_map.any()


def test_masks_that_are_wrong_everywhere_ask_for_a_full_map() -> None:
    x, _ = _case(0)
    found = _fit([(x, torch.ones_like(x, dtype=torch.bool))])
    assert found.predict(x).error_map.all()


def test_logits_that_say_the_opposite_keep_their_order() -> None:
    x, error = _case(0, scale=-1.0)
    found = _fit([(x, error)])
    assert found.scale > 0
    assert 0 <= found.threshold <= 1


def test_the_numbers_survive_json() -> None:
    found = _fit([_case(0)])
    assert Calibration(**found.to_dict()) == found


@pytest.mark.parametrize("bias", [-4.0, -1.0, 2.0])
def test_the_expected_rule_finds_the_best_expected_dice_of_all_maps(bias: float) -> None:
    logit, error = _case(0, bias=bias)
    found = fit_calibration([LogitHistogram.of(logit, error)], rule=ThresholdRule.expected)
    assert found.threshold is None
    prediction = found.predict(logit)
    p = np.sort(prediction.probability.double().numpy().ravel())[::-1]
    dice = 2 * p.cumsum() / (np.arange(1, p.size + 1) + p.sum())
    chosen = prediction.probability[prediction.error_map].double().sum()
    got = 2 * float(chosen) / (int(prediction.error_map.sum()) + p.sum())
    assert got == pytest.approx(dice.max(), abs=1e-4)


def test_the_expected_rule_calls_nothing_wrong_where_nothing_is_expected() -> None:
    assert not Calibration(1.0, -30.0, None).predict(torch.zeros(3, 3, 3)).error_map.any()
    assert Calibration(1.0, 30.0, None).predict(torch.zeros(3, 3, 3)).error_map.all()


def test_weights_count_masks_as_often_as_they_say() -> None:
    few, many = LogitHistogram.of(*_case(1, bias=2.0)), LogitHistogram.of(*_case(2, bias=-2.0))
    weighted = fit_calibration([few, many], [3.0, 1.0], ThresholdRule.dice)
    repeated = fit_calibration([few, few, few, many], rule=ThresholdRule.dice)
    for key in ("scale", "bias", "threshold"):
        assert weighted.to_dict()[key] == pytest.approx(repeated.to_dict()[key], rel=1e-3)


def test_the_correction_threshold_is_the_calibrated_probability_of_its_logit() -> None:
    found = Calibration(2.0, -1.0, 0.5).corrected_from(1.5)
    assert found.correction == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert found.corrected_from(None).correction is None


@pytest.mark.parametrize("threshold", [None, 0.25])
def test_a_calibration_returns_from_its_file(threshold: float | None, tmp_path: Path) -> None:
    write_json(tmp_path / "calibration.json", Calibration(2.0, -1.0, threshold, 0.5).to_dict())
    assert read_calibration(tmp_path / "calibration.json", "train again") == Calibration(2.0, -1.0, threshold, 0.5)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1, 2]",
        "{}",
        '{"scale": 1}',
        '{"scale": null, "bias": 0, "threshold": 0.5, "correction": null}',
        "\x00",
    ],
)
def test_a_damaged_calibration_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "calibration.json").write_text(content)
    with pytest.raises(InputError, match=r"calibration\.json: not readable as .*; train again$"):
        read_calibration(tmp_path / "calibration.json", "train again")
