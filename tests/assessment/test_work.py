"""What there is to correct, against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest

from whqa.assessment.work import work_to_do

KEYS = ("lv", "rv")


def _doubts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    p, mask = np.full((12, 12, 12), 0.1), np.zeros((12, 12, 12), np.uint8)
    mask[:, :, :6], mask[:, :, 6:9] = 1, 2
    p[1:4, 1:4, 1:4] = 0.5
    p[6:10, 6:10, 6:10] = 0.75
    p[0, 11, 11] = 1.0
    opinion = np.where(p > 0.6, 0, mask).astype(np.uint8)
    opinion[0, 11, 11] = 2
    return p, mask, opinion


def test_every_piece_from_the_smallest_on_counts_the_largest_first() -> None:
    p, mask, opinion = _doubts()
    found = work_to_do(p, mask, opinion, keys=KEYS, voxel_ml=0.1)
    assert (found["pieces"], found["voxels"]) == (3, 64 + 27 + 1)
    assert found["ml"] == pytest.approx(9.2)
    told = [(round(piece["ml"], 6), piece["structure"], piece["opinion"]) for piece in found["largest"]]
    assert told == [(6.4, "rv", None), (2.7, "lv", "lv"), (0.1, None, "rv")]
    assert [piece["probability"] for piece in found["largest"]] == [0.75, 0.5, 1.0]
    assert found["largest"][1]["voxel"] == [2, 2, 2], "the deepest"
    assert found["look"] == found["largest"][0]["voxel"]
    assert all(6 <= at < 10 for at in found["look"])


def test_a_frayed_border_is_no_work_but_is_looked_at() -> None:
    p, mask, _ = _doubts()
    found = work_to_do(p, mask, keys=KEYS, voxel_ml=0.001)
    assert (found["pieces"], found["voxels"], found["ml"], found["largest"]) == (0, 0, 0, [])
    assert found["look"] == [0, 11, 11], "where an error is most probable"
    assert work_to_do(p, mask, keys=KEYS, voxel_ml=0.03)["pieces"] == 2


def test_of_many_pieces_fifty_are_listed_and_all_are_counted() -> None:
    p = np.zeros((16, 16, 16))
    p[::2, ::2, ::2] = 1
    found = work_to_do(p, np.ones(p.shape, np.uint8), keys=KEYS, voxel_ml=1.0)
    assert (found["pieces"], len(found["largest"])) == (512, 50)


def test_where_no_voxel_can_be_wrong_there_is_nothing_to_look_at() -> None:
    found = work_to_do(np.zeros((3, 3, 3)), np.ones((3, 3, 3), np.uint8), keys=KEYS, voxel_ml=1.0)
    assert (found["pieces"], found["look"]) == (0, None)
