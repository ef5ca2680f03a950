"""Orientation, resampling and Dice of real scans beside SimpleITK, MONAI, torch, scipy and scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.metrics import compute_dice
from monai.transforms import Orientation, SpatialResample
from scipy import ndimage
from sklearn.metrics import f1_score

from whqa.data.case import Case, Cohort
from whqa.data.formats.volume_files import Volume
from whqa.data.preprocess import (
    Geometry,
    Preprocess,
    preprocess_image,
    preprocess_label,
    restore_labels,
    restore_map,
)
from whqa.data.reading import read_case
from whqa.data.sources.acdc import read_acdc
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.metrics.segmentation import segmentation_dice

sitk = pytest.importorskip("SimpleITK")
SHARED = Path(__file__).parents[2] / "../shared/data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not beside the repository")
FLIP = np.diag([-1.0, -1.0, 1.0])
GRID = Preprocess((1.25, 1.75, 2.25), (120.0, 100.0, 110.0), "image")
COARSE = Preprocess((3.0, 3.0, 3.0), (120.0, 100.0, 110.0), "image")


def hearts() -> tuple[Cohort, Sequence[Case]]:
    cohort = read_mmwhs(SHARED / "whole_heart")
    return cohort, cohort.cases


def in_itk(array: np.ndarray, affine: np.ndarray) -> Any:
    """An array (X, Y, Z) with a RAS affine as a SimpleITK image."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((FLIP @ affine[:3, 3]).tolist())
    image.SetDirection((FLIP @ (affine[:3, :3] / spacing)).ravel().tolist())
    return image


def resampled(image: Any, affine: np.ndarray, shape: Sequence[int], how: int) -> np.ndarray:
    """By SimpleITK on the grid of a RAS affine: (X, Y, Z) float64."""
    reference = in_itk(np.zeros(shape, np.uint8), affine)
    found = sitk.Resample(sitk.Cast(image, sitk.sitkFloat64), reference, sitk.Transform(), how, 0.0)
    return sitk.GetArrayFromImage(found).T


def inner(geometry: Geometry, volume: Volume) -> np.ndarray:
    """Cache voxels whose neighbours all lie within the scan, where no edge rule matters."""
    to_scan = np.linalg.inv(volume.affine) @ geometry.cache_affine
    voxels = np.indices(geometry.shape).reshape(3, -1)
    at = to_scan[:3, :3] @ voxels + to_scan[:3, 3:]
    return ((at >= 0) & (at <= np.array(volume.shape)[:, None] - 1)).all(axis=0).reshape(geometry.shape)


@pytest.mark.parametrize("code", ["RAS", "LPS", "PIR", "SAL", "ILP"])
def test_a_scan_stored_in_any_orientation_by_simpleitk_is_read_to_one_array(code: str, tmp_path: Path) -> None:
    cohort, cases = hearts()
    case = cases[0]
    files = []
    for path, name in ((case.image, "image"), (case.label, "label")):
        files.append(tmp_path / f"{name}.nii.gz")
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(path)), code), str(files[-1]))
    whole = Preprocess((None, None, None))
    (image, label), (other_image, other_label) = (
        read_case(cohort, one) for one in (case, Case("1", "1", "ct", files[0], files[1]))
    )
    assert label is not None and other_label is not None  # noqa: PT018
    values, geometry = preprocess_image(image, "ct", whole)
    other_values, other_geometry = preprocess_image(other_image, "ct", whole)
    np.testing.assert_array_equal(values, other_values)
    np.testing.assert_allclose(geometry.cache_affine, other_geometry.cache_affine, atol=1e-3)
    np.testing.assert_array_equal(preprocess_label(label, geometry), preprocess_label(other_label, other_geometry))


def test_orientation_of_real_scans_is_that_of_simpleitk_and_monai() -> None:
    cohort, cases = hearts()
    mine = [(cohort, case) for case in cases]
    mine += [(acdc, case) for acdc in [read_acdc(SHARED / "acdc")] for case in acdc.cases[::24]]
    for source, case in mine:
        image, _ = read_case(source, case)
        values, geometry = preprocess_image(image, "ct", Preprocess((None,) * 3, ct_window=(-1e4, 1e4)))
        itk = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(case.image)), "RAS")).T
        np.testing.assert_allclose(values * 1e4, itk, atol=2e-3)
        turned = Orientation("RAS", labels=None)(MetaTensor(torch.from_numpy(image.array)[None], affine=image.affine))
        np.testing.assert_allclose(values * 1e4, turned[0].numpy(), atol=2e-3)
        np.testing.assert_allclose(geometry.cache_affine, turned.affine.numpy(), atol=1e-4)


@pytest.mark.parametrize("grid", [GRID, COARSE], ids=["finer", "coarser"])
def test_labels_on_the_cache_grid_are_the_heaviest_of_simpleitks_linear_maps(grid: Preprocess) -> None:
    cohort, cases = hearts()
    for case in cases:
        image, label = read_case(cohort, case)
        assert label is not None
        _, geometry = preprocess_image(image, "ct", grid)
        cached = preprocess_label(label, geometry)
        maps = [
            resampled(in_itk((label.array == i).astype(np.uint8), label.affine), geometry.cache_affine, cached.shape, 2)
            for i in range(cohort.scheme.n_classes)
        ]
        ordered = np.sort(maps, axis=0)
        clear = inner(geometry, label) & (ordered[-1] - ordered[-2] > 1e-3)
        assert clear.mean() > 0.9
        np.testing.assert_array_equal(cached[clear], np.argmax(maps, axis=0)[clear])


