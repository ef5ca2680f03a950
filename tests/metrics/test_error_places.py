"""Places against a flood fill voxel by voxel, and their counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from whqa.metrics.error_places import PLACE_COLUMNS, pieces, place_certainty, place_counts

SPACING = (10.0, 10.0, 10.0)
"""A voxel is a millilitre."""
ROOT = np.random.default_rng(3)


def _flooded(of: np.ndarray) -> list[set[tuple[int, int, int]]]:
    """Connected pieces by face neighbours, one voxel after the other."""
    left = {tuple(map(int, at)) for at in np.argwhere(of)}
    found = []
    while left:
        edge, piece = [left.pop()], set()
        while edge:
            at = edge.pop()
            piece.add(at)
            for axis in range(3):
                for step in (-1, 1):
                    there = tuple(c + step * (i == axis) for i, c in enumerate(at))
                    if there in left:
                        left.remove(there)
                        edge.append(there)
        found.append(piece)
    return found


@pytest.mark.parametrize("voxel_ml", [1.0, 0.4, 0.1])
def test_pieces_are_those_of_a_flood_fill(voxel_ml: float) -> None:
    of = ROOT.random((9, 8, 7)) < 0.25
    large = [piece for piece in _flooded(of) if len(piece) * voxel_ml >= 1 - 1e-9]
    found = pieces(of, voxel_ml)
    assert len(large) > 2
    assert {frozenset(map(tuple, np.argwhere(found.labelled == n).tolist())) for n in found.numbers} == set(
        map(frozenset, large)
    )
    assert found.voxels.tolist() == sorted(map(len, large), reverse=True)


@pytest.mark.parametrize("voxel_ml", [1.0, 0.25, 0.05])
def test_certainty_is_the_highest_level_at_which_a_piece_is_large_enough(voxel_ml: float) -> None:
    p = ROOT.random((8, 8, 8)) ** 2
    levels = [k for k in range(1, 256) if any(len(c) * voxel_ml >= 1 - 1e-9 for c in _flooded(p >= k / 255))]
    assert levels
    assert place_certainty(p, voxel_ml) == pytest.approx(max(levels) / 255, abs=1e-4)


def test_certainty_of_nothing_is_none_and_of_a_sure_piece_full() -> None:
    p = np.zeros((3, 3, 3))
    assert place_certainty(p, 1.0) == 0
    p[0, 0, :2] = 1
    assert place_certainty(p, 0.5) == 1
    assert place_certainty(p, 0.4) == 0, "too small"


def _map(*slabs: slice) -> torch.Tensor:
    found = torch.zeros((1, 1, 60), dtype=torch.bool)
    for slab in slabs:
        found[0, 0, slab] = True
    return found


@pytest.mark.parametrize(
    ("shown", "true", "expected"),
    [
        ((), (), (0, 0, 0)),
        ((), (slice(0, 20),), (1, 0, 0)),
        ((slice(30, 40),), (), (0, 0, 1)),
        # two voxels of twenty are a tenth, and two of ten that are shown
        ((slice(18, 28),), (slice(0, 20),), (1, 1, 0)),
        ((slice(19, 28),), (slice(0, 20),), (1, 0, 0)),
        # one of twenty that are shown is less than a tenth
        ((slice(19, 39),), (slice(0, 20),), (1, 0, 1)),
        ((slice(0, 3), slice(50, 55)), (slice(1, 4), slice(10, 13)), (2, 1, 1)),
    ],
)
def test_counts_by_hand(shown: tuple[slice, ...], true: tuple[slice, ...], expected: tuple[int, ...]) -> None:
    assert place_counts(_map(*shown), _map(*true), SPACING) == dict(zip(PLACE_COLUMNS, expected, strict=True))


def test_what_is_smaller_than_a_millilitre_is_no_place() -> None:
    counts = place_counts(_map(slice(0, 7)), _map(slice(0, 8)), (5.0, 5.0, 5.0))
    assert counts == {"true_places": 1.0, "found_places": 0.0, "false_places": 0.0}
