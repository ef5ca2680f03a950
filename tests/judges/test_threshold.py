"""The search of the best level against trying every one of them."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from whqa.judges.threshold import LEVELS, LevelSearch, score_levels
from whqa.metrics.error_detection import error_dice

Pair = tuple[torch.Tensor, torch.Tensor]


def pairs(seed: int, n: int = 4) -> list[Pair]:
    rng = np.random.default_rng(seed)
    errors = [rng.random((8, 9, 7)) < 0.1 * (i + 1) for i in range(n)]
    scores = [np.clip(0.2 * rng.random(e.shape) + 0.15 * e + 0.1 * rng.random(), 0, 1) for e in errors]
    return [(torch.from_numpy(s).float(), torch.from_numpy(e)) for s, e in zip(scores, errors, strict=True)]


def mean_dice(cases: list[Pair], threshold: float) -> float:
    return float(np.mean([error_dice(score >= threshold, error) for score, error in cases]))


def searched(cases: list[Pair]) -> LevelSearch:
    search = LevelSearch(LEVELS)
    for score, error in cases:
        search.update(score_levels(score), error)
    return search


def best_threshold(cases: list[Pair]) -> float:
    return searched(cases).best() / LEVELS


@pytest.mark.parametrize("seed", range(4))
def test_no_candidate_beats_the_chosen_threshold(seed: int) -> None:
    cases = pairs(seed)
    search = searched(cases)
    every = [mean_dice(cases, k / LEVELS) for k in range(1, LEVELS + 1)]
    np.testing.assert_allclose(search.dice_sum / search.cases, every, atol=1e-12)
    assert mean_dice(cases, best_threshold(cases)) == pytest.approx(max(every), abs=1e-12)


def test_cases_count_alike_however_large_their_errors() -> None:
    large = torch.arange(100) < 50
    small = torch.arange(100) < 1
    cases = [(large * 0.25 + 0.25, large), *[(small * 0.25 + 0.5, small)] * 2]
    # pooled voxels would favour a threshold below 0.5, where the two small cases are called wrong as a whole
    assert 0.5 < best_threshold(cases) <= 0.75


def test_scores_on_a_candidate_belong_to_it() -> None:
    score = torch.tensor([0.25, 0.25, 0.75, 0.75])
    error = torch.tensor([False, False, True, True])
    threshold = best_threshold([(score, error)])
    assert 0.25 < threshold <= 0.75
    assert threshold == pytest.approx(0.5, abs=0.01), "the middle of equally good thresholds"
    # candidates k / 1024: 768 / 1024 = 0.75 still holds the wrong voxels, the next one holds none
    assert searched([(score, error)]).dice_sum[[767, 768]].tolist() == [1.0, 0.0]


def test_perfect_masks_want_nothing_called_wrong() -> None:
    score, none = torch.full((10,), 0.3), torch.zeros(10, dtype=torch.bool)
    threshold = best_threshold([(score, none)])
    assert threshold > 0.3
    assert mean_dice([(score, none)], threshold) == 1.0


def test_extreme_scores() -> None:
    score, error = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([False, True, False])
    assert searched([(score, error)]).dice_sum.max() == pytest.approx(f1_score(error, score >= 1))


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan")])
def test_scores_outside_the_unit_interval_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        score_levels(torch.tensor([0.5, bad]))


def test_without_a_case_there_is_no_threshold() -> None:
    with pytest.raises(ValueError, match="no case"):
        LevelSearch(LEVELS).best()
