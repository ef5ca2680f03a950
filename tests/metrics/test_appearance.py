"""What image and mask look like in numbers, without a grid of a file; `tests/results/test_features.py` has the rest."""

from __future__ import annotations

import numpy as np
import pytest

from whqa.metrics.appearance import OF_IMAGE, OF_STRUCTURE, of_image, of_mask

SPACING = (2.0, 1.0, 1.0)


def test_two_boxes_have_the_volumes_places_and_contrast_that_were_drawn() -> None:
    mask = np.zeros((20, 30, 30), np.uint8)
    mask[4:8, 5:15, 5:15], mask[10:14, 5:15, 5:15] = 1, 2
    image = np.array([-1.0, 0.0, 0.5], np.float32)[mask]
    found = of_mask(image, mask, SPACING, ("a", "b", "c"))
    assert set(found) == {"heart_ml"} | {f"{name}_{s}" for s in "abc" for name in OF_STRUCTURE}
    assert found["volume_a"] == found["volume_b"] == pytest.approx(4 * 10 * 10 * 2 / 1000)
    assert found["contrast_b"] == -found["contrast_a"] == pytest.approx(0.5)
    assert found["offset_lr_b"] - found["offset_lr_a"] == pytest.approx(6 * 2.0)
    assert (found["components_a"], found["volume_c"]) == (1, 0)
    assert np.isnan(found["roughness_c"])
    seen = of_image(image, mask, SPACING)
    assert set(seen) == set(OF_IMAGE)
    assert seen["explained"] == pytest.approx(1.0)
    assert (seen["inside_p05"], seen["inside_p95"], seen["noise"]) == (0.0, 0.5, 0.0)
    assert seen["edge"] > 1
