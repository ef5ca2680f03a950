"""Calibration: the mean of P is the expected error rate, the slope the likeliest one, tau the best of all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_offsets import plain_offsets
from scipy.special import expit

from whqa.errors import InputError
from whqa.judges.boosted_rate import BoostedRate, Trees
from whqa.judges.calibration import (
    SLOPES,
    Calibration,
    CorrectionRule,
    MaskLogits,
    corrected_by,
    expected_dice_threshold,
    fit_calibration,
    fit_error_rate,
    read_calibration,
)
from whqa.judges.error_rate import RateModel
from whqa.judges.mask_parts import mask_parts
from whqa.judges.offsets import BINS, LOGIT_RANGE, bin_logits
from whqa.judges.rate_features import rate_features
from whqa.judges.threshold_rule import ThresholdRule
from whqa.quality import JudgedCase

Make = Callable[..., JudgedCase]
Logits = Callable[..., torch.Tensor]

WRONG = (0.0, 0.03, 0.1, 0.25, 0.5, 0.9)


def _judged(heard: Make, logit_of: Logits, **options: float) -> list[tuple[torch.Tensor, JudgedCase]]:
    cases = [heard(seed, wrong) for seed, wrong in enumerate(WRONG)]
    return [(logit_of(case, seed, **options), case) for seed, case in enumerate(cases)]


def _fit(judged: list, rule: ThresholdRule = ThresholdRule.expected, weights: list[float] | None = None) -> Calibration:
    return fit_calibration([MaskLogits.of(logit, case) for logit, case in judged], weights, rule)


def _dice(predicted: np.ndarray, error: np.ndarray) -> float:
    total = predicted.sum() + error.sum()
    return 1.0 if total == 0 else 2 * (predicted & error).sum() / total


# -- counting


def test_every_voxel_is_counted_once(heard: Make, logit_of: Logits) -> None:
    case = heard(1, 0.3)
    logit, heart, error = logit_of(case), case.heart.numpy(), case.error.numpy()
    found = MaskLogits.of(logit, case)
    part = mask_parts(case).numpy()  # type: ignore[union-attr]
    assert found.heart.shape == found.beyond.shape == (4, 2, BINS)
    for k in range(4):
        here = part == k
        for counts, region in ((found.heart, heart), (found.beyond, ~heart)):
            expected = [(region & ~error & here).sum(), (region & error & here).sum()]
            np.testing.assert_array_equal(counts[k].sum(axis=1), expected)
        assert found.rates[k] == pytest.approx((error & here)[heart].mean())
    mean = (bin_logits() * (found.heart + found.beyond).sum(axis=(0, 1))).sum() / logit.numel()
    assert mean == pytest.approx(float(logit.mean()), abs=LOGIT_RANGE / BINS)
    np.testing.assert_array_equal(found.features, rate_features(logit, case))


def test_logits_beyond_the_range_fall_into_the_end_bins(heard: Make) -> None:
    case = heard(1, 0.3)
    found = MaskLogits.of(torch.where(case.error, 1e6, -1e6), case)
    counts = found.heart + found.beyond
    assert counts[:, 1, -1].sum() == int(case.error.sum())
    assert counts[:, 0, 0].sum() == int((~case.error).sum())


# -- probabilities


@pytest.mark.parametrize("with_opinion", [True, False])
def test_beyond_the_heart_p_sums_up_to_the_errors_that_there_are_on_average(
    heard: Make, unheard: Callable, logit_of: Logits, with_opinion: bool
) -> None:
    """Few voxels in many: an offset of the heart, where every fifth may be wrong, would call for far too many."""
    judged = [(logit, case if with_opinion else unheard(case)) for logit, case in _judged(heard, logit_of)]
    found = _fit(judged)
    said, true = [], []
    for logit, case in judged:
        part = mask_parts(case)
        there = ~case.heart if part is None else ~case.heart & (part == 0)
        said.append(float(found.predict(logit, case).probability[there].sum()) / case.mask.numel())
        true.append(float(case.error[there].sum()) / case.mask.numel())
    assert there.any()
    assert np.mean(said) == pytest.approx(np.mean(true), abs=1.5 / case.mask.numel())


def test_where_the_heart_is_everything_nothing_lies_beyond(heard: Make, logit_of: Logits) -> None:
    """An empty mask's heart is the whole volume: no offset is wanted there, and none is missed."""
    judged = [(logit, replace(case, mask=torch.zeros_like(case.mask))) for logit, case in _judged(heard, logit_of)]
    assert all(case.heart.all() and case.error.any() for _, case in judged)
    found = _fit(judged)
    assert found.beyond == 0.0
    _check_sums(found, *judged[2])


