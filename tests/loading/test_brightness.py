"""How bright structures are under a mask, against numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage, stats

from whqa.loading.brightness import FEWEST_VOXELS, NARROWEST, brightness

SHAPE, SPACING = (16, 15, 14), (2.0, 3.0, 4.0)
LEVELS = (-1.0, 0.5, 2.0, 3.0)


def _scan(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:12, 4:11, 4:7], mask[4:12, 4:11, 7:9], mask[4, 4, 4] = 1, 2, 3
    return np.array(LEVELS)[mask] + rng.normal(0, 0.3, SHAPE), mask


def test_structures_have_the_median_and_the_scaled_absolute_deviation() -> None:
    image, mask = _scan()
    found = brightness(image, mask, SPACING, 4)
    assert (found.shape, found.dtype) == ((4, 2), np.float32)
    for label in (1, 2):
        inside = image[mask == label]
        expected = np.median(inside), stats.median_abs_deviation(inside, scale="normal")
        np.testing.assert_allclose(found[label], expected, rtol=1e-4)


def test_background_is_what_surrounds_the_heart() -> None:
    image, mask = _scan()
    image[0, 0, 0] = 1e6
    near = ndimage.distance_transform_edt(mask == 0, sampling=SPACING) <= 10
    around = image[near & (mask == 0)]
    assert not near[0, 0, 0]
    np.testing.assert_allclose(brightness(image, mask, SPACING, 4)[0], (around.mean(), around.std()), rtol=1e-4)


def test_a_structure_of_few_voxels_or_none_says_nothing() -> None:
    image, mask = _scan()
    inside = image[mask > 0]
    found = brightness(image, mask, SPACING, 6)
    for label in (3, 4, 5):
        np.testing.assert_allclose(found[label], (inside.mean(), 2 * inside.std()), rtol=2e-3)
    mask[5, 4:8, 4:9] = 3
    assert (mask == 3).sum() == FEWEST_VOXELS + 1
    assert not np.allclose(brightness(image, mask, SPACING, 6)[3], found[3], rtol=0.01)


def test_a_share_of_wrong_voxels_moves_little() -> None:
    image, mask = _scan()
    spoiled = mask.copy()
    spoiled[4:12, 4:11, 7] = 1
    before, after = (brightness(image, m, SPACING, 4)[1, 0] for m in (mask, spoiled))
    mean_moves = abs(image[spoiled == 1].mean() - image[mask == 1].mean())
    assert abs(after - before) < 0.5 * mean_moves


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_an_even_image_has_a_spread(value: float) -> None:
    _, mask = _scan()
    found = brightness(np.full(SHAPE, value), mask, SPACING, 4)
    assert (found[:, 1] > 0).all()
    np.testing.assert_allclose(found[:, 0], value)


def test_the_spread_is_at_least_a_tenth_of_that_of_the_foreground() -> None:
    image, mask = _scan()
    image[mask == 1] = 7.0
    found = brightness(image, mask, SPACING, 4)
    assert found[1, 1] == pytest.approx(NARROWEST * (image[mask > 0].std() + 1e-3), rel=1e-3)


def test_an_empty_mask_has_finite_numbers() -> None:
    image, mask = _scan()
    found = brightness(image, np.zeros_like(mask), SPACING, 4)
    assert np.isfinite(found).all()
    assert (found[:, 1] > 0).all()
    np.testing.assert_allclose(found[1:, 0], image.mean(), rtol=1e-4)
    np.testing.assert_allclose(found[0], (image.mean(), image.std()), rtol=1e-3)
