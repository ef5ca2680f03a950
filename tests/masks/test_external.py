"""Masks of other programs: on the right grid, with the right labels, never stale; whatever is wrong is named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from external_study import (
    AXES,
    OBLIQUE,
    SHAPE,
    TURN,
    VALUES,
    Study,
    affine_of,
    canonical,
    labels,
    perturbed,
    save_image,
)
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from whqa.errors import InputError
from whqa.masks.external import ExternalMethod, refuse_bare
from whqa.masks.store import read_index


def test_masks_come_to_the_grid_of_their_image(study: Study) -> None:
    found = study.masks()
    assert list(found) == list(AXES)
    for case, mask in found.items():
        np.testing.assert_array_equal(mask, canonical(study.root / "preds" / f"{case}.nii.gz"))
        assert mask.dtype == np.uint8
        assert mask.shape == study.cases[case].image().shape


def test_items_say_what_they_are_and_have_no_entropy(study: Study) -> None:
    for item in study.bring().items:
        assert (item.kind, item.segmenter, item.unseen, item.has_entropy) == ("nnunet", "nnunet", True, False)
        mask, entropy = item.load()
        assert entropy is None
        label = canonical(study.root / "data" / f"{item.case}_label.nii.gz")
        assert item.error_rate == pytest.approx((mask != label).mean(), rel=1e-6)
        assert item.path == study.experiment / "external" / "nnunet" / "masks" / item.case / "nnunet.npz"


def test_the_index_is_that_of_a_segmenter(study: Study) -> None:
    study.bring()
    rows = read_index(study.experiment / "external" / "nnunet")
    names = ["case", "patient", "fold", "mask_kind", "segmenter", "unseen", "error_rate"]
    assert list(rows[0])[:13] == [*names, *(f"dice_{s}" for s in VALUES), *(f"hd95_{s}" for s in VALUES)]
    for row in rows:
        mask, label = perturbed(row["case"]), labels(ord(row["case"]))
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
        save_image(preds / f"{case}.nii.gz", np.zeros(SHAPE, np.int16), affine_of(axes))
    with pytest.raises(InputError, match="no mask of nnunet has a structure in common with its reference; are they"):
        study.bring()
    capsys.readouterr()
    for case, axes in AXES.items():
        mask = perturbed(case)
        mask[mask == VALUES["rv"]] = 0
        save_image(preds / f"{case}.nii.gz", mask, affine_of(axes))
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
        save_image(path, np.asarray(turned.dataobj), turned.affine)
    after = study.masks()
    for case, mask in before.items():
        np.testing.assert_array_equal(after[case], mask)


@pytest.mark.parametrize("believed", ["pixdim", "affine"])
@pytest.mark.parametrize("rule", ["pixdim", "affine"])
def test_a_program_may_believe_either_half_of_a_contradictory_header(root: Path, rule: str, believed: str) -> None:
    true, lie = affine_of(np.diag([2.0, 2.0, 8.0])), affine_of(np.diag([2.0, 2.0, 4.0]))
    for case in AXES:
        for kind in ("image", "label"):
            path = root / "data" / f"{case}_{kind}.nii.gz"
            image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), lie)
            image.header["pixdim"][3] = 8.0
            nib.save(image, path)
        save_image(root / "preds" / f"{case}.nii.gz", perturbed(case), true if believed == "pixdim" else lie)
    study = Study(root, spacing_rule=rule)
    for case, mask in study.masks().items():
        np.testing.assert_array_equal(mask, perturbed(case))


def test_a_mask_whose_own_header_contradicts_itself_is_read_as_its_image(study: Study) -> None:
    for case, axes in AXES.items():
        image = nib.Nifti1Image(perturbed(case), affine_of(axes))
        image.header["pixdim"][1:4] = 1.0
        nib.save(image, study.root / "preds" / f"{case}.nii.gz")
    for case, mask in study.masks().items():
        np.testing.assert_array_equal(mask, canonical(study.root / "preds" / f"{case}.nii.gz"))


def test_a_cropped_mask_is_filled_with_background(study: Study) -> None:
    save_image(study.root / "preds" / "b.nii.gz", perturbed("b")[:-1], affine_of(TURN))
    whole = perturbed("b")
    whole[-1] = 0
    path = save_image(study.root / "whole.nii.gz", whole, affine_of(TURN))
    np.testing.assert_array_equal(study.masks()["b"], canonical(path))


@pytest.mark.parametrize("change", ["shift", "spacing"])
def test_a_mask_on_another_grid_is_refused(study: Study, change: str) -> None:
    array, affine = perturbed("b"), affine_of(TURN)
    if change == "shift":
        affine[:3, 3] += 2
    else:
        affine[:3, :3] *= 1.1
    path = save_image(study.root / "preds" / "b.nii.gz", array, affine)
    with pytest.raises(InputError, match="differs from") as error:
        study.bring()
    assert str(path) in str(error.value)
    assert "b_image.nii.gz" in str(error.value)


def test_unknown_values_are_refused(study: Study) -> None:
    array = perturbed("c")
    array[0, 0, 0] = 9
    path = save_image(study.root / "preds" / "c.nii.gz", array, affine_of(OBLIQUE))
    with pytest.raises(InputError, match=r"unknown label value\(s\) \[9\]") as error:
        study.bring()
    assert str(path) in str(error.value)


def test_another_programs_label_values_are_translated(study: Study) -> None:
    expected = study.masks()
    scheme = {"lv": 40, "ao": 50, "myo": 30, "rv": 20}
    table = np.array([0, 20, 30, 40], np.int16)
    for case, axes in AXES.items():
        array = table[perturbed(case)]
        array[-1, -1, -1] = 50  # a structure that the cohort's references do not have
        save_image(study.root / "preds" / f"{case}.nii.gz", array, affine_of(axes))
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
            part = (perturbed(case) == value).astype(np.uint8) * (255 if case == "b" else 1)
            if case == "a" and key == "rv":
                part[6:9, 6:9, 6:9] = 1
            save_image(study.root / "total" / case / "segmentations" / f"heart_{key}.nii.gz", part, affine_of(axes))
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
