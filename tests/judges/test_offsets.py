"""Offsets of parts: halfway between a part's own and the whole heart's, and P adds up to what is expected."""

from __future__ import annotations

import numpy as np
import pytest
from plain_offsets import plain_offsets
from scipy.special import expit

from whqa.judges.offsets import BINS, bin_logits, part_offsets


def _masks(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of three masks in each part and bin, one of them without its third part; expected rates."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.3, 4.0, (3, 4, 1)), (3, 4, BINS)).astype(float)
    counts[1, 2] = 0
    return counts, rng.dirichlet(np.ones(5), 3)[:, :4]


def _voxels(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logit and part of each voxel of a mask."""
    part, at = np.nonzero(counts)
    times = counts[part, at].astype(int)
    return np.repeat(bin_logits()[at], times), np.repeat(part, times)


@pytest.mark.parametrize("seed", range(5))
def test_offsets_are_those_of_a_plain_search_voxel_by_voxel(seed: int) -> None:
    counts, rates = _masks(seed)
    found = part_offsets(0.7, counts, rates)
    for mask in range(3):
        logit, part = _voxels(counts[mask])
        np.testing.assert_allclose(found[mask], plain_offsets(0.7 * logit, part, rates[mask]), atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_p_adds_up_over_the_heart(seed: int) -> None:
    counts, rates = _masks(seed)
    for each, voxels, expected in zip(part_offsets(0.7, counts, rates), counts, rates.sum(axis=1), strict=True):
        logit, part = _voxels(voxels)
        assert expit(0.7 * logit + each[part]).mean() == pytest.approx(expected, abs=1e-6)


def test_a_part_that_is_expected_to_be_wrong_more_often_is_doubted_more() -> None:
    counts = np.ones((1, 2, BINS))
    low, high = part_offsets(1.0, counts, np.array([[0.05, 0.25]]))[0]
    by_itself = [part_offsets(1.0, counts[:, :1], np.array([[2 * rate]]))[0, 0] for rate in (0.05, 0.25)]
    assert low < high
    assert high - low == pytest.approx((by_itself[1] - by_itself[0]) / 2, abs=1e-5)


def test_a_heart_without_voxels_and_rates_beyond_all_bounds_give_numbers() -> None:
    counts = np.zeros((2, 4, BINS))
    counts[1, 0, :10] = 1
    found = part_offsets(1.0, counts, np.array([[0.1] * 4, [3.0, 0, 0, 0]]))
    assert np.isfinite(found).all()
    assert (found[0] == 0).all()