def test_calibrations_that_know_no_beyond_are_read(heard: Make, logit_of: Logits) -> None:
    judged = _judged(heard, logit_of)
    numbers = _fit(judged).to_dict()
    del numbers["beyond"]
    old = Calibration.from_dict(numbers)
    logit, case = judged[3]
    found, part = old.predict(logit, case).probability, mask_parts(case)
    assert part is not None
    order = logit[part == 0].argsort()
    assert (found[part == 0][order].diff() >= 0).all()


def test_calibrations_of_before_keep_the_offsets_that_they_were_fitted_with(heard: Make, logit_of: Logits) -> None:
    judged = _judged(heard, logit_of)
    now = _fit(judged)
    numbers = now.to_dict()
    assert Calibration.from_dict(numbers) == now
    del numbers["own_share"]
    logit, case = judged[3]
    part = mask_parts(case)[case.heart]  # type: ignore[index]
    p = Calibration.from_dict(numbers).predict(logit, case).probability[case.heart].double()
    for k, rate in enumerate(now.rate.rates(rate_features(logit, case)[None])[0]):  # type: ignore[union-attr]
        n = int((part == k).sum())
        expected = np.clip(rate * len(part), 1e-4 * n, (1 - 1e-4) * n)
        assert float(p[part == k].sum()) == pytest.approx(expected, abs=1e-3 * n)
    assert not torch.allclose(p, now.predict(logit, case).probability[case.heart].double(), atol=1e-3)


@pytest.mark.parametrize("rule", list(ThresholdRule))
@pytest.mark.parametrize("with_opinion", [True, False])
def test_p_sums_up_to_the_errors_that_are_expected_in_the_heart(
    heard: Make, unheard: Callable, logit_of: Logits, rule: ThresholdRule, with_opinion: bool
) -> None:
    judged = [(logit, case if with_opinion else unheard(case)) for logit, case in _judged(heard, logit_of)]
    found = _fit(judged, rule)
    assert found.rate is not None
    assert isinstance(found.rate, BoostedRate if with_opinion else RateModel)
    foreign = heard(50, 0.4)
    empty = replace(foreign, mask=torch.zeros_like(foreign.mask))
    agreed = replace(foreign, mask=foreign.log_p.argmax(dim=0).to(torch.uint8))
    for case in (foreign, empty, agreed, *(c for _, c in judged)):
        case, logit = case if with_opinion else unheard(case), logit_of(foreign, 9)
        _check_sums(found, logit, case)


def _check_sums(found: Calibration, logit: torch.Tensor, case: JudgedCase) -> None:
    """P over the heart sums up to what is expected of all its parts."""
    rate = float(found.rate.rates(rate_features(logit, case)[None])[0].sum())  # type: ignore[union-attr]
    p = found.predict(logit, case).probability.double()
    assert float(p[case.heart].mean()) == pytest.approx(np.clip(rate, 1e-4, 1 - 1e-4), abs=1e-3)


def test_error_rates_that_were_learned_elsewhere_are_taken(heard: Make, logit_of: Logits) -> None:
    judged = _judged(heard, logit_of)
    masks = [MaskLogits.of(logit, case) for logit, case in judged]
    elsewhere = fit_error_rate(masks[:4], [1.0] * 4)
    found = fit_calibration(masks, rate=elsewhere)
    assert found.rate == elsewhere != fit_calibration(masks).rate
    for logit, case in judged:
        _check_sums(found, logit, case)


def test_training_masks_keep_their_mean_error_rate(heard: Make, logit_of: Logits) -> None:
    judged = _judged(heard, logit_of)
    found = _fit(judged)
    soft = [float(found.predict(logit, case).probability[case.heart].mean()) for logit, case in judged]
    true = [float(case.error[case.heart].float().mean()) for _, case in judged]
    # in a small part more voxels may be expected to be wrong than there are
    assert np.mean(soft) == pytest.approx(np.mean(true), abs=5e-3)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_the_slope_is_the_likeliest_one(heard: Make, logit_of: Logits, scale: float) -> None:
    judged = _judged(heard, logit_of, scale=scale)
    found = _fit(judged)
    assert found.rate is not None

    def likelihood(slope: float) -> float:
        """Mean log-likelihood of a mask's heart, each mask alike, with the offsets that meet the expected rates."""
        total = 0.0
        for logit, case in judged:
            rates = found.rate.rates(rate_features(logit, case)[None])[0]  # type: ignore[union-attr]
            x = logit[case.heart].double().clamp(-LOGIT_RANGE, LOGIT_RANGE).numpy()
            part = mask_parts(case)[case.heart].numpy()  # type: ignore[index]
            p = expit(plain_offsets(slope * x, part, rates)[part] + slope * x)
            total += np.where(case.error[case.heart].numpy(), np.log(p), np.log1p(-p)).mean()
        return total

    scan = np.geomspace(found.slope / 2, found.slope * 2, 41)
    best = scan[int(np.argmax([likelihood(s) for s in scan]))]
    assert SLOPES[0] < found.slope < SLOPES[1]
    assert found.slope == pytest.approx(best, rel=0.04)


