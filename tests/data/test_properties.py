"""What `whqa.data.preprocess` promises of every scan: any orientation, oblique, anisotropic, resampled and cropped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from scipy import ndimage
from scipy.spatial.transform import Rotation

from whqa.data import preprocess
from whqa.data.formats.volume_files import Volume
from whqa.data.preprocess import Geometry, Preprocess

often = settings(max_examples=80, database=None)
KEYS = ("lv", "myo", "ao")


@dataclass(frozen=True)
class Scan:
    """Where voxels lie: any rotation, any order and direction of axes, spacing up to 8 : 1."""

    affine: np.ndarray
    shape: tuple[int, int, int]
    seed: int

    def volume(self, array: np.ndarray) -> Volume:
        return Volume(array, self.affine, Path("made-up.nii.gz"))

    def labels(self) -> np.ndarray:
        """Blocks of 0..3 that are one to seven voxels thick."""
        rng = np.random.default_rng(self.seed)
        thickness = rng.integers(1, 8, 3)
        blocks = rng.integers(0, 4, [-(-n // t) for n, t in zip(self.shape, thickness, strict=True)])
        for axis, t in enumerate(thickness):
            blocks = blocks.repeat(t, axis=axis)
        return blocks[tuple(slice(n) for n in self.shape)].astype(np.uint8)

    def world(self) -> np.ndarray:
        """RAS mm of every voxel: (3, X, Y, Z)."""
        voxels = np.indices(self.shape).reshape(3, -1)
        return (self.affine[:3, :3] @ voxels + self.affine[:3, 3:]).reshape(3, *self.shape)


@st.composite
def scans(draw: st.DrawFn, least: int = 3, most: int = 22) -> Scan:
    shape = tuple(draw(st.integers(least, most)) for _ in range(3))
    spacing = [draw(st.floats(0.5, 4.0)) for _ in range(3)]
    turn = Rotation.from_euler("xyz", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True).as_matrix()
    order, signs = draw(st.permutations(range(3))), [draw(st.sampled_from((1, -1))) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = [draw(st.floats(-300, 300)) for _ in range(3)]
    stored = np.array([[axis, sign] for axis, sign in zip(order, signs, strict=True)])
    moved = apply_orientation(np.empty(shape), stored)
    return Scan(affine @ inv_ornt_aff(stored, shape), moved.shape, draw(st.integers(0, 2**20)))  # type: ignore[arg-type]


grids = st.builds(
    Preprocess,
    spacing=st.tuples(*[st.none() | st.floats(0.5, 5.0)] * 3),
    crop_mm=st.none() | st.tuples(*[st.floats(3.0, 60.0)] * 3),
    centre=st.sampled_from(("image", "tissue", "heart")),
)


def geometry_of(scan: Scan, grid: Preprocess, labels: np.ndarray) -> Geometry:
    label = scan.volume(labels)
    return preprocess.preprocess_image(
        scan.volume(labels.astype(np.float32)), "mr", grid, preprocess.heart_of(label, KEYS)
    )[1]


def places(scan: Scan, geometry: Geometry) -> np.ndarray:
    """Position of every voxel of the file on the cache grid, through world coordinates alone: (3, X, Y, Z)."""
    there = np.linalg.inv(geometry.cache_affine)
    flat = scan.world().reshape(3, -1)
    return (there[:3, :3] @ flat + there[:3, 3:]).reshape(3, *scan.shape)


def in_crop(at: np.ndarray, geometry: Geometry, margin: float) -> np.ndarray:
    """Voxels of the file within the extent of the cache grid, less a margin in cache voxels: (X, Y, Z)."""
    size = np.array(geometry.shape).reshape(3, 1, 1, 1)
    return ((at >= margin - 0.5) & (at <= size - 0.5 - margin)).all(axis=0)


def rim(geometry: Geometry) -> list[int]:
    """How many voxels along each axis of the file a border may reach: below one cache voxel plus one voxel."""
    reach = [0 if step == 1 else int(np.ceil(step + 1)) - 1 for step in geometry.step]
    return [reach[axis] for axis, _ in geometry.orientation]


@often
@given(scans(), grids)
def test_labels_return_but_for_the_rim_of_a_structure(scan: Scan, grid: Preprocess) -> None:
    labels = scan.labels()
    geometry = geometry_of(scan, grid, labels)
    cached = preprocess.preprocess_label(scan.volume(labels), geometry)
    assert cached.shape == geometry.shape
    assert cached.dtype == np.uint8
    back = preprocess.restore_labels(cached, geometry)
    assert back.shape == scan.shape
    window = [2 * r + 1 for r in rim(geometry)]
    deep = ndimage.minimum_filter(labels, window) == ndimage.maximum_filter(labels, window)
    at = places(scan, geometry)
    held = in_crop(at, geometry, 1e-4)
    np.testing.assert_array_equal(back[deep & held], labels[deep & held])
    assert not back[~in_crop(at, geometry, -1e-4)].any()
    # nothing is invented: every class stands where it stood, or beside
    for index in np.unique(back[held]):
        near = ndimage.maximum_filter(labels == index, window)
        assert near[(back == index) & held].all()


@often
@given(scans(), st.none() | st.tuples(*[st.floats(3.0, 60.0)] * 3))
def test_labels_return_exactly_where_no_axis_is_resampled(scan: Scan, crop: tuple[float, float, float] | None) -> None:
    labels = scan.labels()
    geometry = geometry_of(scan, Preprocess((None, None, None), crop, "image"), labels)
    cached = preprocess.preprocess_label(scan.volume(labels), geometry)
    back = preprocess.restore_labels(cached, geometry)
    held = in_crop(places(scan, geometry), geometry, 0.25)
    assert held.sum() == cached.size
    box = np.zeros(scan.shape, bool)
    box[preprocess.kept_box(geometry)] = True
    np.testing.assert_array_equal(box, held)
    np.testing.assert_array_equal(back, np.where(held, labels, 0))
    if crop is None:
        np.testing.assert_array_equal(back, labels)


@often
@given(scans(least=8), grids, st.data())
def test_a_box_of_a_cache_voxel_and_one_more_is_never_lost(scan: Scan, grid: Preprocess, data: st.DataObject) -> None:
    grid = Preprocess(grid.spacing)
    geometry = geometry_of(scan, grid, scan.labels())
    edges = [r + 1 for r in rim(geometry)]
    labels = np.zeros(scan.shape, np.uint8)
    starts = [data.draw(st.integers(0, max(0, n - edge))) for n, edge in zip(scan.shape, edges, strict=True)]
    labels[tuple(slice(s, s + edge) for s, edge in zip(starts, edges, strict=True))] = 2
    fits = all(edge <= n for n, edge in zip(scan.shape, edges, strict=True))
    assert not fits or (preprocess.preprocess_label(scan.volume(labels), geometry) == 2).any()


@often
@given(scans(), grids)
def test_what_the_crop_takes_is_what_lies_outside(scan: Scan, grid: Preprocess) -> None:
    labels = scan.labels()
    geometry = geometry_of(scan, grid, labels)
    at = places(scan, geometry)
    inner, outer = in_crop(at, geometry, 1e-4), in_crop(at, geometry, -1e-4)
    lost = preprocess.lost_voxels(scan.volume(labels), geometry)
    assert lost.keys() == {int(i) for i in np.unique(labels) if i}
    for index, share in lost.items():
        of_class = labels == index
        assert 1 - (of_class & outer).sum() / of_class.sum() - 1e-9 <= share
        assert share <= 1 - (of_class & inner).sum() / of_class.sum() + 1e-9


@often
@given(scans(), grids, st.tuples(*[st.floats(-1, 1)] * 3))
def test_a_map_keeps_its_values_where_they_are(scan: Scan, grid: Preprocess, slope: tuple[float, ...]) -> None:
    """A map that is linear in world coordinates comes back as the same function, and within its own limits."""
    geometry = geometry_of(scan, grid, scan.labels())
    corner = geometry.cache_affine[:3, 3]
    voxels = np.indices(geometry.shape).reshape(3, -1)
    values = (slope @ (geometry.cache_affine[:3, :3] @ voxels)).reshape(geometry.shape).astype(np.float32)
    back = preprocess.restore_map(values, geometry)
    at = places(scan, geometry)
    size = np.array(geometry.shape).reshape(3, 1, 1, 1)
    # where the file's voxels are the larger ones, a mean of cache voxels is taken, which needs them on both sides
    spare = np.array([0.0 if s >= 1 else 1 / s + 1 for s in geometry.step]).reshape(3, 1, 1, 1)
    within = ((at >= spare) & (at <= size - 1 - spare)).all(axis=0)
    coarse = np.array([s < 1 for s in geometry.step])
    expected = np.tensordot(np.array(slope), scan.world() - corner.reshape(3, 1, 1, 1), 1)
    # such a mean has its weight on grid points, whose centroid may lie off by a part of a cache voxel
    allowed = 1e-3 + 0.13 * np.abs(slope @ geometry.cache_affine[:3, :3] * coarse).max()
    np.testing.assert_allclose(back[within], expected[within], atol=allowed)
    held = in_crop(at, geometry, 1e-4)
    assert (back[held] >= values.min() - 1e-4).all()
    assert (back[held] <= values.max() + 1e-4).all()
    assert not preprocess.restore_map(values, geometry, outside=0.0)[~in_crop(at, geometry, -1e-4)].any()


@often
@given(scans(least=18, most=26), st.tuples(*[st.floats(0.4, 1.6)] * 3), st.tuples(*[st.floats(-0.5, 0.5)] * 3))
def test_a_landmark_stays_within_a_twentieth_of_a_voxel(
    scan: Scan, ratio: tuple[float, ...], shift: tuple[float, ...]
) -> None:
    """World coordinates of a blob's centroid in the file, in the cache, and in a map that has come back."""
    native = np.linalg.norm(scan.affine[:3, :3], axis=0)
    orientation = io_orientation(scan.affine).astype(int)
    spacing = np.empty(3)
    spacing[orientation[:, 0]] = native * ratio
    middle = (np.array(scan.shape) - 1) / 2 + shift
    away = (np.indices(scan.shape) - middle.reshape(3, 1, 1, 1)) / 2.0
    blob = np.exp(-0.5 * (away**2).sum(axis=0)).astype(np.float32)
    mark = scan.affine[:3, :3] @ middle + scan.affine[:3, 3]
    grid = Preprocess(tuple(map(float, spacing)), ct_window=(0.0, 1.0))  # type: ignore[arg-type]
    values, geometry = preprocess.preprocess_image(scan.volume(blob), "ct", grid)
    found = centroid((values + 1) / 2)
    world = geometry.cache_affine[:3, :3] @ found + geometry.cache_affine[:3, 3]
    assert np.abs(np.linalg.solve(scan.affine[:3, :3], world - mark)).max() < 0.05
    back = centroid(preprocess.restore_map(values + 1, geometry))
    assert np.abs(back - middle).max() < 0.05


