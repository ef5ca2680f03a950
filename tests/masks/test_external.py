"""Masks of other programs: on the right grid, with the right labels, never stale; whatever is wrong is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from whqa.data.cache import Cache, PreparedCase
from whqa.data.case import Cohort
from whqa.data.folds import Folds, make_folds
from whqa.data.preprocess import Preprocess
from whqa.data.sources.folder import read_folder
from whqa.errors import InputError
from whqa.masks.external import ExternalMethod, predictions, refuse_bare
from whqa.masks.importing import Imported, import_masks
from whqa.masks.made_from import MadeFrom, refuse_other_masks, write_made_from
from whqa.masks.run_state import COMPLETED
from whqa.masks.store import mask_path, read_index, write_mask

VALUES = {"rv": 1, "myo": 2, "lv": 3}
SHAPE = (14, 12, 10)
# Axes of the stored images: straight, turned and flipped, oblique.
TURN = np.array([[0, 2.0, 0], [0, 0, -2.5], [-3.0, 0, 0]])
OBLIQUE = np.diag([2.0, 2.5, 3.0]) @ np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
AXES = {"a": np.diag([2.0, 2.5, 3.0]), "b": TURN, "c": OBLIQUE, "d": np.diag([-2.0, -2.5, 3.0])}


def _affine(axes: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (-20, 7, 33)
    return affine


def _labels(seed: int) -> np.ndarray:
    """A small heart of random blocks, every structure present."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.int16)
    for value, start in ((1, 2), (2, 4), (3, 6)):
        at = rng.integers(start - 1, start + 1, 3)
        labels[at[0] : at[0] + 5, at[1] : at[1] + 4, at[2] : at[2] + 3] = value
    return labels


def _save(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def _perturbed(case: str) -> np.ndarray:
    return np.roll(_labels(ord(case)), 1, axis=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images, references, and predictions of another program."""
    for case, axes in AXES.items():
        image = np.random.default_rng(ord(case)).normal(100, 20, SHAPE).astype(np.float32)
        _save(tmp_path / "data" / f"{case}_image.nii.gz", image, _affine(axes))
        _save(tmp_path / "data" / f"{case}_label.nii.gz", _labels(ord(case)), _affine(axes))
        _save(tmp_path / "preds" / f"{case}.nii.gz", _perturbed(case), _affine(axes))
    return tmp_path


class Study:
    """A cohort in a cache; `bring` imports a method's masks."""

    def __init__(self, root: Path, spacing: float | None = None, **settings: Any) -> None:
        self.root, self.experiment = root, root / "runs" / "x"
        self.cohort: Cohort = read_folder(root / "data", scheme="acdc", **settings)
        cache = Cache(root / "cache", Preprocess(spacing=(spacing,) * 3))
        self.cases: dict[str, PreparedCase] = {c.id: cache.prepare(self.cohort, c) for c in self.cohort.cases}
        self.folds: Folds = make_folds(self.cohort, 2, 0)

    def bring(self, **settings: Any) -> Imported:
        method = ExternalMethod("nnunet", **{"root": self.root / "preds", "unseen": True} | settings)
        return import_masks(method, self.experiment, self.cohort, self.folds, self.cases)

    def masks(self, **settings: Any) -> dict[str, np.ndarray]:
        return {item.case: item.load()[0] for item in self.bring(**settings).items}


def _canonical(path: Path) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)


@pytest.fixture
def study(root: Path) -> Study:
    return Study(root)


def test_masks_come_to_the_grid_of_their_image(study: Study) -> None:
    found = study.masks()
    assert list(found) == list(AXES)
    for case, mask in found.items():
        np.testing.assert_array_equal(mask, _canonical(study.root / "preds" / f"{case}.nii.gz"))
        assert mask.dtype == np.uint8
        assert mask.shape == study.cases[case].image().shape


def test_items_say_what_they_are_and_have_no_entropy(study: Study) -> None:
    for item in study.bring().items:
        assert (item.kind, item.segmenter, item.unseen, item.has_entropy) == ("nnunet", "nnunet", True, False)
        mask, entropy = item.load()
        assert entropy is None
        label = _canonical(study.root / "data" / f"{item.case}_label.nii.gz")
        assert item.error_rate == pytest.approx((mask != label).mean(), rel=1e-6)
        assert item.path == study.experiment / "external" / "nnunet" / "masks" / item.case / "nnunet.npz"


def test_the_index_is_that_of_a_segmenter(study: Study) -> None:
    study.bring()
    rows = read_index(study.experiment / "external" / "nnunet")
    names = ["case", "patient", "fold", "mask_kind", "segmenter", "unseen", "error_rate"]
    assert list(rows[0])[:13] == [*names, *(f"dice_{s}" for s in VALUES), *(f"hd95_{s}" for s in VALUES)]
    for row in rows:
        mask, label = _perturbed(row["case"]), _labels(ord(row["case"]))
        assert (row["fold"], row["unseen"]) == (str(study.folds.fold_of(row["case"])), "1")
        for key, value in VALUES.items():
            both = ((mask == value) & (label == value)).sum()
            expected = 2 * both / ((mask == value).sum() + (label == value).sum())
            assert float(row[f"dice_{key}"]) == pytest.approx(expected, rel=1e-6)
            assert float(row[f"hd95_{key}"]) > 0


@pytest.mark.parametrize("spacing", [None, 4.0])
def test_the_reference_as_a_mask_has_no_error(root: Path, spacing: float | None) -> None:
    study = Study(root, spacing)
    for case in "abc":
        shutil.copy(root / "data" / f"{case}_label.nii.gz", root / "preds" / f"{case}.nii.gz")
    *right, other = study.bring().items
    assert [item.error_rate for item in right] == [0.0] * 3
    assert other.error_rate > 0
    for item in right:
        np.testing.assert_array_equal(item.load()[0], study.cases[item.case].label())


def test_masks_that_no_program_makes_are_refused_or_told(study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    preds = study.root / "preds"
    study.bring(root=study.root / "data", pattern="*_label.nii.gz")
    said = capsys.readouterr().err
    assert said.startswith("note: masks.external.nnunet: all 4 masks are the references themselves, to the voxel; ")
    assert said.count("\n") == 1
    for case, axes in AXES.items():
        _save(preds / f"{case}.nii.gz", np.zeros(SHAPE, np.int16), _affine(axes))
    with pytest.raises(InputError, match="no mask of nnunet has a structure in common with its reference; are they"):
        study.bring()
    capsys.readouterr()
    for case, axes in AXES.items():
        mask = _perturbed(case)
        mask[mask == VALUES["rv"]] = 0
        _save(preds / f"{case}.nii.gz", mask, _affine(axes))
    study.bring()
    said = capsys.readouterr().err
    assert said.startswith("note: masks.external.nnunet: rv of its masks meets the reference in none of 4 cases; ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SRP", "AIL"])
def test_a_program_may_store_its_masks_turned(study: Study, codes: str) -> None:
    before = study.masks()
    for case in AXES:
        path = study.root / "preds" / f"{case}.nii.gz"
        image = nib.load(path)
        turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(codes)))
        turned = image.as_reoriented(turn)
        _save(path, np.asarray(turned.dataobj), turned.affine)
    after = study.masks()
    for case, mask in before.items():
        np.testing.assert_array_equal(after[case], mask)