def test_maps_that_return_are_simpleitks_and_monais_linear_interpolation() -> None:
    cohort, cases = hearts()
    for case in cases:
        image, _ = read_case(cohort, case)
        _, geometry = preprocess_image(image, "ct", COARSE)
        values = np.random.default_rng(0).random(geometry.shape, dtype=np.float32)
        back = restore_map(values, geometry)
        by_itk = resampled(in_itk(values, geometry.cache_affine), image.affine, image.shape, sitk.sitkLinear)
        tensor = MetaTensor(torch.from_numpy(values)[None], affine=geometry.cache_affine)
        resample = SpatialResample(mode="bilinear", padding_mode="zeros", align_corners=True, dtype=torch.float64)
        by_monai = resample(tensor, dst_affine=torch.from_numpy(image.affine), spatial_size=image.shape)[0].numpy()
        to_cache = np.linalg.inv(geometry.cache_affine) @ image.affine
        at = to_cache[:3, :3] @ np.indices(image.shape).reshape(3, -1) + to_cache[:3, 3:]
        hull = ((at >= 0) & (at <= np.array(geometry.shape)[:, None] - 1)).all(axis=0).reshape(image.shape)
        assert hull.mean() > 0.1
        np.testing.assert_allclose(back[hull], by_itk[hull], atol=1e-4)
        np.testing.assert_allclose(back[hull], by_monai[hull], atol=1e-4)


def test_images_are_torchs_anti_aliased_cubic_where_the_grids_agree() -> None:
    """torch has two axes; with as many target voxels as fit exactly both start half a target voxel inside."""
    cohort, cases = hearts()
    for case in cases:
        image, _ = read_case(cohort, case)
        native = float(np.linalg.norm(image.affine[:3, 0]))
        sizes = [round(0.55 * n) for n in image.shape[:2]]
        spacing = tuple(native * n / m for n, m in zip(image.shape, sizes, strict=False))
        values, geometry = preprocess_image(image, "ct", Preprocess((spacing[0], spacing[1], None)))
        assert geometry.shape == (*sizes, image.shape[2])
        clipped = np.clip(image.array[::-1, ::-1], -250, 650).transpose(2, 0, 1)[:, None].copy()
        small = torch.nn.functional.interpolate(torch.from_numpy(clipped), sizes, mode="bicubic", antialias=True)
        expected = np.clip((small[:, 0].permute(1, 2, 0).numpy() + 250) / 450 - 1, -1, 1)
        np.testing.assert_allclose(values, expected, atol=2e-4)


@pytest.mark.parametrize("grid", [GRID, COARSE], ids=["finer", "coarser"])
def test_images_lie_where_simpleitk_puts_them(grid: Preprocess) -> None:
    """A smoothed spline of SimpleITK on the cache's affine looks alike, and less so a third of a voxel off."""
    cohort, cases = hearts()
    for case in cases:
        image, _ = read_case(cohort, case)
        values, geometry = preprocess_image(image, "ct", grid)
        smooth = in_itk(np.clip(image.array, -250, 650), image.affine)
        blur = [0.3 * max(s, 1.5) for s in geometry.spacing]
        smooth = sitk.SmoothingRecursiveGaussian(sitk.Cast(smooth, sitk.sitkFloat64), blur)
        core = ndimage.binary_erosion(inner(geometry, image), iterations=3)

        def correlation(shift: np.ndarray) -> float:
            moved = geometry.cache_affine.copy()  # noqa: B023 - called within the loop
            moved[:3, 3] += moved[:3, :3] @ shift
            theirs = resampled(smooth, moved, values.shape, sitk.sitkBSpline)[core]  # noqa: B023
            return float(np.corrcoef(values[core], theirs)[0, 1])  # noqa: B023

        here = correlation(np.zeros(3))
        assert here > 0.97
        for axis in range(3):
            for sign in (-1, 1):
                assert correlation(sign * np.eye(3)[axis] / 3) < here


def test_dice_of_real_masks_is_that_of_monai_and_scikit_learn() -> None:
    cohort, cases = hearts()
    for case in cases:
        image, label = read_case(cohort, case)
        assert label is not None
        _, geometry = preprocess_image(image, "ct", Preprocess((4.0, 4.0, 4.0)))
        mask = restore_labels(preprocess_label(label, geometry), geometry)
        n = cohort.scheme.n_classes
        ours = segmentation_dice(torch.from_numpy(mask), torch.from_numpy(np.ascontiguousarray(label.array)), n)
        assert 0.5 < min(ours) < max(ours) < 1
        theirs = f1_score(label.array.ravel(), mask.ravel(), labels=range(1, n), average=None)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
        one_hot = [torch.from_numpy(np.stack([m == i for i in range(n)])[None]) for m in (mask, label.array)]
        np.testing.assert_allclose(ours, compute_dice(*one_hot, include_background=False)[0], rtol=1e-5)
