"""The way to the experiment's grid and back, against nibabel, torch and scipy."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy import ndimage

from whqa.data import preprocess
from whqa.data.formats.volume_files import Volume, read_image, read_label, write_volume
from whqa.data.phantom import make_phantom
from whqa.data.preprocess import Geometry, Preprocess
from whqa.data.resample import Line, interpolate, interpolate_labels
from whqa.data.sources.folder import read_folder
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.errors import InputError
from whqa.structures import ACDC, MMWHS

SHARED = Path(__file__).parents[2] / "../shared/data"
ORIENTATIONS = [
    np.array([[axis, sign] for axis, sign in zip(axes, signs, strict=True)])
    for axes in permutations(range(3))
    for signs in product((1, -1), repeat=3)
]
TILT = np.array([[0.966, -0.259, 0, 0], [0.25, 0.933, -0.259, 0], [0.067, 0.25, 0.966, 0], [0, 0, 0, 1]])


def volume(array: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(array, affine, Path("made-up.nii.gz"))


def stored(array: np.ndarray, affine: np.ndarray, orientation: np.ndarray) -> Volume:
    """The same scan with its axes stored in another order and direction."""
    return volume(apply_orientation(array, orientation), affine @ inv_ornt_aff(orientation, array.shape))


def dice(one: np.ndarray, other: np.ndarray) -> dict[int, float]:
    present = np.union1d(np.unique(one), np.unique(other))
    return {
        int(i): 2 * np.sum((one == i) & (other == i)) / (np.sum(one == i) + np.sum(other == i)) for i in present if i
    }


@functools.cache
def heart(spacing: float = 2.0) -> tuple[Volume, Volume]:
    phantom = make_phantom(0, 0, "ct", spacing)
    return volume(phantom.image.astype("float32"), phantom.affine), volume(
        MMWHS.to_indices(phantom.label, "phantom"), phantom.affine
    )


def round_trip(label: Volume, settings: Preprocess) -> dict[int, float]:
    _, geometry = preprocess.preprocess_image(volume(label.array.astype("float32"), label.affine), "mr", settings)
    back = preprocess.restore_labels(preprocess.preprocess_label(label, geometry), geometry)
    return dice(label.array, back)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(map(str, o.ravel())))
def test_every_stored_orientation_comes_out_as_nibabel_has_it(orientation: np.ndarray) -> None:
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype("float32") * 100
    scan = stored(array, np.diag([1.0, 1.5, 2, 1]) @ TILT, orientation)
    values, geometry = preprocess.preprocess_image(scan, "ct", Preprocess((None, None, None)))
    canonical = nib.as_closest_canonical(nib.Nifti1Image(scan.array, scan.affine))
    np.testing.assert_allclose((values + 1) * 450 - 250, np.clip(canonical.get_fdata(), -250, 650), atol=1e-3)
    np.testing.assert_allclose(geometry.cache_affine, canonical.affine, atol=1e-9)
    np.testing.assert_allclose(geometry.spacing, canonical.header.get_zooms(), rtol=1e-6)
    np.testing.assert_array_equal(preprocess.restore_map(values, geometry), apply_orientation(values, orientation))


@pytest.mark.parametrize("orientation", ORIENTATIONS[::7], ids=lambda o: "".join(map(str, o.ravel())))
def test_cache_voxels_lie_where_the_geometry_says(orientation: np.ndarray) -> None:
    """An image whose values are world coordinates must show, at each cache voxel, that voxel's own coordinate."""
    affine = np.diag([1.3, 0.7, 2.1, 1.0]) @ TILT
    affine[:3, 3] = (5, -8, 11)
    voxels = np.indices((30, 40, 20)).reshape(3, -1)
    for axis in range(3):
        world = (affine[axis, :3] @ voxels + affine[axis, 3]).reshape(30, 40, 20).astype("float32")
        scan = stored(world, affine, orientation)
        settings = Preprocess((0.6, 0.5, 1.5), crop_mm=(12, 10, 24), ct_window=(-200, 200))
        values, geometry = preprocess.preprocess_image(scan, "ct", settings)
        at = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), -1)
        expected = at @ geometry.cache_affine[axis, :3] + geometry.cache_affine[axis, 3]
        inner = (slice(2, -2),) * 3
        np.testing.assert_allclose(values[inner] * 200, expected[inner], atol=1e-3)


