"""Corrected masks and expected Dice, against plain numpy and against simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax

from whqa.callbacks.calibrating import CORRECTION_LOGITS, best_correction
from whqa.judges.correction import (
    corrected_mask,
    correction_gain,
    expected_dice,
    most_probable_other,
    other_probabilities,
)

SHAPE = (12, 11, 10)


def _case(seed: int = 0, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (classes, *SHAPE)), rng.integers(0, classes, SHAPE), rng.random(SHAPE)


def _dice(a: np.ndarray, b: np.ndarray) -> list[float]:
    return [2 * ((a == c) & (b == c)).sum() / ((a == c).sum() + (b == c).sum()) for c in (1, 2, 3)]


def test_the_others_share_all_probability() -> None:
    logits, mask, _ = _case()
    q = other_probabilities(torch.from_numpy(logits), torch.from_numpy(mask)).numpy()
    p = softmax(logits, axis=0)
    own = np.take_along_axis(p, mask[None], axis=0)
    expected = np.where(np.arange(4)[:, None, None, None] == mask, 0, p / (1 - own))
    np.testing.assert_allclose(q, expected, rtol=1e-4, atol=1e-6)
    other = most_probable_other(torch.from_numpy(logits), torch.from_numpy(mask))
    assert other.dtype == torch.uint8
    np.testing.assert_array_equal(other.numpy(), expected.argmax(axis=0))


def test_expected_dice_is_the_mean_dice_over_truths_drawn_from_the_probabilities() -> None:
    logits, mask, p = _case()
    q = other_probabilities(torch.from_numpy(logits), torch.from_numpy(mask))
    found = expected_dice(torch.from_numpy(p), q, torch.from_numpy(mask)).numpy()
    rng = np.random.default_rng(1)
    draws = []
    for _ in range(200):
        cumulative = q.numpy().astype(float).cumsum(axis=0)
        other = (rng.random(SHAPE) * cumulative[-1] > cumulative[:-1]).sum(axis=0)
        draws.append(_dice(np.where(rng.random(SHAPE) < p, other, mask), mask))
    np.testing.assert_allclose(found, np.mean(draws, axis=0), atol=0.005)


def test_a_structure_that_nobody_expects_has_no_expected_dice() -> None:
    mask = torch.zeros(SHAPE, dtype=torch.int64)
    q = torch.zeros(3, *SHAPE)
    q[1] = 1
    found = expected_dice(torch.full(SHAPE, 0.1), q, mask)
    assert found[0] == 0, "expected, and missing from the mask"
    assert found[1].isnan(), "neither in the mask nor expected"


def test_only_voxels_above_the_threshold_change() -> None:
    logits, mask, p = _case()
    other = most_probable_other(torch.from_numpy(logits), torch.from_numpy(mask))
    got = corrected_mask(torch.from_numpy(mask), other, torch.from_numpy(p), 0.8)
    np.testing.assert_array_equal(got.numpy(), np.where(p >= 0.8, other.numpy(), mask))
    assert got.dtype == torch.int64
    np.testing.assert_array_equal(corrected_mask(torch.from_numpy(mask), other, torch.from_numpy(p), None), mask)


def test_gain_is_the_change_of_the_mean_dice() -> None:
    logits, mask, score = _case()
    reference = np.where(score > 0.7, logits.argmax(axis=0), mask)
    other = most_probable_other(torch.from_numpy(logits), torch.from_numpy(mask))

    cuts = torch.tensor([0.2, 0.7, 0.9])
    gains = correction_gain(
        torch.from_numpy(mask), torch.from_numpy(reference), other, torch.from_numpy(score), cuts, 4
    )
    expected = [
        np.mean(_dice(np.where(score >= c, other.numpy(), mask), reference)) - np.mean(_dice(mask, reference))
        for c in cuts.tolist()
    ]
    np.testing.assert_allclose(gains.numpy(), expected, atol=1e-12)


def test_a_structure_counts_where_it_is_before_or_after() -> None:
    mask = torch.zeros(8, dtype=torch.uint8)
    mask[:4] = 1
    other = torch.tensor([0, 1, 1, 1, 2, 0, 0, 0], dtype=torch.uint8)
    # two wrong voxels of structure 1; the lowest threshold finds them, but invents structure 2
    reference = torch.tensor([1, 1, 0, 0, 0, 0, 0, 0], dtype=torch.uint8)
    score = torch.tensor([0.0, 0.0, 0.9, 0.9, 0.5, 0.0, 0.0, 0.0])
    other[2:4] = 0
    invented, right, nothing = correction_gain(mask, reference, other, score, torch.tensor([0.4, 0.8, 1.0]), 4).tolist()
    assert nothing == 0
    assert right == pytest.approx(1 - 2 / 3)
    assert invented == pytest.approx((1 - 2 / 3 - 1) / 2)
    # the other way round: what the mask invented goes
    removed = correction_gain(other, other.new_zeros(8), other.new_zeros(8), 1 - score, torch.tensor([0.0]), 4)
    assert removed.tolist() == [1.0]


def test_a_mask_without_structures_gains_nothing() -> None:
    empty = torch.zeros(8, dtype=torch.uint8)
    assert correction_gain(empty, empty, empty, torch.ones(8), torch.tensor([0.5]), 4).tolist() == [0.0]


def test_the_best_threshold_must_gain() -> None:
    flat = torch.zeros(len(CORRECTION_LOGITS), dtype=torch.float64)
    good, bad = flat.clone(), flat.clone()
    good[3], bad[3], bad[5] = 0.2, -0.3, 0.1
    assert best_correction([good, bad], [0.9, 0.1]) == float(CORRECTION_LOGITS[3])
    assert best_correction([good, bad], [0.1, 0.9]) == float(CORRECTION_LOGITS[5])
    assert best_correction([flat - 0.1], [1.0]) is None


def test_stray_probability_of_a_structure_outside_the_field_of_view_is_not_a_missing_structure() -> None:
    mask = torch.ones(SHAPE, dtype=torch.int64)
    q = torch.zeros(3, *SHAPE)
    q[2] = 1
    found = expected_dice(torch.full(SHAPE, 0.005), q, mask)
    assert found[1].isnan(), "0.5 % of all that is expected"
    assert expected_dice(torch.full(SHAPE, 0.02), q, mask)[1] == 0
