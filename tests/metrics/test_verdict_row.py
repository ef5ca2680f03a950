import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn.metrics import average_precision_score, f1_score

from whqa.metrics.error_places import PLACE_COLUMNS
from whqa.metrics.error_sizes import SIZE_COLUMNS
from whqa.metrics.verdict_row import JUDGE_COLUMNS, judge
from whqa.quality import ErrorPrediction, JudgedCase

SHAPE, SPACING = (9, 8, 6), (2.0, 3.0, 5.0)


def judged(seed: int) -> tuple[JudgedCase, ErrorPrediction]:
    rng = np.random.default_rng(seed)
    mask = torch.zeros(SHAPE, dtype=torch.uint8)
    mask[4:6, 3:5, 2:3] = 1
    reference = torch.where(torch.from_numpy(rng.random(SHAPE) < 0.1), 1, mask.long())
    probability = torch.from_numpy(rng.random(SHAPE)).float()
    case = JudgedCase("c", "final", torch.zeros(SHAPE), mask, reference, None, SPACING)
    return case, ErrorPrediction(probability, probability >= 0.7)


def near_heart(mask: np.ndarray) -> np.ndarray:
    """Voxels at most 10 mm from the foreground, by comparing all pairs."""
    places = np.argwhere(np.ones(SHAPE)) * SPACING
    return (cdist(places, np.argwhere(mask) * SPACING).min(axis=1) <= 10.0).reshape(SHAPE)


def places_of(called: np.ndarray, error: np.ndarray) -> dict[str, float]:
    """Places, where no wrong one is large enough; a voxel has 0.03 ml."""
    sizes, shown = (np.bincount(ndimage.label(one)[0].ravel())[1:] * 0.03 for one in (error, called))
    assert (sizes < 1).all()
    wrong = ndimage.mean(error, ndimage.label(called)[0], np.arange(1, len(shown) + 1))
    return {"true_places": 0, "found_places": 0, "false_places": ((shown >= 1) & (wrong < 0.1)).sum()}


def sizes_of(called: np.ndarray, error: np.ndarray) -> dict[str, float]:
    """No error of noise is thick, no structure missing, no place large enough."""
    assert not ndimage.binary_erosion(error).any()
    row = dict.fromkeys(SIZE_COLUMNS, 0.0)
    return row | {"thin_voxels": error.sum(), "thin_hit_voxels": (error & called).sum()}


@pytest.mark.parametrize("seed", range(3))
def test_row_is_an_independent_computation(seed: int) -> None:
    case, prediction = judged(seed)
    error = case.mask.numpy() != case.reference.numpy()
    called, probability = prediction.error_map.numpy(), prediction.probability.numpy()
    heart = near_heart(case.mask.numpy())
    assert 0 < heart.sum() < heart.size
    expected = {
        "error_dice": f1_score(error.ravel(), called.ravel()),
        "error_auprc": average_precision_score(error.ravel(), probability.ravel()),
        "voxels": error.size,
        "error_voxels": error.sum(),
        "predicted_voxels": called.sum(),
        "hit_voxels": (error & called).sum(),
        "acc_volume": (~error).mean(),
        "qi_volume": (~called).mean(),
        "qi_soft_volume": (1 - probability).mean(),
        "acc_heart": (~error)[heart].mean(),
        "qi_heart": (~called)[heart].mean(),
        "qi_soft_heart": (1 - probability)[heart].mean(),
        "opinion_dice": 0.75,
        "pairwise_dice": math.nan,
        **places_of(called, error),
        **sizes_of(called, error),
    }
    found = judge(case, replace(prediction, agreement={"opinion_dice": 0.75}))
    assert tuple(found) == JUDGE_COLUMNS == tuple(expected)
    assert all(type(value) is float for value in found.values())
    assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_places_are_those_that_the_error_map_shows() -> None:
    """Voxels of a millilitre in a row: wrong are 0 to 9 and 20 to 22, shown 5 to 6 and 40 to 44."""
    mask, shown = torch.zeros(1, 1, 60, dtype=torch.uint8), torch.zeros(1, 1, 60, dtype=torch.bool)
    reference = mask.long()
    reference[0, 0, [*range(10), 20, 21, 22]] = 1
    shown[0, 0, [5, 6, *range(40, 45)]] = True
    case = JudgedCase("c", "final", torch.zeros(1, 1, 60), mask, reference, None, (10.0, 10.0, 10.0))
    row = judge(case, ErrorPrediction(torch.zeros(1, 1, 60), shown))
    assert [row[name] for name in PLACE_COLUMNS] == [2, 1, 1]


@pytest.mark.gpu
def test_row_is_the_same_on_a_gpu() -> None:
    case, prediction = judged(0)
    image, mask, reference = (values.cuda() for values in (case.image, case.mask, case.reference))
    there = JudgedCase("c", "final", image, mask, reference, None, SPACING)
    found = judge(there, ErrorPrediction(prediction.probability.cuda(), prediction.error_map.cuda()))
    assert found == pytest.approx(judge(case, prediction), abs=1e-9, nan_ok=True)


def test_a_perfect_mask() -> None:
    case, prediction = judged(0)
    perfect = JudgedCase("c", "final", case.image, case.mask, case.mask, None, SPACING)
    quiet = ErrorPrediction(torch.zeros(SHAPE), torch.zeros(SHAPE, dtype=torch.bool))
    row = judge(perfect, quiet)
    assert (row["error_dice"], row["acc_volume"], row["qi_soft_heart"]) == (1.0, 1.0, 1.0)
    assert math.isnan(row["error_auprc"])
    assert judge(perfect, prediction)["error_dice"] == 0.0


def test_an_empty_mask_is_judged_on_the_whole_volume() -> None:
    case, prediction = judged(1)
    empty = JudgedCase("c", "final", case.image, torch.zeros_like(case.mask), case.reference, None, SPACING)
    row = judge(empty, prediction)
    assert row["acc_heart"] == row["acc_volume"]
    assert row["qi_heart"] == row["qi_volume"]


def test_without_reference_nothing_is_judged() -> None:
    case, prediction = judged(0)
    unknown = JudgedCase("c", "side1", case.image, case.mask, None, None, SPACING)
    with pytest.raises(ValueError, match="case c, mask side1: no reference"):
        judge(unknown, prediction)


def test_shapes_must_agree() -> None:
    case, _ = judged(0)
    with pytest.raises(ValueError, match="entropy"):
        JudgedCase("c", "final", case.image, case.mask, None, torch.zeros(2, 2, 2), SPACING)
    with pytest.raises(ValueError, match="must be bool"):
        ErrorPrediction(torch.zeros(2, 2), torch.zeros(2, 2))
    small = ErrorPrediction(torch.zeros(2, 2, 2), torch.zeros(2, 2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="of one shape"):
        judge(case, small)
