"""Features against scipy, scikit-image-free formulas and phantoms of known shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from whqa.data.formats.volume_files import Volume
from whqa.data.preprocess import Geometry, Preprocess, preprocess_image
from whqa.results.features import feature_names, features

KEYS = ("lv", "rv", "myo")
SHAPE = (40, 36, 30)
SPACING = (2.0, 2.0, 3.0)


def _geometry(affine: np.ndarray | None = None, shape: tuple[int, int, int] = SHAPE) -> Geometry:
    affine = np.diag([*SPACING, 1.0]) if affine is None else affine
    volume = Volume(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), affine, Path("scan.nii"))
    return preprocess_image(volume, "ct", Preprocess((None, None, None)))[1]


def _ball(centre_mm: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    points = np.stack(np.indices(SHAPE), axis=-1) * SPACING
    return np.linalg.norm(points - centre_mm, axis=-1) <= radius_mm


@pytest.fixture
def mask() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[_ball((30, 34, 40), 12)] = 1
    labels[_ball((54, 34, 46), 9)] = 2
    labels[3:5, 3:5, 3:5] = 2
    return labels


@pytest.fixture
def image(mask: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (np.array([-0.8, 0.4, 0.1, 0.0])[mask] + rng.normal(0, 0.05, SHAPE)).astype(np.float32)


def test_names_are_the_keys_in_order(image: np.ndarray, mask: np.ndarray) -> None:
    assert tuple(features(image, mask, _geometry(), KEYS)) == feature_names(KEYS)


def test_the_file_s_numbers_follow_its_own_axes() -> None:
    # axes P, S, L of a file: 1.5, 4 and 0.9 mm
    affine = np.array([[0, 0, -0.9, 0], [-1.5, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 0, 1.0]])
    geometry = _geometry(affine, (20, 10, 30))
    assert geometry.shape == (30, 20, 10)
    found = features(np.zeros(geometry.shape, np.float32), np.zeros(geometry.shape, np.uint8), geometry, KEYS)
    expected = {"pixel_mm": 0.9, "slice_mm": 4, "fov_lr_mm": 27, "fov_ap_mm": 30, "fov_si_mm": 40, "voxels": 6000}
    assert {k: found[k] for k in expected} == pytest.approx(expected)


def test_structures_are_measured_like_scipy_does(image: np.ndarray, mask: np.ndarray) -> None:
    found = features(image, mask, _geometry(), KEYS)
    voxel = 0.012
    middle = np.array(ndimage.center_of_mass(mask > 0)) * SPACING
    for index, key in enumerate(KEYS[:2], start=1):
        part = mask == index
        assert found[f"volume_{key}"] == pytest.approx(part.sum() * voxel)
        assert found[f"share_{key}"] == pytest.approx(part.sum() / (mask > 0).sum())
        offset = np.array(ndimage.center_of_mass(part)) * SPACING - middle
        assert [found[f"offset_{a}_{key}"] for a in ("lr", "ap", "si")] == pytest.approx(offset.tolist())
        contrast = image[part].mean() - image[(mask > 0) & ~part].mean()
        assert found[f"contrast_{key}"] == pytest.approx(contrast, abs=1e-5)
    assert (found["components_lv"], found["components_rv"]) == (1, 2)
    assert found["heart_ml"] == pytest.approx((mask > 0).sum() * voxel)


def test_a_structure_that_is_not_there_has_no_place_or_shape(image: np.ndarray, mask: np.ndarray) -> None:
    found = features(image, mask, _geometry(), KEYS)
    assert (found["volume_myo"], found["share_myo"]) == (0, 0)
    assert all(np.isnan(found[f"{k}_myo"]) for k in ("components", "roughness", "contrast", "offset_lr"))


def test_an_empty_mask_has_no_inside(image: np.ndarray) -> None:
    found = features(image, np.zeros(SHAPE, np.uint8), _geometry(), KEYS)
    assert found["heart_ml"] == 0
    assert np.isnan([found["inside_p50"], found["outside_p50"], found["edge"], found["share_lv"]]).all()
    assert np.isfinite([found["pixel_mm"], found["noise"]]).all()


def test_the_roughness_of_a_box_is_its_surface_over_that_of_a_ball(image: np.ndarray) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:20, 10:14, 5:12] = 1
    a, b, c = 20, 8, 21
    ball = (36 * np.pi * (a * b * c) ** 2) ** (1 / 3)
    expected = 2 * (a * b + b * c + a * c) / ball
    assert features(image, mask, _geometry(), KEYS)["roughness_lv"] == pytest.approx(expected)


def test_a_ragged_surface_is_rougher(image: np.ndarray, mask: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    ragged = mask.copy()
    ragged[ndimage.binary_dilation(mask == 1) & (mask == 0) & (rng.random(SHAPE) < 0.5)] = 1
    smooth, rough = (features(image, m, _geometry(), KEYS)["roughness_lv"] for m in (mask, ragged))
    assert rough > 1.2 * smooth


@pytest.mark.parametrize("sigma", [0.01, 0.04, 0.15])
def test_noise_is_the_sigma_of_the_gaussian_that_was_added(sigma: float, mask: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    clean = np.array([-0.8, 0.4, 0.1, 0.0])[mask]
    noisy = (clean + rng.normal(0, sigma, SHAPE)).astype(np.float32)
    assert features(noisy, mask, _geometry(), KEYS)["noise"] == pytest.approx(sigma, rel=0.05)


def test_percentiles_are_numpy_s_inside_the_mask_and_far_from_it(image: np.ndarray, mask: np.ndarray) -> None:
    found = features(image, mask, _geometry(), KEYS)
    far = ndimage.distance_transform_edt(mask == 0, sampling=SPACING) > 10
    for p in (5, 25, 50, 75, 95):
        assert found[f"inside_p{p:02d}"] == pytest.approx(np.percentile(image[mask > 0], p), abs=1e-5)
    for p in (5, 50, 95):
        assert found[f"outside_p{p:02d}"] == pytest.approx(np.percentile(image[far], p), abs=1e-5)


def test_explained_is_the_share_of_variance_between_labels(image: np.ndarray, mask: np.ndarray) -> None:
    near = ndimage.distance_transform_edt(mask == 0, sampling=SPACING) <= 10
    values, labels = image[near].astype(float), mask[near]
    within = sum(values[labels == k].var() * (labels == k).sum() for k in np.unique(labels))
    found = features(image, mask, _geometry(), KEYS)["explained"]
    assert found == pytest.approx(1 - within / (values.var() * values.size), rel=1e-5)


def test_a_shifted_mask_matches_the_image_less(image: np.ndarray, mask: np.ndarray) -> None:
    right, shifted = (features(image, m, _geometry(), KEYS) for m in (mask, np.roll(mask, 4, axis=1)))
    assert shifted["explained"] < 0.7 * right["explained"]
    assert shifted["edge"] < 0.7 * right["edge"]


def test_one_voxel_and_one_slice_are_no_trouble() -> None:
    for shape in ((1, 1, 1), (30, 30, 1)):
        geometry = _geometry(shape=shape) if np.prod(shape) > 1 else None
        if geometry is None:
            base = _geometry(shape=(2, 2, 2)).to_dict()
            geometry = Geometry.from_dict(base | {"shape": (1, 1, 1)})
        mask = np.ones(shape, np.uint8)
        found = features(np.zeros(shape, np.float32), mask, geometry, KEYS)
        assert found["volume_lv"] > 0
        assert np.isnan(found["explained"])


def test_arrays_on_another_grid_are_refused(image: np.ndarray, mask: np.ndarray) -> None:
    with pytest.raises(ValueError, match="are not on the grid"):
        features(image[1:], mask[1:], _geometry(), KEYS)
