"""Pieces that are more probably wrong than right, or look wrong by themselves, against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from whqa.assessment.places import wrong_places
from whqa.contract.quality_json import Place

KEYS = ("lv", "rv")


def _doubts() -> tuple[np.ndarray, np.ndarray]:
    p, mask = np.full((12, 12, 12), 0.1), np.zeros((12, 12, 12), np.uint8)
    mask[:, :, :6], mask[:, :, 6:9] = 1, 2
    p[1:4, 1:4, 1:4] = 0.5
    p[6:10, 6:10, 6:10] = 0.9
    p[0, 11, 11] = 1.0
    return p, mask


def _told(p: np.ndarray, suspicion: np.ndarray, mask: np.ndarray, voxel_ml: float) -> list[Place]:
    return wrong_places(p, suspicion, mask, KEYS, doubt_above=0.95, voxel_ml=voxel_ml)


def test_pieces_are_told_with_size_structure_and_a_voxel_inside_the_largest_first() -> None:
    p, mask = _doubts()
    found = _told(p, p, mask, voxel_ml=0.1)
    assert [(round(place["ml"], 6), place["structure"]) for place in found] == [(6.4, "rv"), (2.7, "lv")]
    for place, (low, high) in zip(found, ((6, 10), (1, 4)), strict=True):
        assert all(low <= at < high for at in place["voxel"])
    assert found[1]["voxel"] == [2, 2, 2], "the deepest"


def test_a_piece_of_less_than_a_millilitre_is_not_told() -> None:
    p, mask = _doubts()
    assert _told(p, p, mask, voxel_ml=0.001) == []
    assert len(_told(p, p, mask, voxel_ml=1.0)) == 3


def test_a_piece_of_background_has_no_structure() -> None:
    p, mask = _doubts()
    (place,) = _told(np.where(mask == 0, p, 0), 0 * p, mask, voxel_ml=1.0)[1:]
    assert (place["ml"], place["structure"], place["voxel"]) == (1.0, None, [0, 11, 11])


@pytest.mark.parametrize("p", [0.0, 0.49])
def test_where_nothing_is_more_probably_wrong_there_is_no_place(p: float) -> None:
    assert _told(np.full((3, 3, 3), p), np.full((3, 3, 3), p), np.ones((3, 3, 3), np.uint8), voxel_ml=10.0) == []


def test_what_looks_wrong_by_itself_is_told_however_small_p_is_and_with_how_sure_that_is() -> None:
    p, mask = _doubts()
    suspicion = np.where(p == 0.5, 0.97, 0.3)
    (place,) = _told(0 * p, suspicion, mask, voxel_ml=0.1)
    assert (round(place["ml"], 6), place["structure"], place["voxel"]) == (2.7, "lv", [2, 2, 2])
    assert place["certainty"] == pytest.approx(0.97, abs=0.004)
    assert _told(0 * p, np.minimum(suspicion, 0.95), mask, voxel_ml=0.1) == []
