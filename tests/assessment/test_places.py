"""Pieces that are more probably wrong than right, against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from whqa.assessment.places import wrong_places

KEYS = ("lv", "rv")


def _doubts() -> tuple[np.ndarray, np.ndarray]:
    p, mask = np.full((12, 12, 12), 0.1), np.zeros((12, 12, 12), np.uint8)
    mask[:, :, :6], mask[:, :, 6:9] = 1, 2
    p[1:4, 1:4, 1:4] = 0.5
    p[6:10, 6:10, 6:10] = 0.9
    p[0, 11, 11] = 1.0
    return p, mask


def test_pieces_are_told_with_size_structure_and_a_voxel_inside_the_largest_first() -> None:
    p, mask = _doubts()
    found = wrong_places(p, mask, KEYS, voxel_ml=0.1)
    assert [(round(place["ml"], 6), place["structure"]) for place in found] == [(6.4, "rv"), (2.7, "lv")]
    for place, (low, high) in zip(found, ((6, 10), (1, 4)), strict=True):
        assert all(low <= at < high for at in place["voxel"])
    assert found[1]["voxel"] == [2, 2, 2], "the deepest"


def test_a_piece_of_less_than_a_millilitre_is_not_told() -> None:
    p, mask = _doubts()
    assert wrong_places(p, mask, KEYS, voxel_ml=0.001) == []
    assert len(wrong_places(p, mask, KEYS, voxel_ml=1.0)) == 3


def test_a_piece_of_background_has_no_structure() -> None:
    p, mask = _doubts()
    (place,) = wrong_places(np.where(mask == 0, p, 0), mask, KEYS, voxel_ml=1.0)[1:]
    assert (place["ml"], place["structure"], place["voxel"]) == (1.0, None, [0, 11, 11])


@pytest.mark.parametrize("p", [0.0, 0.49])
def test_where_nothing_is_more_probably_wrong_there_is_no_place(p: float) -> None:
    assert wrong_places(np.full((3, 3, 3), p), np.ones((3, 3, 3), np.uint8), KEYS, 10.0) == []
