"""Images and masks as programs really leave them: read rightly, or the cause is named before the mask is blamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from named_labels import saved

from whqa.assessment import TrainedRun, assess, write_assessment
from whqa.cli.commands import main
from whqa.data.sources.totalsegmentator import FILES
from whqa.errors import InputError
from whqa.report.assessment_page import render_report
from whqa.structures import MMWHS, TOTALSEGMENTATOR_HIGHRES, TOTALSEGMENTATOR_V1

Array = np.ndarray


FAULTS: dict[str, tuple[Callable[[Array], Array], str]] = {
    "lost intercept": (lambda a: a + 1064, "nothing lies below 0 HU"),
    "wrapped": (lambda a: np.round(a).astype(np.int16).view(np.uint16).astype(np.float32), "nothing lies below 0 HU"),
    "unit": (lambda a: (a - a.min()) / (a.max() - a.min()), "values look normalised"),
    "byte": (lambda a: np.round(255 * (a - a.min()) / (a.max() - a.min())), "8-bit picture"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_image_s_fault_is_named_before_the_mask_is_blamed(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, fault: str
) -> None:
    change, cause = FAULTS[fault]
    image = change(np.maximum(scan.get_fdata(dtype=np.float32), -1024)).astype(np.float32)
    found = assess((image, scan.affine), (values, scan.affine), run).quality
    assert found["verdict"]["decision"] == "review"
    assert cause in found["verdict"]["reasons"][0]
    assert cause in found["warnings"][0]


def test_a_sound_image_and_mask_have_no_finding(run: TrainedRun, scan: nib.Nifti1Image, values: Array) -> None:
    quality = assess((scan.get_fdata(), scan.affine), (values, scan.affine), run).quality
    assert not [w for w in (*quality["warnings"], *quality["verdict"]["reasons"]) if "in doubt" in w]


def test_an_orientation_that_nobody_stated_is_told_and_never_accepted(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path
) -> None:
    paths = []
    for name, array in (("image.nii", scan.get_fdata(dtype=np.float32)), ("mask.nii", values)):
        image = nib.Nifti1Image(array, None)
        image.header.set_zooms(scan.header.get_zooms())
        image.header["qform_code"] = image.header["sform_code"] = 0
        nib.save(image, tmp_path / name)
        paths.append(tmp_path / name)
    found = assess(*paths, run)
    assert found.quality["verdict"]["decision"] == "review"
    said = "left and right, front and back are unknown; LAS is assumed"
    assert said in found.quality["verdict"]["reasons"][0]
    assert said in found.quality["warnings"][0]
    assert said in render_report(found)


def _as(scheme: object, values: Array) -> Array:
    return scheme.to_values(MMWHS.to_indices(values, "mask"))  # type: ignore[attr-defined, no-any-return]


HIGHRES_NAMES = {value: FILES[key] for key, value in TOTALSEGMENTATOR_HIGHRES.values.items()}


def test_names_in_the_file_say_what_its_values_are(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path
) -> None:
    theirs = _as(TOTALSEGMENTATOR_HIGHRES, values)
    theirs[0, 0, 0] = 9
    names = {**HIGHRES_NAMES, 9: "liver"}
    mask = saved(tmp_path / "mask.nii.gz", theirs.astype(np.uint8), scan.affine, names)
    found = assess((scan.get_fdata(), scan.affine), mask, run)
    np.testing.assert_array_equal(found.mask, MMWHS.to_indices(values, "mask"))
    assert any("read by the names in the file: lv 3, rv 5" in w for w in found.quality["warnings"])
    assert found.corrected_values is not None
    assert found.corrected_values[0, 0, 0] == 9


def test_names_that_contradict_the_label_map_are_refused_with_both(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path
) -> None:
    image = (scan.get_fdata(), scan.affine)
    highres = saved(tmp_path / "highres.nii", _as(TOTALSEGMENTATOR_HIGHRES, values), scan.affine, HIGHRES_NAMES)
    with pytest.raises(
        InputError, match=r"value 7 'pulmonary_artery', the label map 'totalsegmentator_v1' has ao .*leave"
    ):
        assess(image, highres, run, label_map="totalsegmentator_v1")
    whole = np.where(np.isin(values, [0, 820]), 0, 51) + np.where(values == 820, 52, 0)
    names = {7: "pancreas", 51: "heart", 52: "aorta"}
    total = saved(tmp_path / "total.nii", whole.astype(np.uint8), scan.affine, names)
    with pytest.raises(InputError, match=r"value 7 'pancreas'.* has ao for it .*heart as one structure"):
        assess(image, total, run, label_map="totalsegmentator_v1")
    vessels = saved(tmp_path / "vessels.nii", np.where(whole == 52, 52, 0).astype(np.uint8), scan.affine, {52: "aorta"})
    with pytest.raises(InputError, match=r"names no chamber of the heart .*give a mask of the heart's chambers"):
        assess(image, vessels, run)


def test_a_wrong_map_without_names_is_told_by_sizes_and_places(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array
) -> None:
    swapped = {**MMWHS.values, "lv": 550, "ra": 500, "rv": 420, "la": 600}
    found = assess((scan.get_fdata(), scan.affine), (values, scan.affine), run, label_map=swapped).quality
    assert found["verdict"]["decision"] != "accept"
    assert any("in doubt" in reason and "on the other side" in reason for reason in found["verdict"]["reasons"])
    assert any("in doubt" in warning for warning in found["warnings"])
    only = assess(
        (scan.get_fdata(), scan.affine),
        (_as(TOTALSEGMENTATOR_V1, values) == 7, scan.affine),
        run,
        label_map={**TOTALSEGMENTATOR_V1.values, "ao": 1, "ignore": [7]},
    ).quality
    assert any(
        "lv, rv, la, ra, myo, pa are absent from the mask: right only where" in warning for warning in only["warnings"]
    )


def test_a_mask_of_the_image_s_lattice_comes_to_its_grid_with_a_note(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path
) -> None:
    own = nib.Nifti1Image(values, scan.affine)
    turned = own.as_reoriented(np.array([[2, -1], [0, 1], [1, -1]]))
    cut = own.slicer[1:-1, 2:, :-1]
    image = (scan.get_fdata(), scan.affine)
    for mask, note in ((turned, "its axes were turned"), (cut, "the rest was filled with background")):
        found = assess(image, mask, run)
        assert any(note in warning for warning in found.quality["warnings"])
        assert found.corrected_values is not None
        assert found.corrected_values.shape == found.image.shape
    np.testing.assert_array_equal(assess(image, turned, run).mask, MMWHS.to_indices(values, "mask"))


def test_the_advice_for_another_grid_works_in_the_command_that_gave_it(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = saved(tmp_path / "image.nii.gz", scan.get_fdata(dtype=np.float32), scan.affine)
    fine = scan.affine.copy()
    fine[:3, :3] *= 0.7
    size = [int(n / 0.7) for n in values.shape]
    where = np.ix_(
        *[np.minimum(np.round(np.arange(n) * 0.7).astype(int), m - 1) for n, m in zip(size, values.shape, strict=True)]
    )
    mask = saved(tmp_path / "mask.nii.gz", values[where], fine)
    words = ["assess", str(image), str(mask), "--model", str(run.path), "-o", str(tmp_path / "out"), "--no-report"]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "its spacing is" in (said := capsys.readouterr().err)
    assert "add --resample to the command" in said
    with pytest.raises(SystemExit) as end:
        main([*words, "--resample"])
    assert not end.value.code
    assert "resampled onto the image's grid" in capsys.readouterr().out
    written = nib.load(tmp_path / "out" / "corrected_mask.nii.gz")
    assert written.shape == scan.shape
    judged = assess(image, mask, run, resample=True).mask
    assert np.mean(judged == MMWHS.to_indices(values, "mask")) > 0.95


def test_a_mask_that_lost_its_place_is_not_resampled(run: TrainedRun, scan: nib.Nifti1Image, values: Array) -> None:
    with pytest.raises(InputError, match="has the identity as its affine"):
        assess((scan.get_fdata(), scan.affine), (values[1:], np.eye(4)), run, resample=True)


def _parts(folder: Path, scan: nib.Nifti1Image, values: Array) -> Path:
    folder.mkdir()
    for key, name in FILES.items():
        saved(folder / f"{name}.nii.gz", (values == MMWHS.values[key]).astype(np.uint8), scan.affine)
    saved(folder / "liver.nii.gz", np.zeros(values.shape, np.uint8), scan.affine)
    return folder


def test_a_folder_of_structure_files_is_one_mask(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = saved(tmp_path / "image.nii.gz", scan.get_fdata(dtype=np.float32), scan.affine)
    folder = _parts(tmp_path / "segmentations", scan, values)
    words = [
        "assess",
        str(image),
        str(folder),
        "--model",
        str(run.path),
        "-o",
        str(tmp_path / "out"),
        "--no-report",
    ]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    printed = capsys.readouterr().out
    assert "corrected_mask.nii.gz is one label map: lv 500" in printed
    found = assess(image, folder, run)
    np.testing.assert_array_equal(found.mask, MMWHS.to_indices(values, "mask"))
    digest = found.quality["mask"]["sha256"]
    both = (values == MMWHS.values["lv"]) | (values == MMWHS.values["myo"])
    saved(folder / "heart_myocardium.nii.gz", both.astype(np.uint8), scan.affine)
    overlapping = assess(image, folder, run)
    assert any("lie in more than one of its files" in warning for warning in overlapping.quality["warnings"])
    assert overlapping.quality["mask"]["sha256"] != digest
    with pytest.raises(InputError, match="leave --label-map out"):
        assess(image, folder, run, label_map="mmwhs")


def test_folders_that_are_no_mask_say_what_they_are(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path
) -> None:
    image = (scan.get_fdata(), scan.affine)
    for name in ("empty", "vessels", "dicom", "masks"):
        (tmp_path / name).mkdir()
    for name in ("spleen", "aorta"):
        saved(tmp_path / "vessels" / f"{name}.nii.gz", (values > 0).astype(np.uint8), scan.affine)
    (tmp_path / "dicom" / "IM1").write_bytes(bytes(128) + b"DICM" + bytes(200))
    saved(tmp_path / "masks" / "case1.nii.gz", values, scan.affine)
    for name, says in (
        ("empty", "a folder without any volume"),
        ("vessels", "holds no file of a structure of the heart"),
        ("dicom", "holds no DICOM segmentation .* give the mask of the scan|DICOM is read by an extra"),
        ("masks", r"give one, such as .*case1\.nii\.gz"),
    ):
        with pytest.raises(InputError, match=says):
            assess(image, tmp_path / name, run)


def test_the_fault_stands_on_the_page_above_all_figures(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path
) -> None:
    found = assess((scan.get_fdata() + 1064, scan.affine), (values, scan.affine), run)
    write_assessment(found, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    top, _, rest = page.partition('id="structures"')
    assert "The image is in doubt: nothing lies below 0 HU" in top
    assert "The image is in doubt: nothing lies below 0 HU" in rest
