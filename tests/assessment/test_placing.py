"""Sides of the patient that a header does not know: stated by the user, or advised."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.assessment import TrainedRun, assess, write_assessment
from whqa.cli.commands import main
from whqa.errors import InputError
from whqa.structures import MMWHS

Array = np.ndarray


def _lost(path: Path, array: Array, scan: nib.Nifti1Image, identity: bool = False) -> Path:
    """A file that states nothing about the patient, or the identity."""
    image = nib.Nifti1Image(array, np.eye(4) if identity else None)
    if not identity:
        image.header.set_zooms(scan.header.get_zooms())
        image.header["qform_code"] = image.header["sform_code"] = 0
    nib.save(image, path)
    return path


def test_stated_sides_leave_no_doubt_and_results_state_them(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path
) -> None:
    array = scan.get_fdata(dtype=np.float32)
    image, mask = _lost(tmp_path / "image.nii", array, scan), _lost(tmp_path / "mask.nii", values, scan)
    axes = "".join(nib.aff2axcodes(scan.affine))
    doubtful = assess(image, mask, run).quality
    assert "state them: --orientation" in doubtful["warnings"][0]
    stated = assess(image, mask, run, orientation=axes.lower())
    known = assess((array, scan.affine), (values, scan.affine), run)
    assert not [w for w in stated.quality["warnings"] if "left and right" in w]
    assert stated.quality["qi"]["heart"]["value"] == pytest.approx(known.quality["qi"]["heart"]["value"], abs=1e-4)
    assert stated.quality["image"]["orientation"] == axes
    write_assessment(stated, tmp_path / "out", report=False)
    written = nib.load(tmp_path / "out" / "error_map.nii.gz")
    assert "".join(nib.aff2axcodes(written.affine)) == axes
    assert written.header["sform_code"] != 0


@pytest.mark.parametrize("identity", [False, True])
@pytest.mark.parametrize("whose", ["image", "mask"])
def test_one_that_lost_its_place_gets_that_of_the_other(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path, whose: str, identity: bool
) -> None:
    array = scan.get_fdata(dtype=np.float32)
    turn = nib.orientations.axcodes2ornt("SAR")
    turned = nib.orientations.apply_orientation(
        array if whose == "image" else values,
        nib.orientations.ornt_transform(nib.orientations.io_orientation(scan.affine), turn),
    )
    lost = _lost(tmp_path / "lost.nii", turned, scan, identity)
    pair = (lost, (values, scan.affine)) if whose == "image" else ((array, scan.affine), lost)
    found = assess(*pair, run, orientation="SAR")
    known = assess((array, scan.affine), (values, scan.affine), run)
    assert found.quality["qi"]["heart"]["value"] == pytest.approx(known.quality["qi"]["heart"]["value"], abs=1e-4)
    if whose == "mask":
        np.testing.assert_array_equal(found.mask, MMWHS.to_indices(values, "mask"))


def test_the_advice_for_a_lost_mask_works_in_the_command_that_gave_it(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nib.save(nib.Nifti1Image(scan.get_fdata(dtype=np.float32), scan.affine), tmp_path / "image.nii")
    _lost(tmp_path / "mask.nii", values, scan, identity=True)
    words = ["assess", *(str(tmp_path / name) for name in ("image.nii", "mask.nii")), "--no-report"]
    words += ["--model", str(run.path), "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    advised = re.search(r"--orientation ([A-Z]{3})", capsys.readouterr().err)
    assert advised is not None
    with pytest.raises(SystemExit) as end:
        main([*words, "--orientation", advised[1]])
    assert not end.value.code


def test_sides_that_the_header_states_stay_and_that_is_told(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array
) -> None:
    image, mask = (scan.get_fdata(), scan.affine), (values, scan.affine)
    own = "".join(nib.aff2axcodes(scan.affine))
    assert not [w for w in assess(image, mask, run, orientation=own).quality["warnings"] if "--orientation" in w]
    other = assess(image, mask, run, orientation="RAI" if own != "RAI" else "LPS").quality
    assert any(f"states {own}" in warning and "was not used" in warning for warning in other["warnings"])


@pytest.mark.parametrize("text", ["LP", "LPL", "LPX", "LRA", "", "LPSI"])
def test_sides_are_one_of_each(run: TrainedRun, scan: nib.Nifti1Image, values: Array, text: str) -> None:
    with pytest.raises(InputError, match="must be three letters"):
        assess((scan.get_fdata(), scan.affine), (values, scan.affine), run, orientation=text)


def test_arrays_in_memory_are_told_of_as_such(run: TrainedRun, scan: nib.Nifti1Image, values: Array) -> None:
    """No command for the shell names files that do not exist."""
    image = (scan.get_fdata(), scan.affine)
    with pytest.raises(InputError, match="--orientation") as lost:
        assess(image, (values, np.eye(4)), run)
    place = scan.affine.copy()
    place[:2, 3] += 1.3
    with pytest.raises(InputError, match=r"taking LPS for RAS; .*\(array, affine\)") as turned:
        assess((image[0], place), (values, np.diag([-1, -1, 1, 1]) @ place), run)
    assert "python" not in f"{lost.value} {turned.value}"
    both = assess((scan.get_fdata(), np.eye(4)), (values, np.eye(4)), run).quality
    assert "lost the place of the scan" in both["warnings"][0]


def test_a_mask_of_another_part_of_the_body_is_not_resampled(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array
) -> None:
    far = scan.affine.copy()
    far[0, 3] += 902.3
    with pytest.raises(InputError, match=r"altogether outside of the image, 902 mm .*give the mask of this scan"):
        assess((scan.get_fdata(), scan.affine), (values, far), run)