@pytest.mark.parametrize("believed", ["pixdim", "affine"])
@pytest.mark.parametrize("rule", ["pixdim", "affine"])
def test_a_program_may_believe_either_half_of_a_contradictory_header(root: Path, rule: str, believed: str) -> None:
    true, lie = _affine(np.diag([2.0, 2.0, 8.0])), _affine(np.diag([2.0, 2.0, 4.0]))
    for case in AXES:
        for kind in ("image", "label"):
            path = root / "data" / f"{case}_{kind}.nii.gz"
            image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), lie)
            image.header["pixdim"][3] = 8.0
            nib.save(image, path)
        _save(root / "preds" / f"{case}.nii.gz", _perturbed(case), true if believed == "pixdim" else lie)
    study = Study(root, spacing_rule=rule)
    for case, mask in study.masks().items():
        np.testing.assert_array_equal(mask, _perturbed(case))


def test_a_mask_whose_own_header_contradicts_itself_is_read_as_its_image(study: Study) -> None:
    for case, axes in AXES.items():
        image = nib.Nifti1Image(_perturbed(case), _affine(axes))
        image.header["pixdim"][1:4] = 1.0
        nib.save(image, study.root / "preds" / f"{case}.nii.gz")
    for case, mask in study.masks().items():
        np.testing.assert_array_equal(mask, _canonical(study.root / "preds" / f"{case}.nii.gz"))


def test_a_cropped_mask_is_filled_with_background(study: Study) -> None:
    _save(study.root / "preds" / "b.nii.gz", _perturbed("b")[:-1], _affine(TURN))
    whole = _perturbed("b")
    whole[-1] = 0
    path = _save(study.root / "whole.nii.gz", whole, _affine(TURN))
    np.testing.assert_array_equal(study.masks()["b"], _canonical(path))


@pytest.mark.parametrize("change", ["shift", "spacing"])
def test_a_mask_on_another_grid_is_refused(study: Study, change: str) -> None:
    array, affine = _perturbed("b"), _affine(TURN)
    if change == "shift":
        affine[:3, 3] += 2
    else:
        affine[:3, :3] *= 1.1
    path = _save(study.root / "preds" / "b.nii.gz", array, affine)
    with pytest.raises(InputError, match="differs from") as error:
        study.bring()
    assert str(path) in str(error.value)
    assert "b_image.nii.gz" in str(error.value)


