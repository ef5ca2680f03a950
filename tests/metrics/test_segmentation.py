import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from scipy import ndimage
from scipy.spatial.distance import cdist

from whqa.metrics.over_cases import HausdorffDistance95, SegmentationDice
from whqa.metrics.segmentation import paired_mean_dice, segmentation_dice
from whqa.metrics.surface import hd95_mm, volume_diagonal_mm


def blobs(seed: int, n_classes: int, shape: tuple[int, int, int] = (14, 12, 10)) -> torch.Tensor:
    """Smooth random labels: the largest of random low-frequency fields."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(1, n_classes, 4, 4, 4)))
    return torch.nn.functional.interpolate(coarse, shape, mode="trilinear").argmax(1)[0]


def plain_dice(mask: np.ndarray, reference: np.ndarray, label: int) -> float:
    a, b = mask == label, reference == label
    return 2 * (a & b).sum() / (a.sum() + b.sum()) if (a | b).any() else math.nan


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
@pytest.mark.parametrize("n_classes", [4, 8, 15, 20, 40])
def test_dice_is_its_definition(n_classes: int, dtype: torch.dtype) -> None:
    mask, reference = blobs(0, n_classes).to(dtype), blobs(1, n_classes).to(dtype)
    expected = [plain_dice(mask.numpy(), reference.numpy(), label) for label in range(1, n_classes)]
    np.testing.assert_allclose(segmentation_dice(mask, reference, n_classes), expected, rtol=1e-12)


def test_dice_of_absent_structures() -> None:
    mask, reference = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 1, 0])
    np.testing.assert_array_equal(segmentation_dice(mask, reference, 4), [1.0, 0.0, math.nan])


def test_dice_refuses_bad_labels() -> None:
    with pytest.raises(ValueError, match="label 3 does not fit 3 classes"):
        segmentation_dice(torch.tensor([3]), torch.tensor([0]), 3)
    with pytest.raises(ValueError, match="differ in shape"):
        segmentation_dice(torch.zeros(2), torch.zeros(3), 3)


# MONAI 1.6 calls a function of its own in a way that it deprecates
@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 10.0)])
@pytest.mark.parametrize("seed", range(3))
def test_hd95_is_monais(seed: int, spacing: tuple[float, float, float]) -> None:
    mask, reference = blobs(seed, 4), blobs(seed + 10, 4)
    one_hot = [torch.nn.functional.one_hot(m, 4).movedim(-1, 0)[None] for m in (mask, reference)]
    expected = compute_hausdorff_distance(*one_hot, percentile=95, spacing=spacing)[0].numpy()
    np.testing.assert_allclose(hd95_mm(mask, reference.to(torch.uint8), spacing, 4), expected, rtol=1e-5)


@pytest.mark.parametrize("apart", [1, 4, 20])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.5, 0.7, 8.0)])
def test_hd95_of_near_and_far_surfaces_is_its_definition(apart: int, spacing: tuple[float, float, float]) -> None:
    """Surfaces by scipy's erosion, distances of all pairs of voxels; part of the mask is where it should be."""
    reference = torch.zeros(12, 14, 40, dtype=torch.uint8)
    reference[2:9, 3:10, 2:12] = 1
    reference[0:5, 0:4, 20:40] = 2
    mask = torch.roll(reference, apart, dims=2)
    mask[:6] = reference[:6]
    expected = []
    for label in (1, 2):
        both = [np.pad((m == label).numpy(), 1) for m in (mask, reference)]
        a, b = (np.argwhere(m & ~ndimage.binary_erosion(m)) * spacing for m in both)
        distance = cdist(a, b)
        expected.append(max(np.percentile(distance.min(axis=k), 95) for k in (0, 1)))
    np.testing.assert_allclose(hd95_mm(mask, reference, spacing, 3), expected, rtol=1e-12)


def test_hd95_of_a_shifted_box_in_mm() -> None:
    mask, reference = torch.zeros(2, 20, 20, 20, dtype=torch.uint8)
    mask[4:8, 5:9, 5:9], reference[7:11, 5:9, 5:9] = 1, 1
    assert hd95_mm(mask, reference, (2.0, 1.0, 1.0), 2) == [6.0]
    assert hd95_mm(mask, mask, (2.0, 1.0, 1.0), 2) == [0.0]


def test_hd95_of_absent_structures() -> None:
    mask, reference = torch.zeros(2, 4, 5, 6, dtype=torch.int64)
    mask[1, 1, 1] = 1
    diagonal = math.sqrt(4**2 + 10**2 + 18**2)
    np.testing.assert_allclose(hd95_mm(mask, reference, (1, 2, 3), 3), [diagonal, math.nan])
    np.testing.assert_allclose(hd95_mm(reference, mask, (1, 2, 3), 3), [diagonal, math.nan])
    assert volume_diagonal_mm((4, 5, 6), (1, 2, 3)) == pytest.approx(diagonal)


def test_classes_average_over_cases_and_count_misses() -> None:
    dice, surface = SegmentationDice(("lv", "rv", "la")), HausdorffDistance95(("lv", "rv", "la"))
    values = []
    for index in range(3):
        mask, reference = blobs(index, 3), blobs(index + 20, 3)
        if index == 1:
            mask[mask == 2] = 0
        dice.update(index, mask, reference)
        surface.update(index, mask, reference, torch.tensor([1.0, 1.0, 2.0]))
        both = (segmentation_dice(mask, reference, 4), hd95_mm(mask, reference, (1, 1, 2), 4))
        values.append(both)
    for metric, name, table in ((dice, "dice", [v[0] for v in values]), (surface, "hd95", [v[1] for v in values])):
        found = {key: float(value) for key, value in metric.compute().items()}
        expected = np.mean(np.array(table)[:, :2], axis=0)
        assert found[f"{name}_lv"] == pytest.approx(expected[0], rel=1e-6)
        assert found[f"{name}_rv"] == pytest.approx(expected[1], rel=1e-6)
        assert math.isnan(found[f"{name}_la"])
        assert found[name] == pytest.approx(expected.mean(), rel=1e-6)
    assert float(surface.compute()["hd95_missed"]) == 1


def test_paired_means_are_over_the_same_structures() -> None:
    rng, nan = np.random.default_rng(0), float("nan")
    before, after = rng.random((5, 4)), rng.random((5, 4))
    before[1, 0] = after[1, 0] = nan
    before[2, 1], after[2, 1] = nan, 0.0
    before[3, 2], after[3, 2] = 0.0, nan
    before[4], after[4] = nan, nan
    first, second = paired_mean_dice(before, after)
    np.testing.assert_allclose(first[0], before[0].mean())
    np.testing.assert_allclose(second[1] - first[1], (after[1, 1:] - before[1, 1:]).mean())
    changed = after - before
    np.testing.assert_allclose(second[2] - first[2], (np.delete(changed[2], 1).sum() - 1) / 4)
    np.testing.assert_allclose(second[3] - first[3], (np.delete(changed[3], 2).sum() + 1) / 4)
    assert np.isnan([first[4], second[4]]).all()
