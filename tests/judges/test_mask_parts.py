"""Where mask and opinion agree, differ in seams, in blobs and in places: by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from whqa.judges.mask_parts import MASK_PARTS, mask_parts
from whqa.quality import JudgedCase

SHAPE = (12, 12, 12)


def _drawing(drawn: torch.Tensor) -> torch.Tensor:
    return (8.0 * torch.nn.functional.one_hot(drawn, 2).movedim(-1, 0).float()).log_softmax(dim=0)


def _case(mask: torch.Tensor, drawn: torch.Tensor, slice_mm: float = 1.0, pixel_mm: float = 1.0) -> JudgedCase:
    spacing = (pixel_mm, pixel_mm, slice_mm)
    return JudgedCase("a", "final", torch.zeros(SHAPE), mask.byte(), None, None, spacing, _drawing(drawn))


@pytest.mark.parametrize(("mm", "name"), [(3.2, "blob"), (3.4, "place")])
def test_a_seam_is_thin_and_a_cube_is_a_blob_or_from_a_millilitre_on_a_place(mm: float, name: str) -> None:
    drawn = torch.zeros(SHAPE, dtype=torch.long)
    drawn[2:10, 2:10, 2:10] = 1
    mask = drawn.clone()
    mask[2] = 0  # two voxels of a side
    mask[3] = 0
    mask[6:9, 4:7, 4:7] = 0
    found = mask_parts(_case(mask, drawn, mm, mm))
    assert found is not None
    expected = torch.zeros(SHAPE, dtype=torch.long)
    expected[2:4, 2:10, 2:10] = MASK_PARTS.index("seam")
    # 27 voxels
    expected[6:9, 4:7, 4:7] = MASK_PARTS.index(name)
    assert torch.equal(found, expected)


def test_thick_slices_do_not_make_a_place_thin() -> None:
    drawn = torch.zeros(SHAPE, dtype=torch.long)
    mask = drawn.clone()
    mask[3:7, 3:7, 5] = 1
    flat, cube = mask_parts(_case(mask, drawn, 10.0)), mask_parts(_case(mask, drawn, 1.0))
    assert flat is not None
    assert cube is not None
    assert set(flat.unique().tolist()) == {0, MASK_PARTS.index("blob")}
    assert set(cube.unique().tolist()) == {0, MASK_PARTS.index("seam")}


def test_a_mask_that_the_opinion_would_draw_agrees_everywhere() -> None:
    drawn = torch.zeros(SHAPE, dtype=torch.long)
    drawn[4:8, 4:8, 4:8] = 1
    found = mask_parts(_case(drawn, drawn))
    assert found is not None
    assert not found.any()


def test_without_an_opinion_there_are_no_parts(heard: Callable[..., JudgedCase]) -> None:
    assert mask_parts(replace(heard(1), log_p=None)) is None