def test_unknown_values_are_refused(study: Study) -> None:
    array = _perturbed("c")
    array[0, 0, 0] = 9
    path = _save(study.root / "preds" / "c.nii.gz", array, _affine(OBLIQUE))
    with pytest.raises(InputError, match=r"unknown label value\(s\) \[9\]") as error:
        study.bring()
    assert str(path) in str(error.value)


def test_another_programs_label_values_are_translated(study: Study) -> None:
    expected = study.masks()
    scheme = {"lv": 40, "ao": 50, "myo": 30, "rv": 20}
    table = np.array([0, 20, 30, 40], np.int16)
    for case, axes in AXES.items():
        array = table[_perturbed(case)]
        array[-1, -1, -1] = 50  # a structure that the cohort's references do not have
        _save(study.root / "preds" / f"{case}.nii.gz", array, _affine(axes))
    for case, mask in study.masks(scheme=scheme).items():
        np.testing.assert_array_equal(mask, expected[case])


@pytest.mark.parametrize(
    ("scheme", "says"),
    [
        ({"lv": 3, "rv": 1}, r"scheme: lacks myo; cohort 'folder' has rv, myo, lv"),
        ({"lv": 3, "rv": 1, "myo": 2, "la": 4, "ventricle": 5}, "ventricle is no structure"),
        ("nonsense", "no label scheme 'nonsense'"),
        ({"lv": "three", "rv": 1, "myo": 2}, r"masks\.external\.nnunet\.scheme"),
        (7, r"masks\.external\.nnunet\.scheme"),
    ],
)
def test_a_scheme_that_does_not_fit_is_refused(study: Study, scheme: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        study.bring(scheme=scheme)


def _write_parts(study: Study) -> dict[str, str]:
    """One folder a case with one binary mask a structure; in the first case two of them overlap."""
    for case, axes in AXES.items():
        for key, value in VALUES.items():
            part = (_perturbed(case) == value).astype(np.uint8) * (255 if case == "b" else 1)
            if case == "a" and key == "rv":
                part[6:9, 6:9, 6:9] = 1
            _save(study.root / "total" / case / "segmentations" / f"heart_{key}.nii.gz", part, _affine(axes))
    return {key: f"heart_{key}.nii.gz" for key in ("rv", "lv", "myo")}


def test_masks_may_come_in_parts(study: Study) -> None:
    expected = study.masks()
    settings = {"parts": _write_parts(study), "root": study.root / "total", "pattern": "*/segmentations"}
    for case, mask in study.masks(**settings).items():
        if case == "a":  # rv comes first, so the others cover it
            wide = expected[case][6:9, 6:9, 6:9]
            expected[case][6:9, 6:9, 6:9] = np.where(wide == 0, 1, wide)
        np.testing.assert_array_equal(mask, expected[case])
    lost = study.root / "total" / "d" / "segmentations" / "heart_lv.nii.gz"
    lost.unlink()
    with pytest.raises(InputError, match="no such file; correct its name") as error:
        study.bring(**settings)
    assert str(lost) in str(error.value)


def test_parts_must_name_the_structures(study: Study) -> None:
    parts = _write_parts(study)
    with pytest.raises(InputError, match=r"parts: lacks lv; cohort"):
        study.bring(parts={"rv": "x", "myo": "y"}, root=study.root / "total", pattern="*/segmentations")
    with pytest.raises(InputError, match="leave scheme out"):
        ExternalMethod("nnunet", study.root, "*", scheme="acdc", parts=parts)


def test_missing_masks_are_counted(study: Study) -> None:
    for case in "bd":
        (study.root / "preds" / f"{case}.nii.gz").unlink()
    with pytest.raises(InputError, match=r"no such mask, as of 2 of 4 cases.*nnunet\.partial=true") as error:
        study.bring()
    assert str(error.value).startswith(str(study.root / "preds" / "b.nii.gz"))
    assert sorted(study.masks(partial=True)) == ["a", "c"]
    assert [row["case"] for row in read_index(study.experiment / "external" / "nnunet")] == ["a", "c"]


@pytest.mark.parametrize("partial", [False, True])
def test_a_wrong_pattern_or_folder_is_named(study: Study, partial: bool) -> None:
    with pytest.raises(InputError, match=r"a\.nii: no such mask, as of 4 of 4 cases.*nnunet\.pattern, now \*\.nii$"):
        study.bring(pattern="*.nii", partial=partial)
    with pytest.raises(InputError, match=r"does not exist; it should be a folder with the masks of nnunet"):
        study.bring(root=study.root / "nowhere", partial=partial)
    with pytest.raises(InputError, match="no data folder stated"):
        study.bring(root="???", partial=partial)


def test_what_a_program_has_no_masks_of_needs_others(study: Study) -> None:
    items = study.bring().items
    refuse_bare(items, study.folds)
    with pytest.raises(InputError, match=r"case a: no mask under judgement, as of 1 case"):
        refuse_bare(items[1:], study.folds)


def _times(study: Study) -> dict[str, int]:
    return {p.name: p.stat().st_mtime_ns for p in (study.experiment / "external").rglob("*.*") if p.is_file()} | {
        case: mask_path(study.experiment / "external" / "nnunet", case, "nnunet").stat().st_mtime_ns for case in AXES
    }


def test_what_is_there_is_kept(study: Study) -> None:
    first = study.bring()
    before = _times(study)
    assert study.bring() == first
    assert _times(study) == before


def _change_prediction(study: Study) -> None:
    # of the same size and with the old time, as a careless copy leaves it
    path = study.root / "preds" / "c.nii.gz"
    times = path.stat()
    _save(path, np.roll(_perturbed("c"), 1, axis=0), _affine(OBLIQUE))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def _damage_mask(study: Study) -> None:
    mask_path(study.experiment / "external" / "nnunet", "c", "nnunet").write_bytes(b"PK\x03\x04 half")


def _replace_mask(study: Study) -> None:
    path = mask_path(study.experiment / "external" / "nnunet", "c", "nnunet")
    write_mask(path, np.ones(SHAPE), None, "nnunet", True, made_from=np.array("0" * 16))


def _lose_row(study: Study) -> None:
    table = study.experiment / "external" / "nnunet" / "cases.csv"
    table.write_text("".join(x for x in table.read_text().splitlines(keepends=True) if not x.startswith("c,")))


@pytest.mark.parametrize("change", [_change_prediction, _damage_mask, _replace_mask, _lose_row])
def test_a_mask_is_made_again_when_it_must(study: Study, change: Callable[[Study], None]) -> None:
    study.bring()
    before = _times(study)
    change(study)
    mask = study.masks()["c"]
    np.testing.assert_array_equal(mask, _canonical(study.root / "preds" / "c.nii.gz"))
    after = _times(study)
    assert {case for case in AXES if after[case] != before[case]} == {"c"}
    assert len(read_index(study.experiment / "external" / "nnunet")) == 4


def test_another_reference_is_measured_again(root: Path) -> None:
    Study(root).bring()
    shutil.copy(root / "preds" / "c.nii.gz", root / "data" / "c_label.nii.gz")
    rates = {item.case: item.error_rate for item in Study(root).bring().items}
    assert rates.pop("c") == 0
    assert min(rates.values()) > 0


def test_an_unreadable_index_is_made_again(study: Study) -> None:
    first = study.bring()
    (study.experiment / "external" / "nnunet" / "cases.csv").write_bytes(b"\xff\xfe\x00case\x00\n1\n")
    assert study.bring() == first


def test_several_at_once_write_the_same(root: Path) -> None:
    study, other = Study(root), Study(root)
    other.experiment = root / "runs" / "alone"
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: study.bring(), range(4)))
    alone = other.bring()
    for one in found:
        assert one.digests == alone.digests
        assert one.items == tuple(replace(i, path=o.path) for i, o in zip(alone.items, one.items, strict=True))
    assert not list(root.rglob(".*.npz"))


@pytest.mark.parametrize("began", ["checkpoints", COMPLETED])
def test_a_network_is_not_continued_on_other_masks(study: Study, began: str) -> None:
    run_dir = study.experiment / "errormap" / "0"
    run_dir.mkdir(parents=True)
    write_made_from(run_dir, MadeFrom({}, {"nnunet": study.bring().digests}))
    place = run_dir / began
    place.mkdir() if began == "checkpoints" else place.touch()
    refuse_other_masks([run_dir], {"nnunet": study.bring().digests})
    _change_prediction(study)
    now = {"nnunet": study.bring().digests}
    with pytest.raises(InputError, match=r"errormap/0: holds a run with other masks .*\(masks of nnunet: case c\)"):
        refuse_other_masks([run_dir], now)
    place.rmdir() if place.is_dir() else place.unlink()
    refuse_other_masks([run_dir], now)


def test_predictions_take_the_place_of_the_reference(study: Study) -> None:
    found = predictions(ExternalMethod("nnunet", study.root / "preds"), study.cohort)
    assert [(c.id, c.label) for c in found] == [(c, study.root / "preds" / f"{c}.nii.gz") for c in AXES]
    assert all(c.image == study.cohort[c.id].image for c in found)
