"""Errors by size against scipy's morphology, by hand, and that every wrong voxel has one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from whqa.metrics.error_sizes import SIZE_COLUMNS, flat_axes, size_counts, sized_errors, thick
from whqa.metrics.verdict_row import judge
from whqa.quality import ErrorPrediction, JudgedCase

SPACING = (5.0, 5.0, 5.0)
"""Eight voxels are a millilitre."""


def _case(mask: torch.Tensor, reference: torch.Tensor, spacing: tuple[float, float, float] = SPACING) -> JudgedCase:
    return JudgedCase("c", "final", torch.zeros(mask.shape), mask, reference, None, spacing)


@pytest.mark.parametrize(
    ("spacing", "axes"), [((2.0, 2.0, 2.5), 3), ((1.6, 1.6, 10.0), 2)], ids=["isotropic", "thick slices"]
)
def test_thick_is_what_touches_the_inside(spacing: tuple[float, float, float], axes: int) -> None:
    of = np.random.default_rng(0).random((12, 11, 10)) < 0.8
    cross, square = (
        ndimage.generate_binary_structure(axes, of_rank).reshape((3,) * axes + (1,) * (3 - axes))
        for of_rank in (1, axes)
    )
    expected = ndimage.binary_dilation(ndimage.binary_erosion(of, cross), square) & of
    assert 0 < expected.sum() < of.sum()
    assert (thick(of, spacing) == expected).all()


@pytest.mark.parametrize("finest", [0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.6, 2.4])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_sides_of_half_again_the_length_are_flat_however_they_are_rounded(finest: float, kind: type) -> None:
    assert flat_axes([float(kind(edge)) for edge in (finest, finest, round(1.5 * finest, 3))]) == [0, 1, 2]
    assert flat_axes([float(kind(edge)) for edge in (finest, finest, 1.51 * finest)]) == [0, 1]


def _faulty() -> tuple[JudgedCase, dict[str, torch.Tensor]]:
    """A seam of a voxel, a hole of 4^3 voxels, and a structure of 3^3 that is not in the mask."""
    reference = torch.zeros((20, 20, 20), dtype=torch.uint8)
    reference[2:18, 2:18, 2:10] = 1
    reference[4:7, 4:7, 13:16] = 2
    mask = reference.clone()
    parts = {name: torch.zeros(mask.shape, dtype=torch.bool) for name in ("thin", "blob", "missing")}
    parts["thin"][2:18, 2:18, 9] = True
    parts["blob"][8:12, 8:12, 3:7] = True
    parts["missing"][4:7, 4:7, 13:16] = True
    for part in parts.values():
        mask[part] = 0
    return _case(mask, reference), parts


def test_seam_hole_and_missing_structure_are_told_apart() -> None:
    case, parts = _faulty()
    found = sized_errors(case)
    of = np.full(case.mask.numel(), -1)
    of[found.at] = found.size
    for number, part in enumerate(parts.values()):
        assert (of.reshape(case.mask.shape)[part.numpy()] == number).all()
    assert (of >= 0).sum() == case.error.sum(), "each wrong voxel has one size, and no other has"
    assert found.place_size.tolist() == [0, 1, 2]


@pytest.mark.parametrize("shown", ["thin", "blob", "missing"])
def test_each_size_is_found_for_itself(shown: str) -> None:
    case, parts = _faulty()
    row = judge(case, ErrorPrediction(parts[shown].float(), parts[shown]))
    for size in parts:
        own = size == shown
        assert row[f"{size}_places"] == 1
        assert row[f"found_{size}_places"] == own
        assert (row[f"{size}_hit_voxels"] == row[f"{size}_voxels"]) == own
    assert sum(row[f"{size}_voxels"] for size in parts) == row["error_voxels"]


def test_a_mask_without_errors_has_none_of_any_size() -> None:
    reference = torch.ones((4, 4, 4), dtype=torch.uint8)
    found = sized_errors(_case(reference, reference.clone()))
    nothing = np.zeros((4, 4, 4), bool)
    assert size_counts(nothing, nothing, found) == dict.fromkeys(SIZE_COLUMNS, 0.0)