def centroid(array: np.ndarray) -> np.ndarray:
    weights = np.clip(array, 0, None).astype(np.float64)
    return np.array([(weights * axis).sum() for axis in np.indices(array.shape)]) / weights.sum()


@often
@given(scans(), grids)
def test_geometry_is_the_same_after_a_trip_through_json(scan: Scan, grid: Preprocess) -> None:
    geometry = geometry_of(scan, grid, scan.labels())
    again = Geometry.from_dict(json.loads(json.dumps(geometry.to_dict())))
    assert again == geometry
    assert again.lines() == geometry.lines()
    np.testing.assert_array_equal(again.cache_affine, geometry.cache_affine)


@often
@given(scans(), grids)
def test_the_cache_grid_runs_right_anterior_superior_and_has_the_spacing(scan: Scan, grid: Preprocess) -> None:
    geometry = geometry_of(scan, grid, scan.labels())
    axes = geometry.cache_affine[:3, :3]
    np.testing.assert_array_equal(io_orientation(geometry.cache_affine), [[0, 1], [1, 1], [2, 1]])
    sizes = np.linalg.norm(axes, axis=0)
    np.testing.assert_allclose(sizes, geometry.spacing, rtol=1e-6)
    for wanted, size, crop, n in zip(grid.spacing, sizes, grid.crop_mm or [None] * 3, geometry.shape, strict=True):
        assert wanted is None or abs(size / wanted - 1) <= 1e-3 + 1e-6
        assert crop is None or n * size <= max(crop + size / 2 + 1e-6, size)
