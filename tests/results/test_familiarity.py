"""Who is called a stranger: exact fences on made-up tables, then phantoms that the run has never seen."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whqa.data.case import Modality
from whqa.data.formats.volume_files import Volume
from whqa.data.phantom import make_phantom
from whqa.data.preprocess import Geometry, Preprocess, preprocess_image, preprocess_label
from whqa.errors import InputError
from whqa.results.familiarity import FAMILIES, MIN_CASES, feature_table, read_features, unchecked, unfamiliar
from whqa.results.features import feature_names, features
from whqa.structures import MMWHS

MM = 6.0
GRID = Preprocess((MM, MM, MM))
Prepared = tuple[np.ndarray, np.ndarray, Geometry]


def _table(**columns: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(values, dtype=float) for name, values in columns.items()}


def _found(values: Mapping[str, float], table: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    return {entry["feature"]: entry for entry in unfamiliar(values, table)}


def test_every_feature_has_a_family() -> None:
    table = _table(**{name: np.linspace(0.1, 0.9, 20) for name in feature_names(MMWHS.keys)})
    assert unfamiliar(dict.fromkeys(table, 0.5), table) == []
    used = {n if n in FAMILIES else n.rsplit("_", 1)[0] for n in table}
    assert used == set(FAMILIES)


@pytest.mark.parametrize(("name", "size", "scale"), [("contrast_lv", 1, np.asarray), ("volume_lv", 100, np.log)])
def test_the_fences_are_tukey_s_outer_ones(name: str, size: float, scale: Any) -> None:
    known = size * np.random.default_rng(0).uniform(0.2, 0.5, 40)
    first, third = np.percentile(scale(known), [25, 75])
    upper, lower = third + 3 * (third - first), first - 3 * (third - first)
    if scale is np.log:
        upper, lower = np.exp([upper, lower])
    for edge, sign in ((upper, 1), (lower, -1)):
        assert unfamiliar({name: edge - sign * 1e-6}, _table(**{name: known})) == []
        (entry,) = unfamiliar({name: edge + sign * 1e-6}, _table(**{name: known}))
        assert (entry["low"], entry["high"]) == pytest.approx((lower, upper))
        assert entry["value"] == edge + sign * 1e-6


def test_slices_of_5_mm_are_named_with_what_the_run_knows() -> None:
    known = _table(slice_mm=np.linspace(0.9, 1.1, 30), pixel_mm=np.full(30, 0.9))
    (entry,) = unfamiliar({"slice_mm": 5.0, "pixel_mm": 0.9}, known)
    assert entry["message"] == "The coarsest voxel spacing is 5 mm; in the run's own cases it is 0.9 to 1.1 mm."
    assert entry["low"] < 0.9 < 1.1 < entry["high"] < 5


def test_a_cohort_of_equal_scans_still_knows_small_differences() -> None:
    known = _table(pixel_mm=np.full(30, 2.0), fov_lr_mm=np.full(30, 168.0))
    assert unfamiliar({"pixel_mm": 2.2, "fov_lr_mm": 180.0}, known) == []
    assert set(_found({"pixel_mm": 1.2, "fov_lr_mm": 60.0}, known)) == {"pixel_mm", "fov_lr_mm"}


def test_a_minority_with_another_protocol_is_known_and_a_single_outlier_is_not() -> None:
    slices = np.full(99, 10.0)
    slices[:11] = 5.0
    assert unfamiliar({"slice_mm": 5.0}, _table(slice_mm=slices)) == []
    slices[1:11] = 10.0
    (entry,) = unfamiliar({"slice_mm": 5.0}, _table(slice_mm=slices))
    assert entry["message"].endswith("in the run's own cases it is 10 mm.")


def test_a_missing_structure_is_called_missing() -> None:
    known = _table(volume_lv=np.linspace(60, 200, 30), heart_ml=np.linspace(400, 900, 30))
    (entry,) = unfamiliar({"heart_ml": 500.0, "volume_lv": 0.0}, known)
    assert entry["message"] == ("The left ventricle is missing from the mask; the run's own cases have 60 to 200 ml.")
    (entry,) = unfamiliar({"heart_ml": 0.0, "volume_lv": 0.0}, known)
    assert entry["message"].startswith("Everything is missing from the mask")


def test_a_mask_that_matches_its_image_better_than_all_others_is_no_stranger() -> None:
    known = _table(explained=np.linspace(0.5, 0.6, 30), edge=np.linspace(1.2, 1.4, 30))
    assert unfamiliar({"explained": 0.99, "edge": 5.0}, known) == []
    (entry,) = unfamiliar({"explained": 0.1, "edge": 1.3}, known)
    assert (entry["feature"], entry["high"]) == ("explained", 1.0)


def test_a_structure_in_one_piece_is_no_stranger_to_a_run_of_torn_masks() -> None:
    known = _table(components_pa=np.tile([4, 5, 6], 10))
    assert unfamiliar({"components_pa": 1.0}, known) == []
    (entry,) = unfamiliar({"components_pa": 90.0}, known)
    assert (entry["feature"], entry["low"]) == ("components_pa", 1.0)


def test_a_mask_like_the_references_is_no_stranger_to_a_run_of_poor_masks() -> None:
    poor, right = np.linspace(0.01, 0.02, 30), np.linspace(0.08, 0.12, 30)
    known = _table(share_pa=poor)
    assert unfamiliar({"share_pa": 0.1}, known)
    known |= {"reference share_pa": right}
    assert [unfamiliar({"share_pa": share}, known) for share in (0.015, 0.05, 0.1)] == [[], [], []]
    (entry,) = unfamiliar({"share_pa": 0.9}, known)
    assert entry["message"].endswith("in the run's own cases it is 0.01 to 0.12.")
    few = known | {"reference share_pa": right[: MIN_CASES - 1]}
    assert unfamiliar({"share_pa": 0.1}, few)


def test_the_strangest_comes_first_and_stands_for_its_topic() -> None:
    known = _table(**{k: np.linspace(-0.1, 0.1, 30) for k in ("inside_p50", "inside_p95", "outside_p50")})
    found = unfamiliar({"inside_p50": 0.6, "inside_p95": 0.9, "outside_p50": 0.7}, known)
    assert [e["feature"] for e in found] == ["inside_p95", "outside_p50"]


def test_what_is_not_a_number_is_not_strange() -> None:
    known = _table(contrast_lv=[*np.linspace(0, 1, 20), *[np.nan] * 5], contrast_rv=[np.nan] * 25)
    assert unfamiliar({"contrast_lv": float("nan"), "contrast_rv": 5.0}, known) == []
    assert set(_found({"contrast_lv": 9.0}, known)) == {"contrast_lv"}


def test_a_run_without_numbers_says_that_it_could_not_check(tmp_path: Path) -> None:
    assert feature_table(read_features(tmp_path)) == {}
    assert "could not be checked: the run has no" in str(unchecked({}))
    few = _table(noise=np.linspace(0.1, 0.2, MIN_CASES - 1))
    assert f"has {MIN_CASES - 1} case(s)" in str(unchecked(few))
    assert unfamiliar({"noise": 100.0}, few) == []
    assert unchecked(_table(noise=np.linspace(0.1, 0.2, MIN_CASES))) is None


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00", b'case,"' + b"x" * 200_000])
def test_a_damaged_table_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "errormap" / "0" / "features.csv"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"features\.csv: not "):
        read_features(tmp_path)


@cache
def _phantom(seed: int, index: int, modality: Modality = "ct", preparing: Modality = "ct", thin: int = 1) -> Prepared:
    """A phantom with its label as the mask; `thin` takes every n-th slice, `preparing` is what the user says it is."""
    phantom = make_phantom(seed, index, modality, MM)
    affine = phantom.affine @ np.diag([1, 1, thin, 1])
    image = Volume(phantom.image[:, :, ::thin].astype(np.float32), affine, Path("image"))
    label = Volume(MMWHS.to_indices(phantom.label[:, :, ::thin], "label"), affine, Path("label"))
    array, geometry = preprocess_image(image, preparing, GRID)
    return array, preprocess_label(label, geometry), geometry


@pytest.fixture(scope="module")
def run() -> dict[str, np.ndarray]:
    rows = [features(*_phantom(0, i), MMWHS.keys) for i in range(20)]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _warnings(prepared: Prepared, run: Mapping[str, np.ndarray]) -> set[str]:
    return set(_found(features(*prepared, MMWHS.keys), run))


def test_phantoms_of_another_seed_are_familiar(run: dict[str, np.ndarray]) -> None:
    counts = [len(_warnings(_phantom(1, i), run)) for i in range(8)]
    assert sum(count > 0 for count in counts) <= 2
    assert max(counts) <= 2


@pytest.mark.parametrize("index", [0, 1])
def test_another_modality_is_seen_in_the_grey_values(index: int, run: dict[str, np.ndarray]) -> None:
    found = _warnings(_phantom(1, index, "mr", "ct"), run)
    assert found & {"outside_p50", "outside_p05", "explained", "inside_p50", "inside_p95", "contrast_la"}


def test_thick_slices_are_seen(run: dict[str, np.ndarray]) -> None:
    assert "slice_mm" in _warnings(_phantom(1, 0, thin=2), run)


def test_a_tiny_field_of_view_is_seen(run: dict[str, np.ndarray]) -> None:
    image, mask, geometry = _phantom(1, 0)
    record = geometry.to_dict() | {"original_shape": (10, 10, 10), "shape": (10, 10, 10)}
    middle = tuple(slice(n // 2 - 5, n // 2 + 5) for n in image.shape)
    assert {"fov_lr_mm", "voxels"} <= _warnings((image[middle], mask[middle], Geometry.from_dict(record)), run)


@pytest.mark.parametrize(("axis", "voxels"), [(0, 2), (1, -2), (2, 3)])
def test_a_mask_that_slipped_is_seen(axis: int, voxels: int, run: dict[str, np.ndarray]) -> None:
    image, mask, geometry = _phantom(1, 0)
    assert "explained" in _warnings((image, np.roll(mask, voxels, axis), geometry), run)


@pytest.mark.parametrize(("one", "other"), [("lv", "rv"), ("la", "ra"), ("ao", "pa")])
def test_swapped_structures_are_seen_at_their_places(one: str, other: str, run: dict[str, np.ndarray]) -> None:
    image, mask, geometry = _phantom(1, 1)
    a, b = MMWHS.keys.index(one) + 1, MMWHS.keys.index(other) + 1
    swapped = np.where(mask == a, b, np.where(mask == b, a, mask)).astype(np.uint8)
    found = _warnings((image, swapped, geometry), run)
    assert any(name.startswith("offset") and name.endswith((f"_{one}", f"_{other}")) for name in found)


def test_a_mirrored_mask_is_seen(run: dict[str, np.ndarray]) -> None:
    image, mask, geometry = _phantom(1, 1)
    assert any(name.startswith("offset_lr") for name in _warnings((image, mask[::-1].copy(), geometry), run))


def test_an_empty_mask_is_seen_once(run: dict[str, np.ndarray]) -> None:
    image, mask, geometry = _phantom(1, 0)
    found = _warnings((image, np.zeros_like(mask), geometry), run)
    assert "heart_ml" in found
    assert not any(name.startswith("volume") for name in found)


@pytest.mark.slow
def test_one_held_out_phantom_in_ten_at_most_is_a_stranger() -> None:
    rows = [features(*_phantom(0, i), MMWHS.keys) for i in range(36)]
    run = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    strangers = sum(bool(_warnings(_phantom(1, i), run)) for i in range(80))
    print(f"{strangers} of 80 held-out phantoms have a warning")
    assert strangers <= 8
