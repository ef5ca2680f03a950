import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from whqa.judges.threshold import LEVELS, LevelSearch, ThresholdSearch, choose_threshold
from whqa.metrics import error_dice


def pairs(seed: int, n: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rng = np.random.default_rng(seed)
    errors = [rng.random((8, 9, 7)) < 0.1 * (i + 1) for i in range(n)]
    scores = [np.clip(0.2 * rng.random(e.shape) + 0.15 * e + 0.1 * rng.random(), 0, 1) for e in errors]
    return [(torch.from_numpy(s).float(), torch.from_numpy(e)) for s, e in zip(scores, errors, strict=True)]


def mean_dice(cases: list[tuple[torch.Tensor, torch.Tensor]], threshold: float) -> float:
    return float(np.mean([error_dice(score >= threshold, error) for score, error in cases]))


@pytest.mark.parametrize("seed", range(4))
def test_no_candidate_beats_the_chosen_threshold(seed: int) -> None:
    cases = pairs(seed)
    search = ThresholdSearch()
    for score, error in cases:
        search.update(score, error)
    every = [mean_dice(cases, k / LEVELS) for k in range(1, LEVELS + 1)]
    assert search.cases == len(cases)
    assert search.best_dice() == pytest.approx(max(every), abs=1e-12)
    assert mean_dice(cases, search.best()) == pytest.approx(max(every), abs=1e-12)
    assert choose_threshold(cases) == search.best()


def test_cases_count_alike_however_large_their_errors() -> None:
    large = torch.arange(100) < 50
    small = torch.arange(100) < 1
    cases = [(large * 0.25 + 0.25, large), *[(small * 0.25 + 0.5, small)] * 2]
    # pooled voxels would favour a threshold below 0.5, where the two small cases are called wrong as a whole
    assert 0.5 < choose_threshold(cases) <= 0.75


def test_scores_on_a_candidate_belong_to_it() -> None:
    score = torch.tensor([0.25, 0.25, 0.75, 0.75])
    error = torch.tensor([False, False, True, True])
    threshold = choose_threshold([(score, error)])
    assert 0.25 < threshold <= 0.75
    assert threshold == pytest.approx(0.5, abs=0.01), "the middle of equally good thresholds"
    search = ThresholdSearch()
    search.update(score, error)
    # candidates k / 1024: 768 / 1024 = 0.75 still holds the wrong voxels, the next one holds none
    assert search.search.dice_sum[[767, 768]].tolist() == [1.0, 0.0]


def test_perfect_masks_want_nothing_called_wrong() -> None:
    score, none = torch.full((10,), 0.3), torch.zeros(10, dtype=torch.bool)
    threshold = choose_threshold([(score, none)])
    assert threshold > 0.3
    assert mean_dice([(score, none)], threshold) == 1.0


def test_extreme_scores() -> None:
    score, error = torch.tensor([0.0, 1.0, 1.0]), torch.tensor([False, True, False])
    search = ThresholdSearch()
    search.update(score, error)
    assert search.best_dice() == pytest.approx(f1_score(error, score >= 1))


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan")])
def test_scores_outside_the_unit_interval_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        ThresholdSearch().update(torch.tensor([0.5, bad]), torch.tensor([True, False]))


def test_other_bad_input() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        ThresholdSearch().update(torch.zeros(3), torch.zeros(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="no case"):
        choose_threshold([])


def test_searches_of_two_processes_add_up() -> None:
    cases = pairs(9)
    whole, halves = LevelSearch(LEVELS), [LevelSearch(LEVELS), LevelSearch(LEVELS)]
    for i, (score, error) in enumerate(cases):
        for search in (whole, halves[i % 2]):
            search.update((score * LEVELS).int(), error)
    halves[0].cases += halves[1].cases
    halves[0].dice_sum += halves[1].dice_sum
    assert halves[0].best() == pytest.approx(whole.best())