def test_the_order_of_voxels_is_kept_within_each_part_in_the_heart_and_beyond(heard: Make, logit_of: Logits) -> None:
    judged = _judged(heard, logit_of)
    found = _fit(judged)
    logit, case = judged[3]
    probability, part = found.predict(logit, case).probability, mask_parts(case)
    assert part is not None
    for here in ((part == k) & region for k in range(4) for region in (case.heart, ~case.heart)):
        if not here.any():
            continue
        p = probability[here][logit[here].argsort()]
        assert len(p) > 1
        assert (p.diff() >= 0).all()


def test_the_reference_is_not_looked_at(heard: Make, logit_of: Logits) -> None:
    judged = _judged(heard, logit_of)
    logit, case = judged[3]
    found = _fit(judged)
    blind, seen = (found.predict(logit, c) for c in (replace(case, reference=None), case))
    torch.testing.assert_close(blind.probability, seen.probability)
    torch.testing.assert_close(blind.error_map, seen.error_map)


def test_without_masks_or_with_masks_of_one_sort_logits_stay_as_they_are(heard: Make, logit_of: Logits) -> None:
    assert fit_calibration([]) == Calibration()
    case = heard(0, 0.0)
    right = [(logit_of(case), case)]
    assert _fit(right) == Calibration(threshold=None)
    assert _fit(right, ThresholdRule.dice) == Calibration(threshold=0.5)
    logit = torch.linspace(-30, 30, case.mask.numel()).view(case.mask.shape)
    found = Calibration().predict(logit, case)
    np.testing.assert_allclose(
        found.probability.numpy(), expit(logit.double().clamp(-LOGIT_RANGE, LOGIT_RANGE).numpy()), rtol=1e-4
    )
    np.testing.assert_array_equal(found.error_map.numpy(), logit.numpy() >= 0)
    assert found.probability.dtype == torch.float32


def test_weights_count_masks_as_often_as_they_say(heard: Make, logit_of: Logits) -> None:
    judged = _judged(heard, logit_of)
    weighted = _fit(judged, ThresholdRule.dice, [3.0, 1.0, 1.0, 1.0, 2.0, 1.0])
    repeated = _fit([*judged[:1] * 3, *judged[1:4], *judged[4:5] * 2, judged[5]], ThresholdRule.dice)
    # the ridge weighs in masks, of which there are more on the right
    assert weighted.slope == pytest.approx(repeated.slope, rel=0.02)
    assert weighted.threshold == pytest.approx(repeated.threshold, abs=0.02)


# -- the threshold


@pytest.mark.parametrize("seed", range(4))
def test_the_rule_dice_takes_the_best_threshold_of_all(heard: Make, seed: int) -> None:
    # logits that lie on bins, so that a search through all of them is exact
    rng = np.random.default_rng(seed)
    levels = bin_logits()[rng.integers(300, 700, 40)]
    judged = []
    for number in range(3):
        case = heard(10 * seed + number, 0.3)
        logit = rng.choice(levels, case.mask.shape) + 1.0 * case.error.numpy()
        judged.append(
            (torch.from_numpy(bin_logits()[np.abs(logit[..., None] - bin_logits()).argmin(-1)]).float(), case)
        )
    found = _fit(judged, ThresholdRule.dice)
    said = [(found.predict(logit, case), case.error.numpy()) for logit, case in judged]
    got = np.mean([_dice(p.error_map.numpy(), e) for p, e in said])
    best = max(
        np.mean([_dice(p.probability.numpy() >= tau, e) for p, e in said]) for tau in np.arange(0.5, 1024) / 1024
    )
    assert got == pytest.approx(best, abs=1e-9)
    # what the grid costs where P crowds between two of its steps
    values = np.unique(np.concatenate([p.probability.numpy().ravel() for p, _ in said]))
    assert got >= max(np.mean([_dice(p.probability.numpy() >= tau, e) for p, e in said]) for tau in values) - 0.01


