"""Reverse classification accuracy: it learns, worse masks score lower, and a mask's own case is no reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from whqa.judges.reverse import Reverse
from whqa.metrics.segmentation import segmentation_dice
from whqa.quality import JudgedCase, one_minus_mean

SHAPE, SPACING = (16, 16, 16), (6.0, 6.0, 6.0)


def _make(seed: int, shift: int, kind: str = "final") -> JudgedCase:
    """Two boxes of other brightness than what is around them; the mask's first box is `shift` voxels off."""
    rng = np.random.default_rng(seed)
    reference, mask = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    low = int(rng.integers(2, 4))
    reference[low : low + 6, 3:9, 3:9], reference[10:14, 10:14, 10:14] = 1, 2
    mask[low : low + 6, 3 + shift : 9 + shift, 3:9], mask[10:14, 10:14, 10:14] = 1, 2
    image = np.array([-0.8, 0.2, 0.8])[reference] + 0.1 * rng.standard_normal(SHAPE)
    volumes = (torch.from_numpy(v) for v in (image.astype(np.float32), mask, reference))
    return JudgedCase(f"c{seed % 6}", kind, *volumes, None, SPACING)


def _training() -> Iterator[JudgedCase]:
    """Six cases of four masks each, case by case."""
    for name in range(6):
        for shift in range(4):
            yield replace(_make(name, 2 * shift), case=f"c{name}", kind=f"corrupted{shift + 1}" if shift else "final")


@pytest.fixture(scope="module")
def fitted() -> Reverse:
    judge = Reverse()
    judge.fit(_training)
    return judge


@pytest.mark.parametrize("shift", [0, 2, 5])
def test_it_expects_the_dice_of_new_masks(fitted: Reverse, shift: int) -> None:
    case = replace(_make(100, shift), case="new")
    found = fitted.predict(replace(case, reference=None))
    dice = segmentation_dice(case.mask, case.reference, 3)
    assert found.expected_dice[1] == pytest.approx(dice[0], abs=0.2)
    assert found.expected_dice[2] == pytest.approx(1.0, abs=0.05)
    assert found.quality["volume"] == pytest.approx(one_minus_mean(case.error), abs=0.07)
    assert found.quality["heart"] == pytest.approx(one_minus_mean(case.error, case.heart), abs=0.25)


def test_worse_masks_score_lower(fitted: Reverse) -> None:
    found = [fitted.predict(replace(_make(101, shift), case=f"new{shift}")) for shift in (0, 3, 6)]
    for said in ([one.expected_dice[1] for one in found], [one.quality["heart"] for one in found]):
        assert said == sorted(said, reverse=True)
        assert said[0] > said[2] + 0.1


def test_a_case_is_no_reference_of_its_own() -> None:
    alone = Reverse()
    alone.fit(lambda: iter([_make(0, 0), _make(0, 2)]))
    assert not alone._scores(_make(0, 0)).any(), "there is no other"
    assert alone._scores(replace(_make(0, 0), case="new")).all()


def test_a_structure_that_the_mask_lacks_has_dice_0_and_an_empty_mask_is_judged(fitted: Reverse) -> None:
    case = replace(_make(102, 0), case="lacking")
    assert fitted.predict(replace(case, mask=torch.where(case.mask == 2, 0, case.mask))).expected_dice[2] == 0
    empty = fitted.predict(replace(case, mask=torch.zeros_like(case.mask)))
    assert empty.expected_dice == {1: 0.0, 2: 0.0}
    assert 0 <= empty.quality["heart"] <= 1
