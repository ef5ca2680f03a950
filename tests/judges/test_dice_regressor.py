"""The regression of a mask's quality: it learns, says no more than it knows, and needs no error map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from whqa.judges.dice_regressor import DiceRegressor
from whqa.metrics.segmentation import segmentation_dice
from whqa.metrics.verdict_row import JUDGE_COLUMNS, judge
from whqa.quality import JudgedCase, QualityPrediction, one_minus_mean

SHAPE, SPACING = (20, 20, 20), (2.0, 2.0, 2.0)


def _make(seed: int, shift: int, kind: str = "final") -> JudgedCase:
    """Two boxes, the image bright in them; the mask's first box is `shift` voxels off."""
    rng = np.random.default_rng(seed)
    reference, mask = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    low = int(rng.integers(3, 5))
    reference[low : low + 6, 4:12, 4:12], reference[12:17, 12:17, 12:17] = 1, 2
    mask[low : low + 6, 4 + shift : 12 + shift, 4:12], mask[12:17, 12:17, 12:17] = 1, 2
    image = np.array([-0.8, 0.2, 0.8])[reference] + 0.1 * rng.standard_normal(SHAPE)
    volumes = (torch.from_numpy(v) for v in (image.astype(np.float32), mask, reference))
    return JudgedCase(f"c{seed}", kind, *volumes, None, SPACING)


@pytest.fixture(scope="module")
def fitted() -> DiceRegressor:
    regressor = DiceRegressor()
    regressor.fit(lambda: (_make(seed, seed % 7) for seed in range(42)))
    return regressor


def _of(regressor: DiceRegressor, case: JudgedCase) -> QualityPrediction:
    return regressor.predict(replace(case, reference=None))


def test_it_expects_the_dice_and_the_accuracy_of_masks_like_those_it_learned_from(fitted: DiceRegressor) -> None:
    for seed, shift in ((100, 0), (101, 3), (102, 6)):
        case = _make(seed, shift)
        found, dice = _of(fitted, case), segmentation_dice(case.mask, case.reference, 3)
        assert found.expected_dice[1] == pytest.approx(dice[0], abs=0.12)
        assert found.expected_dice[2] == pytest.approx(1.0, abs=0.02)
        assert found.quality["volume"] == pytest.approx(one_minus_mean(case.error), abs=0.02)
        assert found.quality["heart"] == pytest.approx(one_minus_mean(case.error, case.heart), abs=0.05)


def test_a_mask_without_a_structure_that_hearts_have_gets_dice_0_and_one_without_any_none(
    fitted: DiceRegressor,
) -> None:
    case = _make(7, 0)
    lacking = replace(case, mask=torch.where(case.mask == 2, 0, case.mask))
    assert _of(fitted, lacking).expected_dice[2] == 0.0
    rare = DiceRegressor()
    rare.fit(lambda: (_without_second(seed) if seed % 3 else _make(seed, 1) for seed in range(12)))
    assert set(_of(rare, _without_second(5)).expected_dice) == {1}
    assert set(_of(rare, _make(5, 1)).expected_dice) == {1, 2}


def _without_second(seed: int) -> JudgedCase:
    case = _make(seed, 1)
    assert case.reference is not None
    mask, reference = (torch.where(v == 2, 0, v) for v in (case.mask, case.reference))
    return replace(case, mask=mask, reference=reference)


def test_an_empty_mask_is_judged(fitted: DiceRegressor) -> None:
    case = _make(3, 0)
    found = _of(fitted, replace(case, mask=torch.zeros_like(case.mask)))
    assert found.expected_dice == {1: 0.0, 2: 0.0}
    assert 0 <= found.quality["volume"] <= 1


def test_families_weigh_alike() -> None:
    good = [_make(seed, 0) for seed in range(4)]
    # what looks the same is good four times and spoiled by its reference's fault once
    spoiled = [replace(c, kind="corrupted1", reference=torch.zeros_like(c.mask)) for c in good[:1]]
    regressor = DiceRegressor()
    regressor.fit(lambda: iter([*good, *spoiled]))
    of_all = [one_minus_mean(case.error) for case in spoiled]
    assert _of(regressor, good[3]).quality["volume"] == pytest.approx((1.0 + of_all[0]) / 2, abs=0.08)


def test_its_row_has_no_number_of_an_error_map(fitted: DiceRegressor) -> None:
    case = _make(5, 2)
    row = judge(case, fitted.predict(case))
    assert set(row) == set(JUDGE_COLUMNS)
    known = {name for name, value in row.items() if not math.isnan(value)}
    assert known == {"voxels", "error_voxels", "acc_volume", "acc_heart", "qi_volume", "qi_heart"}
    assert row["error_voxels"] == int((case.mask != case.reference).sum())


def test_what_is_kept_of_it(fitted: DiceRegressor) -> None:
    kept = fitted.parameters()
    assert kept["masks"] == 42
    assert 0 < len(kept["importance"]) <= 10
    assert sum(kept["importance"].values()) <= 1.0 + 1e-9


def test_the_order_of_structures_follows_from_no_case() -> None:
    regressor = DiceRegressor()
    regressor.fit(lambda: iter([_without_second(0), _make(1, 1), _make(2, 2), _make(3, 3)]))
    assert set(_of(regressor, _make(4, 1)).expected_dice) == {1, 2}


@pytest.mark.parametrize(("of", "message"), [([], "no case"), ([replace(_make(0, 1), reference=None)], "no reference")])
def test_it_cannot_be_fitted_on_nothing(of: list[JudgedCase], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiceRegressor().fit(lambda: iter(of))


def test_it_must_be_fitted(heard: Callable[..., JudgedCase]) -> None:
    with pytest.raises(RuntimeError, match="not fitted"):
        DiceRegressor().predict(heard())


def test_a_mask_may_have_a_structure_that_no_mask_of_the_fit_had(fitted: DiceRegressor) -> None:
    case = _make(50, 1)
    mask = case.mask.clone()
    mask[0:2, 0:2, 0:2] = 3
    found = _of(fitted, replace(case, mask=mask))
    assert set(found.expected_dice) == {1, 2}
