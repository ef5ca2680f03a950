"""Kernels, layouts in memory and ties, against torch and plain sums."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch

from whqa.data.resample import Line, interpolate, interpolate_labels, labelled_box


def scaled(size: int, target: int) -> Line:
    """The same extent in another number of voxels."""
    return Line((size / target - 1) / 2, size / target, target)


@pytest.mark.parametrize("target", [(5, 3), (12, 10), (31, 29), (9, 13)])
@pytest.mark.parametrize(("kernel", "mode"), [("cubic", "bicubic"), ("linear", "bilinear")])
def test_kernels_are_those_of_torch(kernel: Any, mode: str, target: tuple[int, int]) -> None:
    """torch's anti-aliased bicubic is Keys' kernel with a = -1/2, normalised within the image."""
    array = np.random.default_rng(0).normal(size=(12, 10, 8)).astype("float32")
    lines = [scaled(12, target[0]), scaled(10, target[1]), Line(0.0, 1.0, 8)]
    images = torch.from_numpy(array).permute(2, 0, 1)[:, None]
    expected = torch.nn.functional.interpolate(images, size=target, mode=mode, antialias=True)[:, 0].permute(1, 2, 0)
    result = interpolate(array, lines, kernel=kernel)
    # voxels beyond the outermost source voxel are where we replicate the edge and torch does not
    inner = tuple(
        slice(*np.flatnonzero((line.positions() >= 0) & (line.positions() <= size - 1))[[0, -1]] + [0, 1])
        for line, size in zip(lines, array.shape, strict=True)
    )
    np.testing.assert_allclose(result[inner], expected.numpy()[inner], atol=1e-5)


@pytest.mark.parametrize("kernel", ["cubic", "linear"])
def test_result_does_not_depend_on_the_layout_in_memory(kernel: Any) -> None:
    rng = np.random.default_rng(0)
    array, labels = rng.normal(size=(11, 19, 14)).astype("float32"), rng.integers(0, 3, (11, 19, 14)).astype("uint8")
    lines = [Line(-0.7, 2.3, 7), Line(1.0, 1.0, 15), Line(-3.0, 0.4, 60)]
    expected, classes = interpolate(array, lines, -1.5, kernel), interpolate_labels(labels, lines)
    assert {-1.5, *expected[:, :, 0].ravel()} == {-1.5}
    for order, flips in product(permutations(range(3)), product((1, -1), repeat=3)):
        back, mirror = np.argsort(order), tuple(slice(None, None, f) for f in flips)
        stored, stored_labels = (
            np.ascontiguousarray(a[mirror].transpose(order)).transpose(back)[mirror] for a in (array, labels)
        )
        np.testing.assert_array_equal(stored, array)
        np.testing.assert_allclose(interpolate(stored, lines, -1.5, kernel), expected, atol=1e-5)
        np.testing.assert_array_equal(interpolate_labels(stored_labels, lines), classes)


def test_values_are_clipped_before_they_spread() -> None:
    array = np.random.default_rng(0).normal(scale=500, size=(9, 10, 11))
    lines = [Line(0.3, 1.7, 5), Line(0.0, 0.8, 12), Line(1.0, 1.0, 9)]
    for stored in (array.astype("int16"), array.astype("float32"), array):
        clipped = interpolate(np.clip(stored, -200, 300), lines, kernel="cubic")
        np.testing.assert_allclose(interpolate(stored, lines, kernel="cubic", limits=(-200, 300)), clipped, atol=1e-3)
    assert interpolate(array, lines, limits=(-200, 300)).min() >= -200


def test_ties_go_to_the_structure_with_the_lower_index() -> None:
    line, whole = Line(0.5, 1.0, 1), [Line(0.0, 1.0, 1)] * 2
    for pair, winner in (((0, 3), 3), ((3, 0), 3), ((1, 3), 1), ((3, 1), 1), ((0, 0), 0)):
        labels = np.array(pair, dtype="uint8").reshape(2, 1, 1)
        assert interpolate_labels(labels, [line, *whole]).item() == winner
    corners = np.array([0, 0, 2, 2, 1, 1, 0, 2], dtype="uint8").reshape(2, 2, 2)
    assert interpolate_labels(corners, [line] * 3).item() == 2
    assert interpolate_labels(corners, [Line(0.45, 1.0, 1), line, line]).item() == 2
    assert interpolate_labels(np.where(corners == 2, 0, corners), [line] * 3).item() == 0


def test_labels_of_one_voxel_and_of_none() -> None:
    labels = np.zeros((5, 6, 7), dtype="uint8")
    lines = [Line(-1.0, 0.5, 14)] * 3
    assert labelled_box(labels) is None
    assert not interpolate_labels(labels, lines).any()
    labels[0, 5, 3] = 9
    assert labelled_box(labels) == np.s_[0:1, 5:6, 3:4]
    found = interpolate_labels(labels, lines)
    # its cube: up to the middle to its neighbours, or to the edge of the volume
    assert labelled_box(found) == np.s_[1:4, 11:14, 7:10]
    assert np.unique(found[1:4, 11:14, 7:10]).tolist() == [0, 9]