def test_the_expected_rule_finds_the_best_expected_dice_of_all_maps(heard: Make, logit_of: Logits) -> None:
    judged = _judged(heard, logit_of)
    found = _fit(judged)
    assert found.threshold is None
    for logit, case in judged:
        prediction = found.predict(logit, case)
        p = np.sort(prediction.probability.double().numpy().ravel())[::-1]
        dice = 2 * p.cumsum() / (np.arange(1, p.size + 1) + p.sum())
        chosen = prediction.probability[prediction.error_map].double().sum()
        got = 2 * float(chosen) / (int(prediction.error_map.sum()) + p.sum())
        assert got == pytest.approx(dice.max(), abs=2e-4)


def test_nothing_is_wrong_where_not_even_half_a_voxel_is_expected_to_be() -> None:
    assert expected_dice_threshold(torch.full((3, 3, 3), 0.01)) > 1
    assert expected_dice_threshold(torch.full((3, 3, 3), 0.03)) <= 0.03


# -- on disk


def _some(correction: CorrectionRule | None = None) -> Calibration:
    trees = Trees(0.25, (0, 3), (1, -1, -1, -1), (2, -1, -1, -1), (7, -1, -1, -1), (0.1,) * 4, (1e-17, 0, 1, 2))
    return Calibration(0.7, BoostedRate((trees,) * 4), None, correction, opinion_share=0.4)


def _damaged(**wrong: Any) -> str:
    """A calibration of which one part's trees are not as they should be."""
    numbers = _some().to_dict()
    parts = numbers["rate"]["parts"]
    return json.dumps(numbers | {"rate": {"parts": [parts[0], parts[1] | wrong, *parts[2:]]}})


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration(),
        Calibration(0.5, None, None),
        _some(),
        _some(CorrectionRule(0.65, 0.02)),
        Calibration(threshold=0.0),
    ],
)
def test_the_numbers_survive_json(calibration: Calibration, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(calibration.to_dict()))
    assert read_calibration(path, "train again") == calibration


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "5",
        "{}",
        '{"scale": 1.0, "bias": 0.0, "threshold": 0.5, "correction": null}',
        '{"slope": null, "rate": null, "threshold": 0.5, "correction": null}',
        '{"slope": NaN, "rate": null, "threshold": 0.5, "correction": null}',
        '{"slope": 1, "rate": null, "threshold": NaN, "correction": null}',
        '{"slope": 1e400, "rate": null, "threshold": 0.5, "correction": null}',
        '{"slope": 1, "rate": {"intercept": 0, "coefficients": [Infinity]}, "threshold": 0.5, "correction": null}',
        '{"slope": 1, "rate": {"intercept": NaN, "coefficients": [1]}, "threshold": 0.5, "correction": null}',
        '{"slope": 1, "rate": {"intercept": 0, "coefficients": 1}, "threshold": 0.5, "correction": null}',
        '{"slope": 1, "rate": {"intercept": 0, "coefficients": [1, 2, 3]}, "threshold": 0.5, "correction": null}',
        '{"slope": 1, "rate": [1], "threshold": 0.5, "correction": null}',
        _damaged(start=float("nan")),
        _damaged(roots=[4]),
        _damaged(roots=[-1]),
        _damaged(roots=[0.0]),
        _damaged(left=[0, -1, -1, -1]),
        _damaged(right=[10**30, -1, -1, -1]),
        _damaged(right=[-1, -1, -1, -1]),
        _damaged(feature=[11, -1, -1, -1]),
        _damaged(feature=[-1, -1, -1, -1]),
        _damaged(threshold=[float("inf"), 0, 0, 0]),
        _damaged(value=[0.0, 1.0]),
        _damaged(value=None),
        json.dumps(_some().to_dict() | {"rate": {"parts": _some().to_dict()["rate"]["parts"][:2]}}),
        '{"slope": 1, "rate": null, "threshold": 0.5, "correction": 0.5}',
        '{"slope": 1, "rate": null, "threshold": 0.5, "correction": {"probability": NaN, "gain": 0}}',
        '{"slope": 1, "rate": null, "threshold": 0.5, "correction": {"probability": 0.5}}',
    ],
)
def test_a_file_that_is_no_calibration_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"calibration\.json: not readable as .*; train again$") as caught:
        read_calibration(path, "train again")
    assert "\n" not in str(caught.value)


def test_the_rule_of_correction_is_exchanged_alone() -> None:
    rule = CorrectionRule(0.8, 0.1)
    assert corrected_by(_some(), rule) == _some(rule)
    assert corrected_by(_some(rule), None) == _some()
