import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from whqa.metrics.error_detection import (
    average_precision,
    dice_of_counts,
    error_counts,
    error_dice,
    error_dice_by_structure,
)
from whqa.metrics.over_cases import ErrorMapAUPRC, ErrorMapDice


@pytest.mark.parametrize("seed", range(4))
def test_dice_is_the_f1_score(seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, true = rng.random((2, 5, 6, 7)) < 0.3
    found = error_dice(torch.from_numpy(predicted), torch.from_numpy(true))
    assert found == pytest.approx(f1_score(true.ravel(), predicted.ravel()), abs=1e-12)


def test_dice_of_empty_maps() -> None:
    nothing, something = torch.zeros(3, 3, 3, dtype=torch.bool), torch.ones(3, 3, 3, dtype=torch.bool)
    assert error_dice(nothing, nothing) == 1.0
    assert error_dice(something, nothing) == 0.0
    assert error_dice(nothing, something) == 0.0
    assert dice_of_counts(0, 0, 0) == 1.0


def test_counts() -> None:
    true = torch.tensor([True, True, True, False, False])
    predicted = torch.tensor([True, False, True, True, False])
    counts = error_counts(predicted, true)
    assert (counts.error, counts.predicted, counts.hit) == (3, 3, 2)


@pytest.mark.parametrize("other", [torch.zeros(2, 3, dtype=torch.bool), torch.zeros(3, 2)])
def test_maps_must_be_bool_and_alike(other: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="bool and of one shape"):
        error_dice(other, torch.zeros(3, 2, dtype=torch.bool))


@pytest.mark.parametrize("seed", range(4))
def test_dice_by_structure_is_the_f1_score_among_the_structure_s_voxels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask, reference = rng.integers(0, 4, (2, 5, 6, 7))
    predicted = rng.random(mask.shape) < 0.4
    found = error_dice_by_structure(*(torch.from_numpy(x) for x in (predicted, mask, reference)), 4)
    for structure in (1, 2, 3):
        among = (mask == structure) | (reference == structure)
        wrong = (mask == structure) != (reference == structure)
        assert found[structure - 1] == pytest.approx(f1_score(wrong[among], predicted[among]), abs=1e-12)


def test_dice_by_structure_where_something_is_missing() -> None:
    reference = torch.tensor([0, 0, 1, 1, 2, 2])
    mask = torch.tensor([0, 0, 1, 1, 2, 0])
    background = torch.tensor([True, True, False, False, False, False])
    # 1 is right and left alone, one error of 2 is missed, 3 is in neither; alarms in the background count nowhere
    assert error_dice_by_structure(background, mask, reference, 4) == pytest.approx([1.0, 0.0, math.nan], nan_ok=True)
    alarm = torch.tensor([False, False, True, False, False, True])
    assert error_dice_by_structure(alarm, mask, reference, 4)[:2] == pytest.approx([0.0, 1.0])
    with pytest.raises(ValueError, match="must be bool and of the mask's shape"):
        error_dice_by_structure(alarm.float(), mask, reference, 4)
    with pytest.raises(ValueError, match="differ in shape"):
        error_dice_by_structure(alarm, mask, reference[:3], 4)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=60).filter(
        lambda pairs: any(true for _, true in pairs)
    )
)
def test_average_precision_with_ties_is_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    score, true = np.array([s for s, _ in pairs]) / 8, np.array([t for _, t in pairs])
    found = average_precision(torch.tensor(score, dtype=torch.float32), torch.from_numpy(true))
    assert found == pytest.approx(average_precision_score(true, score), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_average_precision_of_volumes(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(5)
    true = rng.random((20, 21, 22)) < 0.03
    # logits: scores need not be probabilities
    score = torch.from_numpy(rng.normal(size=true.shape) + true).to(dtype)
    before = score.clone()
    expected = average_precision_score(true.ravel(), score.double().numpy().ravel())
    assert average_precision(score, torch.from_numpy(true)) == pytest.approx(expected, abs=1e-12)
    assert torch.equal(score, before)


def test_average_precision_at_the_extremes() -> None:
    true = torch.tensor([True, True, False, False])
    assert average_precision(torch.tensor([0.9, 0.8, 0.1, 0.0]), true) == 1.0
    assert average_precision(torch.full((4,), 0.3), true) == 0.5
    assert math.isnan(average_precision(torch.rand(4), torch.zeros(4, dtype=torch.bool)))
    with pytest.raises(ValueError, match="differ in shape"):
        average_precision(torch.rand(3), true)


def test_cases_without_error_leave_the_mean_auprc_but_not_the_dice() -> None:
    auprc, dice = ErrorMapAUPRC(), ErrorMapDice()
    true, none = torch.tensor([True, False]), torch.zeros(2, dtype=torch.bool)
    for index, (probability, truth) in enumerate([([0.2, 0.8], true), ([0.9, 0.8], none)]):
        auprc.update(index, torch.tensor(probability), truth)
        dice.update(index, none, truth)
    assert float(auprc.compute()) == 0.5
    assert float(dice.compute()) == 0.5
