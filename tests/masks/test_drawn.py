"""Masks drawn from a program's softmax: as often what it says as it says, coherent, of the stated quality."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from whqa.masks.drawn import draw_labels, drawn_masks
from whqa.masks.opinion import encode
from whqa.masks.plan import AUGMENTED_KINDS

SPACING = (2.0, 2.0, 2.0)


def _codes(p_CDHW: np.ndarray) -> np.ndarray:
    return encode(torch.from_numpy(np.log(np.maximum(p_CDHW, 1e-30))).float())


def _flat(*p: float, size: int = 32) -> np.ndarray:
    return _codes(np.array(p)[:, None, None, None] * np.ones((1, size, size, size)))


def _draw(codes: np.ndarray, seed: int, wavelength: float = 2.0, blur: float = 0.0) -> np.ndarray:
    return draw_labels(codes, SPACING, wavelength, blur, np.random.default_rng(seed))


@pytest.mark.parametrize("p", [(0.6, 0.3, 0.1), (0.9, 0.02, 0.08), (0.25, 0.5, 0.25)])
def test_a_label_is_drawn_as_often_as_its_probability_says(p: tuple[float, ...]) -> None:
    codes = _flat(*p)
    shares = np.mean([np.bincount(_draw(codes, seed).ravel(), minlength=3) for seed in range(4)], axis=0) / 32**3
    # the rounding of what is stored is 2 % of p
    np.testing.assert_allclose(shares, p, atol=0.02)


def test_a_voxel_has_each_label_as_often_as_its_own_probability_says() -> None:
    p = np.linspace(0.05, 0.95, 16)[:, None, None] * np.ones((1, 16, 16))
    codes = _codes(np.stack([1 - p, p]))
    found = np.mean([_draw(codes, seed, wavelength=6.0) for seed in range(60)], axis=0)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), p[:, 0, 0], atol=0.06)


def test_what_is_less_probable_than_can_be_told_is_never_drawn() -> None:
    sure = _flat(1 - 1e-6, 1e-6)
    assert not any(_draw(sure, seed).any() for seed in range(5))


def test_neighbours_err_together_the_more_the_longer_the_wavelength() -> None:
    codes = _flat(0.8, 0.2)

    def changes(wavelength: float) -> float:
        drawn = [_draw(codes, seed, wavelength) for seed in range(3)]
        return float(np.mean([(np.diff(mask, axis=axis) != 0).mean() for mask in drawn for axis in range(3)]))

    # labels drawn without regard to neighbours differ from them at 0.32 of the places
    assert changes(40.0) < changes(10.0) < 0.16


def test_a_blurred_softmax_is_less_like_its_own_most_probable_labels(even_heart: Any) -> None:
    labels, spacing = even_heart.mask[::2, ::2, ::2], (8.0, 8.0, 8.0)
    codes = _codes(np.stack([ndimage.gaussian_filter((labels == c).astype(float), 0.5) for c in range(8)]))
    differing = []
    for blur in (0.0, 6.0, 12.0):
        drawn = [draw_labels(codes, spacing, 20.0, blur, np.random.default_rng(seed)) for seed in (1, 2)]
        differing.append(float(np.mean([(mask != labels).mean() for mask in drawn])))
    assert 0 < differing[0] < differing[1] < differing[2]


def test_there_is_one_of_each_kind_drawn_from_case_and_seed_alone() -> None:
    codes = _flat(0.5, 0.3, 0.2, size=16)
    first, again = (dict(drawn_masks("a", codes, SPACING, 3)) for _ in range(2))
    assert tuple(first) == AUGMENTED_KINDS
    for kind, mask in first.items():
        assert (mask.dtype, mask.shape) == (np.uint8, (16, 16, 16))
        np.testing.assert_array_equal(again[kind], mask)
        for other in (dict(drawn_masks("b", codes, SPACING, 3)), dict(drawn_masks("a", codes, SPACING, 4))):
            assert (other[kind] != mask).any()
