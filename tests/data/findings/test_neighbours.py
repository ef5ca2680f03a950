"""Label values of two structures that are exchanged: every pair is told, and no true label map is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from whqa.data.findings.anatomy import label_findings, measure
from whqa.data.findings.neighbours import neighbour_findings
from whqa.data.findings.sides import flips
from whqa.data.phantom import Phantom, make_phantom
from whqa.structures import MMWHS

KEYS = MMWHS.keys
# What sizes, places and sides do not tell.
BY_NEIGHBOURS = {("rv", "ao"), ("la", "ao"), ("ra", "ao"), ("ao", "pa")}


def _indices(phantom: Phantom) -> np.ndarray:
    return MMWHS.to_indices(phantom.label, "phantom").astype(np.uint8)


def _exchanged(indices: np.ndarray, one: str, other: str) -> np.ndarray:
    table = np.arange(len(KEYS) + 1, dtype=np.uint8)
    a, b = KEYS.index(one) + 1, KEYS.index(other) + 1
    table[[a, b]] = b, a
    return table[indices]


def _by_neighbours(indices: np.ndarray, affine: np.ndarray) -> list[str]:
    measured = measure(indices, affine, KEYS)
    return [finding.message for finding in neighbour_findings(indices, affine, KEYS, measured)]


@pytest.fixture(scope="module", params=[("ct", 4.0), ("mr", 4.0), ("ct", 2.0), ("mr", 3.0), ("ct", 6.0)], ids=str)
def phantom(request: pytest.FixtureRequest) -> Phantom:
    modality, spacing = request.param
    return make_phantom(5, 1, modality, spacing)


def test_the_true_labels_have_their_own_neighbours(phantom: Phantom) -> None:
    indices = _indices(phantom)
    assert _by_neighbours(indices, phantom.affine) == []
    lower = indices.shape[2] // 2
    # a field of view that ends in the middle of the heart
    for cut in (indices[:, :, :lower], indices[:, :, lower:], indices[indices.shape[0] // 2 :]):
        assert _by_neighbours(np.ascontiguousarray(cut), phantom.affine) == []


@pytest.mark.parametrize(("one", "other"), list(combinations(KEYS, 2)))
def test_every_pair_of_exchanged_label_values_is_told(phantom: Phantom, one: str, other: str) -> None:
    indices = _exchanged(_indices(phantom), one, other)
    by_neighbours = _by_neighbours(indices, phantom.affine)
    measured = measure(indices, phantom.affine, KEYS)
    others = [*label_findings(measured, KEYS), *flips({key: m.centroid for key, m in measured.items()})]
    assert by_neighbours or others
    if (one, other) in BY_NEIGHBOURS:
        assert any(one in said and other in said for said in by_neighbours), by_neighbours
        beside_lv = [said for said in by_neighbours if "beside lv" in said]
        assert len(beside_lv) <= 1, "of several that are near, the one that is nearest counts"


def test_a_stump_is_no_structure_that_lies_wrong(phantom: Phantom) -> None:
    """A mask that lost its aorta, but for a few voxels beside another chamber, is not told of exchanged values."""
    indices = _indices(phantom)
    ao = KEYS.index("ao") + 1
    places = np.argwhere(indices == ao)
    indices[indices == ao] = 0
    indices[tuple(places[:3].T)] = ao
    assert _by_neighbours(indices, phantom.affine) == []
