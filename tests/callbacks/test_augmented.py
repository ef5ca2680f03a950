"""Augmented views of an image: back on the grid, natural, the same again; and their mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from whqa.callbacks.augmented import augmented_view, mask_of_view
from whqa.loading.augmentation import Augmentation

SPACING = (3.0, 2.0, 2.0)
TURNED = Augmentation(rotate_deg=(20, 20, 20), scale=0.2, intensity_shift=0.1, noise=0.0, gamma=0.0)


def _volume() -> tuple[Tensor, Tensor]:
    """An image of a bright and a dark blob, and its labels."""
    grid = np.indices((24, 36, 40)).transpose(1, 2, 3, 0) * SPACING
    radius = [np.linalg.norm(grid - middle, axis=-1) for middle in ((36, 26, 26), (36, 46, 52))]
    image = np.clip((14 - radius[0]) / 3, 0, 1) - np.clip((12 - radius[1]) / 3, 0, 1)
    labels = np.select([radius[1] < 10.5, radius[0] < 12.5], [2, 1], 0)
    return torch.from_numpy(image).float(), torch.from_numpy(labels.astype(np.uint8))


def _segment(image: Tensor) -> Tensor:
    """By brightness: log p of three labels."""
    return torch.stack([-20 * (image - level).abs() for level in (0.0, 1.0, -1.0)]).log_softmax(dim=0)


def _made(log_p: Callable[[Tensor], Tensor] = _segment, changes: Augmentation = TURNED, seed: int = 0) -> np.ndarray:
    _, final = _volume()
    return mask_of_view(_view(log_p, changes, seed), final).numpy()


def _view(log_p: Callable[[Tensor], Tensor], changes: Augmentation, seed: int) -> Tensor:
    return augmented_view(log_p, _volume()[0], SPACING, changes, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(5))
def test_structures_come_back_to_their_places(seed: int) -> None:
    _, final = _volume()
    made = _made(seed=seed)
    assert (made.dtype, made.shape) == (np.uint8, tuple(final.shape))
    for index in (1, 2):
        before, after = final.numpy() == index, made == index
        assert 2 * (before & after).sum() / (before.sum() + after.sum()) > 0.9
        np.testing.assert_allclose(ndimage.center_of_mass(after), ndimage.center_of_mass(before), atol=0.4)
    # the borders are not those of the final mask
    assert (made != final.numpy()).any()


def test_the_segmenter_sees_a_turned_image_of_other_brightness() -> None:
    image, _ = _volume()
    seen: list[Tensor] = []

    def log_p(shown: Tensor) -> Tensor:
        seen.append(shown)
        return _segment(shown)

    _made(log_p, Augmentation(rotate_deg=(0, 0, 40), scale=0.0, noise=0.0, gamma=0.0, probability=0.0))
    (shown,) = seen
    assert shown.shape == image.shape
    assert float((shown - image).abs().mean()) > 0.02


def test_where_the_augmented_image_does_not_reach_the_mask_is_the_final_one() -> None:
    _, final = _volume()
    marked = final.clone()
    marked[0], marked[-1] = 2, 2
    # never an error inside: all that is left is what was not reached
    made = mask_of_view(_view(_segment, Augmentation(rotate_deg=(80, 0, 0), scale=0.0), 3), marked)
    assert (made[0] == 2).any()
    assert (made[final.shape[0] // 2] != 2).any()


def test_the_same_draw_makes_the_same_mask_and_another_another() -> None:
    np.testing.assert_array_equal(_made(seed=4), _made(seed=4))
    assert (_made(seed=4) != _made(seed=5)).any()


def test_hearts_are_never_mirrored() -> None:
    turned: dict[str, Any] = {"rotate_deg": (0, 0, 0), "scale": 0.0, "noise": 0.0, "gamma": 0.0}
    _, final = _volume()
    mirrored = _made(changes=Augmentation(flip=(2,), **turned))
    np.testing.assert_array_equal(mirrored, _made(changes=Augmentation(**turned)))
    assert (mirrored == final.numpy()).mean() > 0.99