def test_upsampling_equals_scipy_and_downsampling_equals_torch() -> None:
    array = np.random.default_rng(0).normal(size=(12, 10, 8)).astype("float32")
    lines = [Line(-0.1, 0.4, 26), Line(1.3, 0.9, 7), Line(0.25, 1.0, 7)]
    at = np.meshgrid(*(line.positions() for line in lines), indexing="ij")
    expected = ndimage.map_coordinates(array, at, order=1, mode="nearest")
    np.testing.assert_allclose(interpolate(array, lines), expected, atol=1e-5)
    halves = [Line((12 / 5 - 1) / 2, 12 / 5, 5), Line((10 / 3 - 1) / 2, 10 / 3, 3), Line(0.0, 1.0, 8)]
    images = torch.from_numpy(array).permute(2, 0, 1)[:, None]
    small = torch.nn.functional.interpolate(images, size=(5, 3), mode="bilinear", antialias=True)
    np.testing.assert_allclose(interpolate(array, halves), small[:, 0].permute(1, 2, 0).numpy(), atol=1e-5)


def test_label_interpolation_equals_the_argmax_over_one_hot_maps() -> None:
    rng = np.random.default_rng(0)
    labels = ndimage.zoom(rng.integers(0, 4, (4, 4, 4)), 4, order=0).astype("uint8")
    lines = [Line(-0.2, 0.6, 27), Line(0.3, 1.7, 9), Line(2.0, 1.0, 12)]
    at = np.meshgrid(*(line.positions() for line in lines), indexing="ij")
    maps = [ndimage.map_coordinates((labels == i).astype(float), at, order=1, mode="nearest") for i in range(4)]
    ordered = np.sort(maps, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-6
    result = interpolate_labels(labels, lines)
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(result[clear], np.argmax(maps, axis=0)[clear])


@pytest.mark.parametrize("orientation", ORIENTATIONS[::5], ids=lambda o: "".join(map(str, o.ravel())))
@pytest.mark.parametrize("tilt", [np.eye(4), TILT], ids=["straight", "oblique"])
def test_label_round_trip_at_the_native_spacing(orientation: np.ndarray, tilt: np.ndarray) -> None:
    _, label = heart()
    scan = stored(label.array, tilt @ label.affine, orientation)
    scores = round_trip(scan, Preprocess((2.0, 2.0, 2.0)))
    assert len(scores) == 7
    assert min(scores.values()) >= 0.98


@pytest.mark.parametrize("spacing", [1.0, 1.5, 1.9])
def test_label_round_trip_by_a_finer_grid(spacing: float) -> None:
    scores = round_trip(heart()[1], Preprocess((spacing,) * 3))
    assert min(scores.values()) >= 0.98, scores


def ventricle(spacing: float) -> Volume:
    """A cavity in a wall of 6 mm with a thin crescent beside it, drawn at any spacing."""
    n = round(96 / spacing)
    x, y, z = (np.indices((n, n, n)) + 0.5) * spacing - 48
    r = np.sqrt(x**2 + y**2 + (0.7 * z) ** 2)
    beside = np.sqrt((x - 16) ** 2 + y**2 + (0.7 * z) ** 2)
    label = np.where(r < 18, 1, np.where(r < 24, 5, np.where(beside < 24, 2, 0))).astype("uint8")
    return volume(label, np.diag([spacing, spacing, spacing, 1]))


@pytest.mark.parametrize(("native", "grid", "least"), [(0.8, 1.2, 0.97), (1.0, 1.5, 0.96), (1.2, 2.0, 0.95)])
def test_label_round_trip_by_a_coarser_grid_beats_nearest_neighbours(native: float, grid: float, least: float) -> None:
    """scipy's nearest neighbours are the peer; what is lost is the wall of a few voxels that the grid cannot show."""
    label = ventricle(native)
    ours = round_trip(label, Preprocess((grid,) * 3))
    small = ndimage.zoom(label.array, native / grid, order=0, grid_mode=True, mode="nearest")
    factors = np.array(label.shape) / small.shape
    theirs = dice(label.array, ndimage.zoom(small, factors, order=0, grid_mode=True, mode="nearest"))
    assert min(ours.values()) >= least, ours
    assert all(ours[i] > theirs[i] for i in theirs), (ours, theirs)


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not beside the repository")
def test_label_round_trip_of_real_files() -> None:
    for case in read_mmwhs(SHARED / "whole_heart").cases:
        label = read_label(case.label or case.image, MMWHS)
        native = round_trip(label, Preprocess((1.5, 1.5, 1.5) if "1002" in case.id else (2.0, 2.0, 2.0)))
        finer = round_trip(label, Preprocess((1.4, 1.4, 1.4)))
        assert len(native) == 7
        assert min(native.values()) >= 0.98
        assert min(finer.values()) >= 0.98


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not beside the repository")
@pytest.mark.filterwarnings("ignore::whqa.data.formats.volume_files.HeaderConflictWarning")
def test_label_round_trip_of_acdc() -> None:
    for case in read_folder(SHARED / "acdc", scheme="acdc").cases[::9]:
        label = read_label(case.label or case.image, ACDC, announce=False)
        assert set(round_trip(label, Preprocess((None, None, None))).values()) == {1.0}
        finer = round_trip(label, Preprocess((1.25, 1.25, None)))
        assert min(finer.values()) >= 0.97, (case.id, finer)


def test_thick_slices_are_left_alone() -> None:
    array = np.random.default_rng(0).normal(size=(20, 22, 6)).astype("float32")
    scan = volume(array, np.diag([1.4, 1.4, 10.002, 1]))
    for spacing in ((1.4, 1.4, 10.0), (1.4, 1.4, None)):
        values, geometry = preprocess.preprocess_image(scan, "ct", Preprocess(spacing, ct_window=(-10, 10)))
        assert geometry.step == (1, 1, 1)
        assert geometry.spacing == pytest.approx((1.4, 1.4, 10.002))
        np.testing.assert_allclose(values * 10, array, atol=1e-5)
    _, geometry = preprocess.preprocess_image(scan, "ct", Preprocess((0.7, 0.7, 10.0)))
    assert geometry.shape == (40, 44, 6)
    assert geometry.step[2] == 1


def test_crop_box_is_clipped_into_the_volume_and_small_axes_stay_whole() -> None:
    array = np.full((60, 50, 10), -1000, "float32")
    array[50:58, 2:6, 3:5] = 200
    scan = volume(array, np.diag([1.0, 1.0, 2.0, 1]))
    _, middle = preprocess.preprocess_image(scan, "ct", Preprocess((None,) * 3, (20, 20, 40), "image"))
    assert (middle.shape, middle.start) == ((20, 20, 10), (20, 15, 0))
    _, tissue = preprocess.preprocess_image(scan, "ct", Preprocess((None,) * 3, (20, 20, 40)))
    assert tissue.start == (40, 0, 0)
    _, coarse = preprocess.preprocess_image(scan, "ct", Preprocess((2.0, 2.0, 2.0), (20, 20, 40), "tissue"))
    assert (coarse.shape, coarse.start) == ((10, 10, 10), (40.5, 0.5, 0))


def test_tissue_of_an_mr_image_is_otsus_foreground() -> None:
    rng = np.random.default_rng(0)
    array = rng.normal(100, 10, (40, 40, 40)).astype("float32")
    array[25:35, 25:35, 5:15] += 500
    _, geometry = preprocess.preprocess_image(
        volume(array, np.eye(4)), "mr", Preprocess((1, 1, 1), (12, 12, 12), "tissue")
    )
    np.testing.assert_allclose(np.array(geometry.start) + 5.5, (29.5, 29.5, 9.5), atol=0.5)


def whole_body(labels: dict[int, tuple[slice, slice, slice]]) -> tuple[Volume, Volume]:
    """CT of a body with a heart far from its middle, and the label map; axes stored as left, posterior, superior."""
    affine = np.diag([-2.0, -2.0, 2.5, 1])
    image, label = np.full((60, 50, 80), 30, "float32"), np.zeros((60, 50, 80), "uint8")
    for index, box in labels.items():
        image[box], label[box] = 300, index
    return volume(image, affine), volume(label, affine)


def test_heart_is_in_the_middle_of_a_crop_round_the_heart() -> None:
    keys = ("lv", "myo", "ao", "pa")
    image, label = whole_body(
        {1: np.s_[40:46, 10:16, 50:58], 2: np.s_[46:50, 8:16, 50:60], 3: np.s_[44:46, 12:14, 0:50], 4: np.s_[0:9, 9, 9]}
    )
    settings = Preprocess((2.0, 2.0, 2.5), (32.0, 24.0, 40.0), "heart")
    _, geometry = preprocess.preprocess_image(image, "ct", settings, preprocess.heart_of(label, keys))
    # lv and myo reach from voxel 40 to 49, 8 to 15 and 50 to 59 of the file; the first two axes turn round
    middle = np.array([(59 - 49 + 59 - 40) / 2, (49 - 15 + 49 - 8) / 2, (50 + 59) / 2])
    np.testing.assert_allclose(np.array(geometry.start) + (np.array(geometry.shape) - 1) / 2, middle, atol=0.5)
    assert geometry.shape == (16, 12, 16)
    present = preprocess.preprocess_label(label, geometry)
    assert [np.sum(present == i) for i in (1, 2)] == [np.sum(label.array == i) for i in (1, 2)]
    assert preprocess.lost_voxels(label, geometry)[4] == 1


@pytest.mark.parametrize("labels", [None, {}, {3: np.s_[44:46, 12:14, 0:50]}], ids=["none", "empty", "aorta alone"])
def test_without_a_heart_the_crop_is_round_the_tissue(labels: dict[int, tuple[slice, slice, slice]] | None) -> None:
    image, label = whole_body(labels or {})
    heart = None if labels is None else preprocess.heart_of(label, ("lv", "myo", "ao", "pa"))
    boxes = [
        preprocess.preprocess_image(image, "ct", Preprocess((2.0, 2.0, 2.5), (40.0, 30.0, 50.0), centre), heart)[1]
        for centre in ("heart", "tissue")
    ]
    assert boxes[0] == boxes[1]


def test_integers_are_preprocessed_as_floats_are() -> None:
    phantom = make_phantom(0, 0, "ct", 4.0)
    assert phantom.image.dtype == np.int16
    for modality in ("ct", "mr"):
        stored, floats = (
            preprocess.preprocess_image(
                volume(image, phantom.affine), modality, Preprocess((5,) * 3, (120,) * 3, "tissue")
            )
            for image in (phantom.image, phantom.image.astype("float32"))
        )
        np.testing.assert_array_equal(stored[0], floats[0])
        assert stored[1] == floats[1]


def test_what_the_crop_cuts_away_is_counted() -> None:
    labels = np.zeros((20, 20, 20), "uint8")
    labels[8:12, 8:12, 8:12], labels[0:10, 0, 0], labels[:, 10, 0] = 1, 2, 3
    scan = volume(labels, np.eye(4))
    _, geometry = preprocess.preprocess_image(
        volume(labels.astype("float32"), np.eye(4)), "mr", Preprocess((1, 1, 1), (10, 20, 20), "image")
    )
    assert geometry.start == (5, 0, 0) or geometry.start == (4, 0, 0)
    first = int(geometry.start[0])
    assert preprocess.lost_voxels(scan, geometry) == pytest.approx({1: 0, 2: first / 10, 3: 0.5})


def test_voxels_outside_the_crop() -> None:
    _, label = heart()
    _, geometry = preprocess.preprocess_image(
        volume(label.array.astype("float32"), label.affine), "mr", Preprocess((3,) * 3, (60,) * 3, "image")
    )
    restored = preprocess.restore_map(np.full(geometry.shape, 0.25, "float32"), geometry, outside=-1.0)
    assert restored.shape == label.shape
    assert set(np.unique(restored)) == {-1.0, 0.25}
    np.testing.assert_allclose((restored > 0).sum() * 2.0**3, 60.0**3, rtol=0.05)
    assert preprocess.restore_labels(np.ones(geometry.shape, "uint8"), geometry).sum() == (restored > 0).sum()


def test_probabilities_stay_probabilities() -> None:
    _, geometry = preprocess.preprocess_image(heart()[0], "ct", Preprocess((2.7, 3.1, 1.3), (100,) * 3))
    rng = np.random.default_rng(0)
    restored = preprocess.restore_map(rng.random(geometry.shape, dtype=np.float32), geometry)
    assert restored.dtype == np.float32
    assert restored.min() >= 0
    assert restored.max() <= 1 + 1e-6


def test_normalisation_of_ct_and_mr() -> None:
    array = np.linspace(-1000, 2000, 8 * 9 * 10, dtype="float32").reshape(8, 9, 10)
    scan = volume(array, np.eye(4))
    ct, _ = preprocess.preprocess_image(scan, "ct", Preprocess((1, 1, 1), ct_window=(0, 400)))
    np.testing.assert_allclose(ct, np.clip(array, 0, 400) / 200 - 1, atol=1e-5)
    mr, _ = preprocess.preprocess_image(scan, "mr", Preprocess((1, 1, 1), mr_percentiles=(10, 90)))
    low, high = np.percentile(array, (10, 90))
    np.testing.assert_allclose(mr, np.clip((array - low) / (high - low) * 2 - 1, -1, 1), atol=1e-4)
    rare = np.zeros((20, 20, 20), "float32")
    rare[3, 3, 3] = 7
    values, _ = preprocess.preprocess_image(volume(rare, np.eye(4)), "mr", Preprocess((1, 1, 1)))
    assert (values.min(), values.max()) == (-1, 1)
    flat, _ = preprocess.preprocess_image(volume(rare * 0, np.eye(4)), "mr", Preprocess((1, 1, 1), centre="tissue"))
    assert set(np.unique(flat)) == {-1}


@pytest.mark.parametrize("width", [1e-300, 1e-45])
def test_a_window_too_narrow_for_numbers_of_32_bits_shows_no_contrast(width: float) -> None:
    array = np.linspace(-1000, 2000, 8 * 9 * 10, dtype="float32").reshape(8, 9, 10)
    ct, _ = preprocess.preprocess_image(volume(array, np.eye(4)), "ct", Preprocess((1, 1, 1), ct_window=(0, width)))
    assert set(np.unique(ct)) == {-1}


def test_geometry_survives_json_and_brings_the_header_home(tmp_path: Path) -> None:
    phantom = make_phantom(1, 0, "mr", 3.0)
    path = tmp_path / "image.nii.gz"
    write_volume(path, phantom.image, phantom.affine)
    values, geometry = preprocess.preprocess_image(read_image(path), "mr", Preprocess((2.5,) * 3, (120,) * 3))
    again = Geometry.from_dict(json.loads(json.dumps(geometry.to_dict())))
    assert again == geometry
    write_volume(tmp_path / "map.nii.gz", preprocess.restore_map(values, again), None, again.header)
    old, new = nib.load(path), nib.load(tmp_path / "map.nii.gz")
    np.testing.assert_array_equal(old.affine, new.affine)
    assert old.shape == new.shape
    assert new.get_data_dtype() == np.float32


def test_arrays_of_another_grid_are_refused() -> None:
    image, label = heart(4.0)
    values, geometry = preprocess.preprocess_image(image, "ct", Preprocess((4,) * 3))
    with pytest.raises(ValueError, match="not on the cache grid"):
        preprocess.restore_map(values[1:], geometry)
    with pytest.raises(ValueError, match="of its image"):
        preprocess.preprocess_label(volume(label.array[1:], label.affine), geometry)


@pytest.mark.parametrize(
    "bad",
    [
        {"spacing": (1, 1)},
        {"spacing": (1, 1, 0)},
        {"spacing": 2.0},
        {"spacing": (1, 1, 1), "crop_mm": (1, -1, 1)},
        {"spacing": (1, 1, 1), "centre": "lung"},
        {"spacing": (1, 1, 1), "ct_window": (5, 5)},
        {"spacing": (1, 1, 1), "mr_percentiles": (-1, 50)},
    ],
)
def test_bad_settings(bad: dict) -> None:
    with pytest.raises(InputError, match=r"^preprocess: "):
        Preprocess(**bad)


def test_settings_from_lists_equal_those_from_tuples() -> None:
    assert Preprocess([1, 1, None], [2, 3, 4]) == Preprocess((1.0, 1.0, None), (2.0, 3.0, 4.0))  # type: ignore[arg-type]


def test_a_crop_without_any_labelled_voxel_has_lost_all() -> None:
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[:2] = 1
    volume = Volume(labels, np.eye(4), Path("made-up.nii.gz"))
    settings = Preprocess(spacing=(None, None, None), crop_mm=(3.0, 3.0, 3.0), centre="image")
    _, geometry = preprocess.preprocess_image(replace(volume, array=labels.astype(np.float32)), "mr", settings)
    assert preprocess.lost_voxels(volume, geometry) == {1: 1.0}


def test_a_grid_that_no_memory_holds_is_refused_before_it_is_asked_for() -> None:
    image = volume(np.zeros((40, 40, 40), np.int16), np.diag([200.0, 200, 200, 1]))
    settings = Preprocess(spacing=(0.01, 0.01, 0.01), crop_mm=None)
    with pytest.raises(InputError, match=r"made-up.nii.gz: its 8000 x 8000 x 8000 mm would be a grid of 800,000 x"):
        preprocess.preprocess_image(image, "ct", settings)
