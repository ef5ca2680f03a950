"""What each kind of fault does to a mask, as seen by comparing the masks before and after."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from whqa.masks.corruption import FAULTS, Fault

LV, RV, LA, RA, MYO, AO, PA = range(1, 8)
MIDDLE = (0.5, 0.5, 0.5)


@pytest.fixture(params=["even_heart", "sliced_heart"])
def heart(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def distance_to(inside: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """mm from each voxel to the nearest inside."""
    return np.asarray(ndimage.distance_transform_edt(~inside, sampling=spacing))


def two_blocks(spacing: float = 2.0) -> np.ndarray:
    """40 mm cubes of LV and LA one after the other along the first axis."""
    mask = np.zeros((60, 36, 36), np.uint8)
    n = int(40 / spacing)
    mask[8 : 8 + n, 8 : 8 + n, 8 : 8 + n], mask[8 + n : 8 + 2 * n, 8 : 8 + n, 8 : 8 + n] = LV, LA
    return mask


@pytest.mark.parametrize("kind", ["wobble", "grown", "shrunk"])
@pytest.mark.parametrize(("structure", "other"), [(LV, MYO), (RV, 0), (MYO, 0), (PA, 0)])
def test_borders_move_by_no_more_than_the_size(kind: str, structure: int, other: int, heart: Any) -> None:
    after = heart.spoil([Fault(kind, structure, other, 5.0, MIDDLE, 1)])
    inside, changed = heart.mask == structure, after != heart.mask
    gained, lost = changed & ~inside, changed & inside
    reach = 5.0 + min(heart.spacing) / 2
    assert (after[gained] == structure).all()
    assert distance_to(inside, heart.spacing)[gained].max(initial=0) < reach
    assert distance_to(~inside, heart.spacing)[lost].max(initial=0) < reach
    assert gained.any() == (kind != "shrunk")
    assert lost.any() == (kind != "grown")


def test_what_a_structure_loses_goes_to_what_lies_nearest(heart: Any) -> None:
    after = heart.spoil([Fault("shrunk", LV, 0, 6.0, MIDDLE, 1)])
    lost = (heart.mask == LV) & (after != LV)
    nearest = distance_to(heart.mask != LV, heart.spacing)
    assert {MYO, LA} <= set(np.unique(after[lost]))
    for label in np.unique(after[lost]):
        taken = lost & (after == label)
        np.testing.assert_allclose(distance_to(heart.mask == label, heart.spacing)[taken], nearest[taken])


def test_growth_takes_background_and_the_named_neighbour_only(heart: Any) -> None:
    into_wall = heart.spoil([Fault("grown", LV, MYO, 8.0, MIDDLE, 2)]) != heart.mask
    outside = heart.spoil([Fault("grown", LV, 0, 8.0, MIDDLE, 2)]) != heart.mask
    assert set(np.unique(heart.mask[into_wall])) <= {0, MYO}
    assert (heart.mask[into_wall] == MYO).any()
    assert set(np.unique(heart.mask[outside])) <= {0}


def test_the_whole_hearts_border_leaves_the_inner_borders_alone(heart: Any) -> None:
    after = heart.spoil([Fault("wobble", 0, 0, 6.0, MIDDLE, 3)])
    changed = after != heart.mask
    assert changed.any()
    assert ((heart.mask[changed] == 0) ^ (after[changed] == 0)).all()


def test_a_bend_moves_every_label_near_its_border(heart: Any) -> None:
    after = heart.spoil([Fault("elastic", 0, 0, 6.0, MIDDLE, 3)])
    changed = after != heart.mask
    for label in np.unique(after[changed]):
        assert distance_to(heart.mask == label, heart.spacing)[changed & (after == label)].max() < 6.0 * 3**0.5 + 3
    assert len(np.unique(heart.mask[changed])) > 3


@pytest.mark.parametrize("other", [0, RV, MYO])
def test_a_leak_hangs_on_its_structure_and_reaches_the_other(other: int, heart: Any) -> None:
    after = heart.spoil([Fault("leak", LV, other, 10.0, MIDDLE, 1)])
    changed = after != heart.mask
    assert (after[changed] == LV).all()
    assert (heart.mask[changed] == other).any()
    before, now = (ndimage.label(mask == LV, np.ones((3, 3, 3)))[1] for mask in (heart.mask, after))
    assert now <= before


def test_a_leak_passes_by_the_pinholes_of_a_border(even_heart: Any) -> None:
    blocks = replace(even_heart, mask=two_blocks(), spacing=(2.0, 2.0, 2.0))
    blocks.mask[18, 18, 18] = 0
    changed = blocks.spoil([Fault("leak", LV, 0, 8.0, MIDDLE, 1)]) != blocks.mask
    assert not changed[18, 18, 18]
    assert changed.sum() > 60


@pytest.mark.parametrize("size", [4.0, 12.0])
def test_a_valve_plane_moves_by_its_size(size: float, even_heart: Any) -> None:
    blocks = replace(even_heart, mask=two_blocks(), spacing=(2.0, 2.0, 2.0))
    after = blocks.spoil([Fault("valve", LV, LA, size, MIDDLE, 1)])
    changed = after != blocks.mask
    assert (blocks.mask[changed] == LA).all()
    assert (after[changed] == LV).all()
    # 20 x 20 voxels of 2 mm across the axis; the plane may tilt
    assert changed.sum() / 400 * 2.0 == pytest.approx(size, abs=1.5)


@pytest.mark.parametrize("pair", [(LV, LA), (LA, LV), (RV, RA), (LV, AO), (PA, RV)])
def test_valves_of_a_heart(pair: tuple[int, int], even_heart: Any) -> None:
    structure, other = pair
    after = even_heart.spoil([Fault("valve", structure, other, 10.0, MIDDLE, 1)])
    changed = after != even_heart.mask
    assert changed.any()
    assert (even_heart.mask[changed] == other).all()
    assert (after[changed] == structure).all()
    assert distance_to(even_heart.mask == structure, even_heart.spacing)[changed].max() < 20


def vessel(heart: Any) -> Any:
    """LV below an aorta that is a straight tube of 16 x 16 mm and 40 mm length."""
    mask = np.zeros((60, 24, 24), np.uint8)
    mask[4:14, 4:20, 4:20], mask[14:34, 8:16, 8:16] = LV, AO
    return replace(heart, mask=mask, spacing=(2.0, 2.0, 2.0))


def test_a_vessel_is_carried_on_along_its_axis(even_heart: Any) -> None:
    tube = vessel(even_heart)
    expected = tube.mask.copy()
    expected[34:44, 8:16, 8:16] = AO
    after = tube.spoil([Fault("vessel_long", AO, 0, 20.0, MIDDLE, 0)])
    assert (after != expected).sum() <= 64
    assert (after != tube.mask).sum() == pytest.approx(640, abs=64)


def test_a_vessel_is_cut_across_at_its_free_end(even_heart: Any) -> None:
    tube = vessel(even_heart)
    after = tube.spoil([Fault("vessel_cut", AO, 0, 20.0, MIDDLE, 0)])
    left = np.flatnonzero((after == AO).any(axis=(1, 2)))
    np.testing.assert_array_equal(left, np.arange(14, 24))


def test_a_vessel_with_pieces_beyond_its_end_is_carried_on(even_heart: Any) -> None:
    """As segmenters speckle; the pieces lie nearer to the chamber than the end, and farther along the axis there."""
    mask = even_heart.mask.copy()
    for z, y, x in ((17, 7, 32), (23, 21, 20), (26, 6, 24)):
        mask[z - 1 : z + 1, y - 1 : y + 1, x - 1 : x + 1] = AO
    after = replace(even_heart, mask=mask).spoil([Fault("vessel_long", AO, 0, 10.0, MIDDLE, 0)])
    assert (after[mask > 0] == mask[mask > 0]).all()
    assert set(np.unique(after[after != mask])) == {AO}


@pytest.mark.parametrize("structure", [AO, PA])
def test_vessels_of_a_heart(structure: int, heart: Any) -> None:
    """The end that is cut lies far from the chamber."""
    cut = heart.spoil([Fault("vessel_cut", structure, 0, 15.0, MIDDLE, 0)]) != heart.mask
    longer = heart.spoil([Fault("vessel_long", structure, 0, 15.0, MIDDLE, 0)]) != heart.mask
    from_chamber = distance_to(heart.mask == {AO: LV, PA: RV}[structure], heart.spacing)
    assert (heart.mask[cut] == structure).all()
    assert from_chamber[cut].mean() > from_chamber[(heart.mask == structure) & ~cut].mean()
    assert (heart.mask[longer] == 0).all()


@pytest.mark.parametrize(("size", "share"), [(0.25, 0.25), (1.0, 1.0), (3.0, 1.0)])
def test_a_structure_is_missing_in_part_or_all(size: float, share: float, heart: Any) -> None:
    after = heart.spoil([Fault("missing", RA, RV, size, MIDDLE, 0)])
    changed = after != heart.mask
    assert (heart.mask[changed] == RA).all()
    assert (after[changed] == RV).all()
    assert changed.sum() / (heart.mask == RA).sum() == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("seed", range(4))
def test_two_structures_are_swapped_at_their_border(seed: int, heart: Any) -> None:
    after = heart.spoil([Fault("swapped", LA, LV, 12.0, MIDDLE, seed)])
    changed = after != heart.mask
    assert changed.any()
    assert set(np.unique(heart.mask[changed])) <= {LV, LA}
    assert set(np.unique(after[changed])) <= {LV, LA}


def test_sides_exchanged_twice_are_right_again(heart: Any) -> None:
    fault = Fault("sides", 0, 0, 1.0, MIDDLE, 0)
    once = heart.spoil([fault])
    np.testing.assert_array_equal(once, np.array([0, RV, LV, RA, LA, MYO, AO, PA], np.uint8)[heart.mask])
    np.testing.assert_array_equal(heart.spoil([fault, fault]), heart.mask)


@pytest.mark.parametrize("other", [0, RV])
def test_an_island_lies_apart(other: int, heart: Any) -> None:
    after = heart.spoil([Fault("island", LA, other, 9.0, (0.1, 0.5, 0.5), 1)])
    changed = after != heart.mask
    assert changed.any()
    assert (heart.mask[changed] == other).all()
    assert (after[changed] == LA).all()
    pieces = [ndimage.label(mask == LA)[1] for mask in (heart.mask, after)]
    assert pieces[1] > pieces[0]


def test_a_hole_is_background_within(heart: Any) -> None:
    after = heart.spoil([Fault("hole", RV, 0, 9.0, MIDDLE, 1)])
    changed = after != heart.mask
    assert changed.any()
    assert (heart.mask[changed] == RV).all()
    assert (after[changed] == 0).all()
    assert distance_to(~changed, heart.spacing).max() < 1.4 * 9.0 + max(heart.spacing)


@pytest.mark.parametrize(("size", "slices"), [(1.0, 1), (24.0, 2)])
def test_a_slab_is_made_of_thick_slices(size: float, slices: int, sliced_heart: Any) -> None:
    after = sliced_heart.spoil([Fault("slab", RV, 0, size, MIDDLE, 1)])
    changed = after != sliced_heart.mask
    assert changed.any(axis=(0, 1)).sum() == slices
    assert (after[:, :, changed.any(axis=(0, 1))] != RV).all()
    assert (sliced_heart.mask[changed] == RV).all()


def test_shifted_slices_keep_what_they_hold(sliced_heart: Any) -> None:
    after = sliced_heart.spoil([Fault("slice_shift", 0, 0, 9.0, MIDDLE, 1)])
    shifted = (after != sliced_heart.mask).any(axis=(0, 1))
    assert shifted.sum() == 1
    before, moved = sliced_heart.mask[:, :, shifted], after[:, :, shifted]
    np.testing.assert_array_equal(np.bincount(before.ravel()), np.bincount(moved.ravel()))
    centres = [np.array(ndimage.center_of_mass(plane > 0)) * sliced_heart.spacing for plane in (before, moved)]
    assert np.linalg.norm(centres[1] - centres[0]) == pytest.approx(9.0, abs=3.0)


def test_a_coarse_grid_leaves_axes_that_are_coarser_still(sliced_heart: Any) -> None:
    only = np.zeros_like(sliced_heart.mask)
    only[:, :, 5] = sliced_heart.mask[:, :, 5]
    alone = replace(sliced_heart, mask=only)
    after = alone.spoil([Fault("coarse", 0, 0, 9.0, MIDDLE, 1)])
    assert (after != only).any()
    np.testing.assert_array_equal(np.flatnonzero(after.any(axis=(0, 1))), [5])
    # blocks of 3 x 3 voxels of 3 mm: a label changes at every third voxel at most
    steps = np.flatnonzero((after[1:, :, 5] != after[:-1, :, 5]).any(axis=1))
    assert (np.diff(steps) >= 3).all()


@pytest.mark.parametrize("kind", list(FAULTS))
def test_a_structure_that_is_not_there_changes_nothing(kind: str, even_heart: Any) -> None:
    empty = replace(even_heart, mask=np.zeros_like(even_heart.mask))
    assert not empty.spoil([Fault(kind, LV, 0, 5.0, MIDDLE, 0), Fault(kind, 0, 0, 5.0, MIDDLE, 0)]).any()
    alone = replace(even_heart, mask=np.where(even_heart.mask == AO, AO, 0).astype(np.uint8))
    assert set(np.unique(alone.spoil([Fault(kind, AO, PA, 5.0, MIDDLE, 0)]))) <= {0, AO, PA}
