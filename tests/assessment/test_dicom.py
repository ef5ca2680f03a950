"""A DICOM series with masks of all sorts, judged like the same scan as NIfTI, and results as DICOM."""

from __future__ import annotations

import re
import zipfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from whqa.assessment import TrainedRun, assess, write_assessment
from whqa.cli.commands import main
from whqa.data.dicom.seg_writing import structure_segments, write_segmentation
from whqa.data.dicom.series import read_series
from whqa.errors import InputError
from whqa.structures import MMWHS

Array = np.ndarray


@pytest.fixture(scope="module")
def hu(scan: nib.Nifti1Image) -> Array:
    """Voxels as DICOM can store them."""
    return np.rint(scan.get_fdata(dtype=np.float32))


@pytest.fixture(scope="module")
def upright(scan: nib.Nifti1Image) -> Array:
    """The scan's affine; slices are stacked by a right-handed one in LPS."""
    assert np.linalg.det(scan.affine[:3, :3]) > 0
    return scan.affine


@pytest.fixture(scope="module")
def folder(dicom_files: ModuleType, hu: Array, upright: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A series; not to be changed."""
    return dicom_files.write_series(tmp_path_factory.mktemp("dicom") / "patient7", hu, upright)


@pytest.fixture(scope="module")
def segmentation(folder: Path, values: Array) -> Path:
    """The mask as DICOM segmentation, beside the series."""
    path, source = folder.with_name("patient7.dcm"), read_series(folder).source
    segments = structure_segments(MMWHS.keys, MMWHS.titles)
    write_segmentation(path, source, MMWHS.to_indices(values, "mask"), segments, "mask", "test")
    return path


def _call(run: TrainedRun, *words: Any) -> int:
    with pytest.raises(SystemExit) as end:
        main(["assess", *map(str, words), "--model", str(run.path), "--no-report"])
    return int(end.value.code or 0)


def test_the_verdict_is_that_of_the_same_scan_as_nifti(
    run: TrainedRun, folder: Path, segmentation: Path, hu: Array, upright: Array, values: Array, tmp_path: Path
) -> None:
    known = assess((hu, upright), (values, upright), run)
    nib.save(nib.Nifti1Image(values[::-1], upright @ _flip(values.shape[0])), tmp_path / "mask.nii.gz")
    with zipfile.ZipFile(tmp_path / "patient7.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    for image, mask in (
        (folder, segmentation),
        (folder, tmp_path / "mask.nii.gz"),
        (tmp_path / "patient7.zip", segmentation),
    ):
        found = assess(image, mask, run)
        np.testing.assert_array_equal(found.mask, known.mask)
        np.testing.assert_allclose(found.affine, known.affine, atol=1e-4)
        assert found.quality["qi"]["heart"]["value"] == pytest.approx(known.quality["qi"]["heart"]["value"], abs=1e-5)
        assert found.name == "patient7"
        assert found.quality["image"]["sha256"] is not None
    assert found.dicom.series == "1.2.3.7"


def _flip(n: int) -> Array:
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = n - 1
    return flip


def test_results_are_written_as_dicom_of_the_same_patient(
    run: TrainedRun, folder: Path, segmentation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pydicom

    out = tmp_path / "out"
    assert _call(run, folder, segmentation, "-o", out) == 0
    assert "patient7: " in capsys.readouterr().out
    corrected, error = (pydicom.dcmread(out / f"{name}.dcm") for name in ("corrected_mask", "error_map"))
    for data in (corrected, error):
        assert (data.PatientID, data.StudyInstanceUID, data.FrameOfReferenceUID) == ("P1", "1.2.3.1", "1.2.3.99")
    assert [str(s.SegmentLabel) for s in corrected.SegmentSequence] == list(MMWHS.titles)
    again = assess(folder, out / "corrected_mask.dcm", run)
    written = np.asanyarray(nib.load(out / "corrected_mask.nii.gz").dataobj)
    np.testing.assert_array_equal(again.mask > 0, written > 0)
    text = (out / "quality.json").read_text()
    assert "P1" not in text
    assert "Heart^Test" not in text


def test_a_series_that_cannot_have_a_segmentation_keeps_its_verdict(
    run: TrainedRun, folder: Path, segmentation: Path, tmp_path: Path
) -> None:
    found = assess(folder, segmentation, run)
    for header in found.dicom.headers:
        del header.StudyInstanceUID
    write_assessment(found, tmp_path / "out", report=False)
    assert (tmp_path / "out" / "quality.json").is_file()
    assert not (tmp_path / "out" / "corrected_mask.dcm").exists()
    assert any("cannot have a DICOM segmentation" in w for w in found.quality["warnings"])


def test_the_advised_series_works_in_the_command_that_gave_it(
    run: TrainedRun,
    dicom_files: ModuleType,
    folder: Path,
    segmentation: Path,
    hu: Array,
    upright: Array,
    values: Array,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "a").symlink_to(folder)
    dicom_files.write_series(tmp_path / "study" / "b", hu, upright, series="9")
    study = tmp_path / "study"
    nib.save(nib.Nifti1Image(values, upright), tmp_path / "mask.nii.gz")
    words = (study, tmp_path / "mask.nii.gz", "-o", tmp_path / "out")
    assert _call(run, *words) == 2
    advised = re.findall(r"--series (\d+)", capsys.readouterr().err)
    assert "9" in advised
    assert _call(run, *words, "--series", advised[-1]) == 0
    assert _call(run, tmp_path / "mask.nii.gz", tmp_path / "mask.nii.gz", "-o", tmp_path, "--series", "1") == 2
    assert "is no DICOM" in capsys.readouterr().err


def test_folders_of_series_are_matched_with_masks_by_name(
    run: TrainedRun, folder: Path, segmentation: Path, upright: Array, values: Array, tmp_path: Path
) -> None:
    scans, masks = tmp_path / "scans", tmp_path / "masks"
    for place in (scans, masks):
        place.mkdir()
    for name in ("a", "b"):
        (scans / name).mkdir()
        for file in folder.iterdir():
            (scans / name / file.name).symlink_to(file)
    (masks / "a.dcm").symlink_to(segmentation)
    nib.save(nib.Nifti1Image(values, upright), masks / "b.nii.gz")
    out = tmp_path / "out"
    assert _call(run, scans, masks, "-o", out, "--jobs", "1") == 0
    assert {path.parent.name for path in out.glob("*/corrected_mask.dcm")} == {"a", "b"}


def test_a_modality_that_the_run_does_not_know(
    run: TrainedRun,
    folder: Path,
    segmentation: Path,
    dicom_files: ModuleType,
    tmp_path: Path,
    hu: Array,
    upright: Array,
) -> None:
    def as_mr(data: Any, k: int) -> None:
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"

    other = dicom_files.write_series(tmp_path / "mr", hu, upright, as_mr)
    with pytest.raises(InputError, match=r"modality 'mr': the run .* was trained on ct"):
        assess(other, segmentation, run)
    told = assess(other, segmentation, run, modality="ct").quality["warnings"]
    assert any("its files say MR, it is judged as CT, as was stated" in warning for warning in told)
    assert replace(run, modalities=("ct", "mr")).modalities == ("ct", "mr")
    assert assess(folder, segmentation, replace(run, modalities=("ct", "mr"))).quality["model"]["modality"] == "ct"


def test_without_the_extra_one_line_says_what_to_install(
    run: TrainedRun, folder: Path, segmentation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(InputError, match=r'patient7: DICOM is read by an extra.*; pip install "whqa\[dicom\]"'):
        assess(folder, segmentation, run)
