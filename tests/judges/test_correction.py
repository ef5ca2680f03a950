"""Corrected masks and expected Dice, against plain numpy and against simulated truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import sem

from whqa.judges.calibration import CorrectionRule
from whqa.judges.correction import (
    HARM,
    RULES,
    UNTOUCHED,
    MaskGains,
    correct,
    expected_dice,
    harmless_by_structure,
    harmless_rule,
    other_probabilities,
    true_gains,
)

SHAPE = (12, 11, 10)
Array = npt.NDArray[np.float64]


def _case(seed: int = 0, classes: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 2, (classes, *SHAPE)), rng.integers(0, classes, SHAPE), rng.random(SHAPE)


def _dice(a: np.ndarray, b: np.ndarray) -> list[float]:
    return [2 * ((a == c) & (b == c)).sum() / ((a == c).sum() + (b == c).sum()) for c in (1, 2, 3)]


# -- what P and q say


def test_the_others_share_all_probability() -> None:
    logits, mask, _ = _case()
    q = other_probabilities(torch.from_numpy(logits), torch.from_numpy(mask)).numpy()
    p = softmax(logits, axis=0)
    own = np.take_along_axis(p, mask[None], axis=0)
    expected = np.where(np.arange(4)[:, None, None, None] == mask, 0, p / (1 - own))
    np.testing.assert_allclose(q, expected, rtol=1e-4, atol=1e-6)


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


def test_stray_probability_of_a_structure_outside_the_field_of_view_is_not_a_missing_structure() -> None:
    mask = torch.ones(SHAPE, dtype=torch.int64)
    q = torch.zeros(3, *SHAPE)
    q[2] = 1
    found = expected_dice(torch.full(SHAPE, 0.005), q, mask)
    assert found[1].isnan(), "0.5 % of all that is expected"
    assert expected_dice(torch.full(SHAPE, 0.02), q, mask)[1] == 0


# -- correcting


def _posterior(p: Array, q: Array, mask: np.ndarray) -> Array:
    """The probability of every label, (C + 1, ...)."""
    own = np.arange(len(q)).reshape(-1, *[1] * mask.ndim) == mask
    return np.where(own, 1 - p, p * q)


def _expected_dice_of(labels: np.ndarray, posterior: Array) -> Array:
    """Of structures 1..C; one that is neither there nor expected counts 1."""
    sizes = posterior.reshape(len(posterior), -1).sum(axis=1)[1:]
    found = []
    for c, size in enumerate(sizes, start=1):
        n, hit = (labels == c).sum(), posterior[c][labels == c].sum()
        absent = n == 0 and size < max(0.5, 0.01 * sizes.sum())
        found.append(1.0 if absent else 2 * hit / (n + size))
    return np.array(found)


def _correct_of_numpy(p: Array, q: Array, mask: np.ndarray, rule: CorrectionRule) -> tuple[np.ndarray, Array]:
    """Voxel by voxel; a structure that gains too little is given up, until all that change gain enough."""
    posterior, label = _posterior(p, q, mask), q.argmax(axis=0)
    before, refused, touched = _expected_dice_of(mask, posterior), set(), set()
    while True:
        corrected = mask.copy()
        moved = set()
        for voxel in np.ndindex(mask.shape):
            ends = {int(mask[voxel]), int(label[voxel])}
            if p[voxel] * q[label[voxel]][voxel] >= rule.probability and not ends & refused:
                corrected[voxel] = label[voxel]
                moved |= ends - {0}
        touched |= moved
        gain = _expected_dice_of(corrected, posterior) - before
        poor = {c for c in moved if gain[c - 1] < rule.gain}
        if not poor:
            found = [gain[c - 1] if c in moved else 0.0 if c in touched else np.nan for c in range(1, len(q))]
            return corrected, np.array(found)
        refused |= poor


def _draw(seed: int, shape: tuple[int, ...] = (4, 5, 6), classes: int = 4) -> tuple[Array, Array, np.ndarray]:
    """P, q and a mask; P is mostly small or large, so that all rules find something."""
    rng = np.random.default_rng(seed)
    mask = rng.integers(0, classes, shape)
    q = softmax(rng.normal(0, 4, (classes, *shape)), axis=0)
    q[np.arange(classes).reshape(-1, 1, 1, 1) == mask] = 0
    q /= q.sum(axis=0)
    # one structure is mostly right, one mostly wrong
    p = rng.beta(0.5, 0.5, shape) * np.linspace(0.4, 1.0, classes)[mask]
    return p, q, mask


def _corrected(p: Array, q: Array, mask: np.ndarray, rule: CorrectionRule | None) -> tuple[np.ndarray, Array]:
    labels, gains = correct(torch.from_numpy(p), torch.from_numpy(q), torch.from_numpy(mask.astype(np.uint8)), rule)
    return labels.numpy(), gains.numpy()


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_correction_is_that_of_numpy(rule: CorrectionRule) -> None:
    kept = 0
    for seed in range(6):
        p, q, mask = _draw(seed)
        expected, gains = _correct_of_numpy(p, q, mask, rule)
        labels, found = _corrected(p, q, mask, rule)
        np.testing.assert_array_equal(labels, expected)
        np.testing.assert_allclose(found, gains, atol=1e-9)
        kept += int((labels != mask).any())
    if rule.gain == 0:
        assert kept, "the example has something to correct"


@given(seed=st.integers(0, 10_000), rule=st.sampled_from(RULES))
def test_no_voxel_of_a_refused_structure_changes(seed: int, rule: CorrectionRule) -> None:
    p, q, mask = _draw(seed, (3, 4, 4))
    labels, gains = _corrected(p, q, mask, rule)
    posterior = _posterior(p, q, mask)
    np.testing.assert_allclose(posterior.sum(axis=0), 1, atol=1e-6)
    changed = labels != mask
    # where it changes, the new label is the most probable one and probable enough
    assert (np.take_along_axis(posterior, labels[None].astype(int), axis=0)[0][changed] >= rule.probability).all()
    np.testing.assert_array_equal(labels[changed], posterior.argmax(axis=0)[changed])
    gained = _expected_dice_of(labels, posterior) - _expected_dice_of(mask, posterior)
    for structure, gain in enumerate(gains, start=1):
        here = ((mask == structure) | (labels == structure)) & changed
        if not gain > 0 and not (gain == 0 and rule.gain == 0):
            assert not here.any(), "nothing was to change, or it was expected to gain too little"
        if here.any():
            assert gain >= rule.gain
            assert gain == pytest.approx(gained[structure - 1], abs=1e-9)


def _two_structures() -> tuple[Array, Array, np.ndarray]:
    """Structure 1 (think of a ventricle) is sound; structure 2 (a vessel) lacks its upper half."""
    mask = np.zeros((1, 4, 20), np.int64)
    mask[0, :2, :], mask[0, 3, :10] = 1, 2
    q = np.zeros((3, 1, 4, 20))
    q[0], q[0][mask == 0] = 1, 0
    q[2][mask == 0] = 1
    p = np.zeros(mask.shape)
    p[0, 3, 10:] = 0.9
    return p, q, mask


def test_a_mended_vessel_does_not_touch_the_ventricle() -> None:
    p, q, mask = _two_structures()
    labels, gains = _corrected(p, q, mask, CorrectionRule(0.5, 0.1))
    np.testing.assert_array_equal(labels == 2, np.arange(4)[None, :, None] == np.full((1, 1, 20), 3))
    np.testing.assert_array_equal(labels == 1, mask == 1)
    assert np.isnan(gains[0])
    # of 10 voxels 10 are right and 9 are missing; afterwards 20 with 19 right
    assert gains[1] == pytest.approx(2 * 19 / (20 + 19) - 2 * 10 / (10 + 19))


def test_a_change_of_two_structures_needs_both() -> None:
    p, q, mask = _two_structures()
    # the vessel would also take a bit of the ventricle, which gains next to nothing by it
    q[:, 0, 1, 0], p[0, 1, 0] = [0, 0, 1], 0.6
    labels, gains = _corrected(p, q, mask, CorrectionRule(0.5, 0.1))
    np.testing.assert_array_equal(labels == 1, mask == 1)
    assert gains[0] == 0, "expected to gain too little"
    assert gains[1] > 0.1
    assert (labels == 2).sum() == 20


def test_without_a_rule_the_mask_is_left_alone() -> None:
    p, q, mask = _draw(0)
    labels, gains = _corrected(p, q, mask, None)
    np.testing.assert_array_equal(labels, mask)
    assert np.isnan(gains).all()
    assert gains.shape == (3,)


def test_a_mask_of_background_alone_may_get_structures() -> None:
    mask = np.zeros((2, 3, 4), np.int64)
    q = np.zeros((3, *mask.shape))
    q[1] = 1
    labels, gains = _corrected(np.full(mask.shape, 0.9), q, mask, CorrectionRule(0.8, 0.2))
    assert (labels == 1).all()
    assert gains[0] == pytest.approx(2 * 0.9 / 1.9)


# -- which rule


def test_true_gains_are_the_changes_of_dice_by_each_rule() -> None:
    p, q, mask = _draw(3)
    reference = np.where(p > 0.6, q.argmax(axis=0), mask)
    tensors = [torch.from_numpy(a) for a in (p, q, mask, reference)]
    found = true_gains(*tensors, RULES)
    assert found.shape == (len(RULES), 4)
    for row, rule in zip(found, RULES, strict=True):
        corrected, _ = _correct_of_numpy(p, q, mask, rule)
        np.testing.assert_allclose(
            row[:3], np.subtract(_dice(corrected, reference), _dice(mask, reference)), atol=1e-12
        )
        assert row[3] == pytest.approx((corrected != mask).sum() / (mask > 0).sum())


def test_a_structure_that_mask_and_reference_lack_counts_one() -> None:
    mask = np.zeros((2, 3, 4), np.int64)
    q = np.zeros((3, *mask.shape))
    q[1] = 1
    everywhere = torch.full(mask.shape, 0.9, dtype=torch.float64)
    found = true_gains(everywhere, torch.from_numpy(q), torch.from_numpy(mask), torch.from_numpy(mask), RULES[:1])
    np.testing.assert_array_equal(found, [[-1.0, 0.0, 24.0]])


def _gains(of_rules: dict[int, list[float]], changed: float = 0.0) -> Array:
    table = np.zeros((len(RULES), 4))
    for rule, change in of_rules.items():
        table[rule] = [*change, changed]
    return table


def _masks(gains: Sequence[Array], strata: Sequence[str], patients: Sequence[str]) -> list[MaskGains]:
    return [MaskGains(p, p, "final", *of) for p, *of in zip(patients, strata, gains, strict=True)]


def test_the_rule_with_the_best_mean_gain_is_taken() -> None:
    masks = [_gains({3: [0.1, 0.1, 0.1], 5: [0.2, 0, 0]}), _gains({3: [0, 0, 0], 5: [0.3, 0, 0]})]
    assert harmless_rule(_masks(masks, ["bad", "fair"], "ab"), [0.9, 0.1]) == RULES[3]
    assert harmless_rule(_masks(masks, ["bad", "fair"], "ab"), [0.1, 0.9]) == RULES[5]


def test_no_rule_is_taken_where_none_gains() -> None:
    lost = _gains({k: [-0.1, 0, 0] for k in range(len(RULES))})
    assert harmless_rule(_masks([_gains({})], ["bad"], "a"), [1.0]) is None
    assert harmless_rule(_masks([lost], ["bad"], "a"), [1.0]) is None
    assert harmless_rule([], []) is None


def test_a_right_mask_may_hardly_change() -> None:
    good, right = _gains({2: [0.5, 0.5, 0.5]}), _gains({2: [0, 0, 0]}, changed=UNTOUCHED * 1.01)
    assert harmless_rule(_masks([good, right], ["bad", "reference"], "ab"), [1, 1]) is None
    assert harmless_rule(_masks([good, right], ["bad", "mild"], "ab"), [1, 1]) == RULES[2]


def test_one_of_a_few_right_masks_that_loses_is_not_lost_in_their_mean() -> None:
    good, lost = _gains({2: [0.5] * 3, 7: [0.4] * 3}), _gains({2: [4 * 0.9 * HARM, 0, 0]})
    few, many = [good, lost, *[_gains({})] * 3], [good, lost, *[_gains({})] * 39]
    of_few, of_many = (["bad", *["reference"] * (len(masks) - 1)] for masks in (few, many))
    # the mean over four is within the bound, but a fifth may as well lose
    assert harmless_rule(_masks(few, of_few, "aabcd"), [1] * 5) == RULES[7]
    assert harmless_rule(_masks(many, of_many, ["0", *map(str, range(40))]), [1] * 41) == RULES[2]
    # of one patient nothing is known of others
    assert harmless_rule(_masks(few[:2], of_few[:2], "aa"), [1] * 2) == RULES[7]


def test_a_structure_whose_changes_do_harm_too_often_must_gain_more() -> None:
    """Each patient has one mask; in some the first structure is harmed by the two smaller gains, the last by one."""
    by_small = {0: [0.9, 0.5, 0.5], 1: [0.4, 0.5, 0.5], 2: [0.3, 0.5, 0.5]}
    harmed = {0: [-0.1, 0.5, -0.003], 1: [-0.01, 0.5, 0.5], 2: [0.0, 0.5, 0.5]}
    worst = {k: [-0.1, 0.5, 0.5] for k in range(3)}

    def rule_of(tables: list[dict[int, list[float]]]) -> CorrectionRule | None:
        masks = _masks([_gains(table) for table in tables], ["bad"] * len(tables), [*map(str, range(len(tables)))])
        return harmless_by_structure(masks, [1.0] * len(masks))

    assert rule_of([by_small] * 39 + [harmed]) == replace(RULES[0], of_structures=(0.05, 0.05, 0.05))
    assert rule_of([by_small] * 8 + [harmed] * 2) == replace(RULES[0], of_structures=(0.2, 0.05, 0.1))
    assert rule_of([by_small] * 8 + [worst] * 2) == replace(RULES[0], of_structures=(math.inf, 0.05, 0.05))
    assert rule_of([{}] * 3) is None
    unchanged = {0: [0.5, 0.0, 0.5], 1: [0.4, 0.0, 0.4], 2: [0.4, 0.0, 0.3]}
    assert rule_of([unchanged] * 3) == replace(RULES[0], of_structures=(0.05, math.inf, 0.05))


def test_a_patient_counts_once_whatever_the_number_of_masks() -> None:
    good, bad = _gains({0: [0.5] * 3, 1: [0.4] * 3, 2: [0.3] * 3}), _gains({0: [-0.01] * 3, 1: [0.1] * 3, 2: [0.1] * 3})
    people = [*map(str, range(9)), *"9" * 30]
    masks = _masks([good] * 9 + [bad] + [good] * 29, ["bad"] * 39, people)
    rule = harmless_by_structure(masks, [1.0] * 39)
    # 1 of 300, and as much for the standard error; the patient with one harmed mask alone would be 1 of 10
    assert rule == replace(RULES[0], of_structures=(0.05,) * 3)
    rule = harmless_by_structure(masks[:10], [1.0] * 10)
    assert rule == replace(RULES[0], of_structures=(0.1,) * 3)


def test_a_structure_gains_what_is_asked_of_it_or_is_left_alone() -> None:
    p, q, mask = (torch.from_numpy(a) for a in _draw(3))
    plain, gains = correct(p, q, mask, CorrectionRule(0.5, 0.0))
    assert (gains > 0).all(), "each structure changes"
    for asked in ((math.inf,) * 3, (0.0, math.inf, math.inf)):
        corrected, told = correct(p, q, mask, CorrectionRule(0.5, 0.0, asked))
        untouched = [i for i, gain in enumerate(asked, start=1) if gain == math.inf]
        for index in untouched:
            torch.testing.assert_close(corrected == index, mask == index)
            assert told[index - 1] == 0
    same, _ = correct(p, q, mask, CorrectionRule(0.5, 9.0, (0.0,) * 3))
    torch.testing.assert_close(same, plain)


@given(seed=st.integers(0, 10_000))
def test_no_rule_that_harms_a_stratum_is_ever_taken(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 12))
    gains = list(rng.normal(0.003, 0.01 * rng.random(), (n, len(RULES), 4)))
    for table in gains:
        table[:, 3] = np.abs(table[:, 3]) / 5
    strata = rng.choice(["reference", "mild", "good", "fair", "bad"], n).tolist()
    weights = rng.uniform(0.1, 5, n).tolist()
    patients = [str(i) for i in range(n)]
    rule = harmless_rule(_masks(gains, strata, patients), weights)
    chosen, harmless = None if rule is None else RULES.index(rule), []
    for k in range(len(RULES)):
        inside = {s: np.array([g[k] for g, of in zip(gains, strata, strict=True) if of == s]) for s in strata}
        worst = {s: table.mean(axis=0) for s, table in inside.items()}
        if "reference" in worst:
            reach = sem(inside["reference"]) if len(inside["reference"]) > 1 else np.full(4, np.inf)
            worst["reference"] = worst["reference"] + reach * [-1, -1, -1, 1]
        harmful = any((m[:3] < HARM).any() or (s == "reference" and m[3] > UNTOUCHED) for s, m in worst.items())
        gain = np.average([g[k, :3].mean() for g in gains], weights=weights)
        if not harmful and gain > 0:
            harmless.append((gain, k))
    assert chosen == (max(harmless)[1] if harmless else None)
