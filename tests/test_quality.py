import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from whqa.quality import (
    HEART_MARGIN_MM,
    ErrorPrediction,
    JudgedCase,
    box_around,
    count,
    error_map,
    heart_region,
    kept_with,
    one_minus_mean,
    stratum,
    within,
)


def near(mask: np.ndarray, spacing: tuple[float, ...], margin: float) -> np.ndarray:
    """Voxels at most `margin` mm from the foreground, by comparing all pairs."""
    places = np.argwhere(np.ones(mask.shape)) * spacing
    return (cdist(places, np.argwhere(mask) * spacing).min(axis=1) <= margin).reshape(mask.shape)


def test_error_map_is_where_labels_differ() -> None:
    mask, reference = torch.tensor([0, 1, 2, 2], dtype=torch.uint8), torch.tensor([0, 1, 1, 0])
    assert error_map(mask, reference).tolist() == [False, False, True, True]
    with pytest.raises(ValueError, match="differ in shape"):
        error_map(mask, reference[:3])


def test_accuracy_and_indicator_over_a_region() -> None:
    values, region = torch.tensor([1.0, 0.5, 0.0, 0.25]), torch.tensor([True, True, False, False])
    assert one_minus_mean(values) == pytest.approx(1 - 1.75 / 4)
    assert one_minus_mean(values, region) == pytest.approx(0.25)
    assert one_minus_mean(values > 0, region) == 0.0
    assert one_minus_mean(values, torch.zeros(4, dtype=torch.bool)) == 1.0


def test_the_mean_of_a_large_volume_keeps_single_voxels() -> None:
    values = torch.zeros(2**25, dtype=torch.bool)
    values[:3] = True
    assert 1 - one_minus_mean(values) == pytest.approx(3 / 2**25, rel=1e-6)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.bool, torch.uint8])
def test_the_values_in_a_region_come_as_indexing_gives_them(kind: torch.dtype) -> None:
    values = torch.arange(60).view(5, 4, 3).to(kind).movedim(0, 2)
    region = torch.arange(60).view(4, 3, 5) % 7 < 3
    assert torch.equal(within(values, region), values[region])
    assert within(values, region).dtype == kind
    assert count(region) == int(region.sum())
    assert within(values, torch.zeros_like(region)).shape == (0,)


@pytest.mark.parametrize("region", [None, torch.tensor([True, True, False, True]), torch.zeros(4, dtype=torch.bool)])
def test_maps_and_their_values_have_the_same_mean(region: torch.Tensor | None) -> None:
    wrong = torch.tensor([True, False, True, False])
    assert one_minus_mean(wrong, region) == one_minus_mean(wrong.double(), region)


def test_a_box_reaches_as_far_as_the_volume_at_most() -> None:
    inside = np.zeros((6, 7, 8), dtype=bool)
    inside[2:4, 5, 7] = True
    assert box_around(inside, (1, 1, 2)) == (slice(1, 5), slice(4, 7), slice(5, 8))
    assert box_around(np.zeros((2, 3, 4), dtype=bool), (1, 1, 1)) == (slice(0, 2), slice(0, 3), slice(0, 4))


def test_quality_follows_from_calibrated_probabilities_and_else_from_the_map() -> None:
    p, region = torch.tensor([0.1, 0.2, 0.6, 0.9]), torch.tensor([True, False, True, False])
    for calibrated, volume, heart in ((True, 0.55, 0.65), (False, 0.5, 0.5)):
        found = ErrorPrediction(p, p >= 0.5, calibrated=calibrated)
        assert found.quality() == pytest.approx(volume)
        assert found.quality(region) == pytest.approx(heart)


def test_a_stratum_is_told_by_errors_and_mean_dice() -> None:
    found = [stratum(dice, True) for dice in (1.0, 0.95, 0.949, 0.85, 0.849, 0.7, 0.699, 0.0)]
    assert found == ["mild", "mild", "good", "good", "fair", "fair", "bad", "bad"]
    assert stratum(1.0, False) == stratum(float("nan"), False) == "reference"


def test_an_opinion_of_another_shape_is_refused() -> None:
    labels = torch.zeros(3, 4, 5, dtype=torch.uint8)
    for name in ("log_p", "ensemble", "tta"):
        with pytest.raises(ValueError, match=r"case a, mask final: opinion .* differ in shape"):
            JudgedCase(
                "a", "final", torch.zeros(3, 4, 5), labels, None, None, (1, 1, 1), **{name: torch.zeros(2, 3, 4, 6)}
            )


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (4.0, 2.5, 10.0), (1.5, 3.0, 7.0)])
@pytest.mark.parametrize("margin", [0.0, 4.0, HEART_MARGIN_MM])
def test_heart_region_is_the_mask_dilated_in_mm(spacing: tuple[float, float, float], margin: float) -> None:
    mask = np.zeros((13, 12, 11), dtype=np.int64)
    mask[5:7, 4, 5], mask[0, 0, 0], mask[8, 9, 2] = 3, 1, 7
    found = heart_region(torch.from_numpy(mask), spacing, margin)
    assert found.dtype == torch.bool
    np.testing.assert_array_equal(found.numpy(), near(mask, spacing, margin))


def test_heart_region_does_not_change_with_the_crop() -> None:
    mask = torch.zeros(40, 40, 40, dtype=torch.uint8)
    mask[18:22, 17:23, 19:21] = 2
    inner = (slice(4, 36),) * 3
    assert torch.equal(heart_region(mask, (1, 1, 1))[inner], heart_region(mask[inner], (1, 1, 1)))
    assert heart_region(mask, (1, 1, 1)).sum() == heart_region(mask[inner], (1, 1, 1)).sum()


def test_heart_region_without_foreground_is_the_volume() -> None:
    assert heart_region(torch.zeros(3, 4, 5, dtype=torch.uint8), (1, 1, 1)).all()


def test_a_mask_with_another_opinion_says_what_that_would_draw() -> None:
    mask = torch.zeros(4, 4, 4, dtype=torch.uint8)
    log_p, views = torch.randn(2, 2, 4, 4, 4).log_softmax(1)
    case = JudgedCase("a", "final", torch.zeros(4, 4, 4), mask, mask, None, (1.0, 1.0, 1.0), log_p, tta=views)
    assert torch.equal(case.drawn, log_p.argmax(0))
    assert torch.equal(case.hearing("tta").drawn, views.argmax(0))
    with pytest.raises(ValueError, match="no second opinion"):
        assert case.hearing(None).drawn is not None


class _Sum:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, values: torch.Tensor, power: int = 1) -> float:
        self.asked += 1
        return float((values**power).sum())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_what_follows_from_the_same_memory_is_found_once(mode: type) -> None:
    """Of torch this wants that a storage is one object, whichever view of it is asked."""
    values, total = torch.rand(3, 4), _Sum()
    with mode():
        for _ in range(3):
            batch = values[None]
            assert kept_with(batch[0].float(), total) == kept_with(values, total) == float(values.sum())
        assert total.asked == 1
        assert kept_with(values, total, 2) == float((values**2).sum())
        assert kept_with(values[:2], total) == float(values[:2].sum())
        assert kept_with(values.clone(), total) == float(values.sum())
        assert kept_with(values.view(torch.int32), total) != float(values.sum())
    assert total.asked == 5


def test_what_is_written_in_place_is_asked_again() -> None:
    values, total = torch.rand(3, 4), _Sum()
    before = kept_with(values, total)
    values[1:].add_(1)
    assert kept_with(values, total) == float(values.sum()) != before


def test_nothing_is_kept_of_what_is_gone() -> None:
    total = _Sum()
    for number in range(5):
        assert kept_with(torch.full((7,), float(number)), total) == 7 * number
    assert total.asked == 5


def test_masks_of_a_case_share_what_its_opinion_would_draw() -> None:
    log_p = torch.randn(3, 4, 4, 4).log_softmax(0)
    cases = [
        JudgedCase("a", kind, torch.zeros(4, 4, 4), mask, None, None, (1.0, 1.0, 1.0), log_p[None][0])
        for kind, mask in (("final", torch.zeros(4, 4, 4)), ("early", torch.ones(4, 4, 4)))
    ]
    assert cases[0].drawn is cases[1].drawn
    assert torch.equal(cases[0].surest, log_p.amax(0))
    with pytest.raises(ValueError, match="no second opinion"):
        assert cases[0].hearing(None).surest is not None
