"""The readers on made-up folders, and on real files where they are present."""

from __future__ import annotations

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.data.nifti import HeaderConflictWarning
from whqa.data.sources.checks import checked
from whqa.data.sources.folder import read_folder
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.errors import InputError

SHARED = Path(__file__).parents[2] / "../shared/data"


def put(path: Path, shape: tuple[int, ...] = (4, 5, 6), shift: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.0, 1, 2, 1])
    affine[0, 3] = shift
    nib.save(nib.Nifti1Image(np.arange(np.prod(shape), dtype="int16").reshape(shape), affine), path)
    return path


def mmwhs(root: Path) -> Path:
    """As downloaded: CT training split over two folders, labels in one of them, tests without labels."""
    for folder, number in (("part1", 1001), ("part2", 1002)):
        put(root / folder / f"ct_train_{number}_image.nii.gz")
    for number in (1001, 1002):
        put(root / "part1" / f"ct_train_{number}_label.nii.gz")
    put(root / "mr" / "mr_train_1001_image.nii.gz")
    put(root / "mr" / "mr_train_1001_label.nii.gz")
    put(root / "mr_test" / "mr_test_2001_image.nii.gz")
    put(root / "mr" / "._mr_train_1003_image.nii.gz")
    return root


def test_mmwhs_finds_cases_wherever_they_lie(tmp_path: Path) -> None:
    cohort = read_mmwhs(mmwhs(tmp_path))
    assert [c.id for c in cohort.cases] == ["ct_train_1001", "ct_train_1002", "mr_test_2001", "mr_train_1001"]
    assert [c.modality for c in cohort.cases] == ["ct", "ct", "mr", "mr"]
    assert len({c.patient for c in cohort.cases}) == 4, "CT and MR 1001 are different people"
    assert cohort["ct_train_1002"].label == tmp_path / "part1" / "ct_train_1002_label.nii.gz"
    assert cohort["mr_test_2001"].label is None
    assert [c.id for c in cohort.labelled.cases] == ["ct_train_1001", "ct_train_1002", "mr_train_1001"]
    assert [c.id for c in read_mmwhs(tmp_path, modality="ct").cases] == ["ct_train_1001", "ct_train_1002"]


def test_mmwhs_training_image_without_label(tmp_path: Path) -> None:
    (mmwhs(tmp_path) / "part1" / "ct_train_1002_label.nii.gz").unlink()
    with pytest.raises(InputError, match=r"ct_train_1002_image\.nii\.gz: label file ct_train_1002_label.* missing"):
        checked(read_mmwhs(tmp_path))
    assert read_mmwhs(tmp_path, modality="mr").cases


def test_mmwhs_label_without_image(tmp_path: Path) -> None:
    (mmwhs(tmp_path) / "part2" / "ct_train_1002_image.nii.gz").unlink()
    with pytest.raises(InputError, match=r"ct_train_1002_label\.nii\.gz: image ct_train_1002_image.* missing"):
        checked(read_mmwhs(tmp_path))


def test_mmwhs_case_twice(tmp_path: Path) -> None:
    put(mmwhs(tmp_path) / "copy" / "ct_train_1001_image.nii")
    with pytest.raises(InputError, match=r"same case is also at"):
        checked(read_mmwhs(tmp_path))


@pytest.mark.parametrize("root", [None, "", "???"])
def test_folder_not_stated(root: str | None) -> None:
    with pytest.raises(InputError, match=r"no data folder stated; give a folder with ct_train_1001_image\.nii\.gz"):
        read_mmwhs(root)
    with pytest.raises(InputError, match=r"no data folder stated; give a folder with images \*_image\.nii\.gz"):
        read_folder(root, scheme="acdc")


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    missing, file = tmp_path / "nothing", put(tmp_path / "a_image.nii.gz")
    with pytest.raises(InputError, match=r"nothing: data folder does not exist; it should be .*ct_train_1001_image"):
        read_mmwhs(missing)
    with pytest.raises(InputError, match=r"nothing: .*images \*_image\.nii\.gz and label maps \*_label\.nii\.gz"):
        read_folder(missing, scheme="acdc")
    with pytest.raises(InputError, match="is a file"):
        read_folder(file, scheme="acdc")
    with pytest.raises(InputError, match="no MMWHS images found"):
        read_mmwhs(tmp_path)
    put(tmp_path / "ct_test_2001_image.nii.gz")
    with pytest.raises(InputError, match="no MMWHS images of modality mr found"):
        read_mmwhs(tmp_path, modality="mr")


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("*_image.nii.gz", "*_label.nii.gz"),
        ("imagesTr/*_0000.nii.gz", "labelsTr/*.nii.gz"),
        ("*/ct.nii.gz", "*/seg/whole.nii.gz"),
        ("*.nii.gz", "*_label.nii.gz"),
        ("*_0000.nii.gz", "*.nii.gz"),
        ("scan-(*)+.nii", "ref-*.nii.gz"),
    ],
)
def test_folder_layouts(tmp_path: Path, image: str, label: str) -> None:
    for key in ("b2", "a.1", "c"):
        put(tmp_path / image.replace("*", key))
        put(tmp_path / label.replace("*", key))
    cohort = read_folder(tmp_path, image, label, scheme={"heart": 1}, modality="ct", name="mine")
    assert [c.id for c in cohort.cases] == ["a.1", "b2", "c"]
    assert [c.label for c in cohort.cases] == [tmp_path / label.replace("*", c.id) for c in cohort.cases]
    assert (cohort.name, cohort.cases[0].modality, cohort.scheme.keys) == ("mine", "ct", ("heart",))


def test_folder_patients_and_missing_labels(tmp_path: Path) -> None:
    for key in ("p1_ed", "p1_es", "p2_ed"):
        put(tmp_path / f"{key}_image.nii.gz")
    cohort = read_folder(tmp_path, label=None, scheme="acdc", patient=r"(p\d+)_")
    assert [c.patient for c in cohort.cases] == ["p1", "p1", "p2"]
    assert all(c.label is None for c in cohort.cases)
    with pytest.raises(InputError, match=r"p1_ed_image\.nii\.gz: label file .*p1_ed_label\.nii\.gz is missing"):
        checked(read_folder(tmp_path, scheme="acdc"))
    with pytest.raises(InputError, match="finds nothing"):
        read_folder(tmp_path, label=None, scheme="acdc", patient=r"q\d")
    with pytest.raises(InputError, match="not a regular expression"):
        read_folder(tmp_path, label=None, scheme="acdc", patient=r"(")


@pytest.mark.parametrize("pattern", ["image.nii.gz", "*/*.nii.gz", "/abs/*.nii.gz"])
def test_folder_patterns_need_one_star(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="hold one"):
        read_folder(tmp_path, pattern, scheme="acdc")


def test_bad_settings(tmp_path: Path) -> None:
    put(tmp_path / "a_image.nii.gz")
    with pytest.raises(InputError, match="no label scheme 'x'"):
        read_folder(tmp_path, label=None, scheme="x")
    with pytest.raises(InputError, match="must be ct or mr"):
        read_folder(tmp_path, scheme="acdc", modality="us")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="must be ct, mr or null"):
        read_mmwhs(tmp_path, modality="us")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="spacing rule 'x'"):
        checked(read_folder(tmp_path, label=None, scheme="acdc", spacing_rule="x"))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no images"):
        read_folder(tmp_path, "*.mha", scheme="acdc")


def test_headers_are_checked_before_any_work(tmp_path: Path) -> None:
    put(tmp_path / "a_image.nii.gz")
    label = put(tmp_path / "a_label.nii.gz", shape=(4, 5, 7))
    with pytest.raises(InputError, match=r"a_label\.nii\.gz: shape .* differs from .*a_image\.nii\.gz"):
        checked(read_folder(tmp_path, scheme="acdc"))
    put(label, shift=3)
    with pytest.raises(InputError, match=r"a_label\.nii\.gz: affine differs .*a_image\.nii\.gz.*3 mm apart"):
        checked(read_folder(tmp_path, scheme="acdc"))
    put(label, shape=(4, 5, 6, 2))
    with pytest.raises(InputError, match=r"a_label\.nii\.gz: 4-D"):
        checked(read_folder(tmp_path, scheme="acdc"))


def test_contradicting_headers_are_announced_once(tmp_path: Path) -> None:
    for key in "abc":
        for what in ("image", "label"):
            image = nib.load(put(tmp_path / f"{key}_{what}.nii.gz"))
            image.header["pixdim"][1:4] = (1.5, 1.5, 10)
            nib.save(
                nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), tmp_path / f"{key}_{what}.nii.gz"
            )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        checked(read_folder(tmp_path, scheme="acdc", name="mine"))
    assert len(said) == 1
    assert said[0].category is HeaderConflictWarning
    assert "cohort 'mine': 6 of 6 headers contradict themselves" in str(said[0].message)
    with pytest.raises(InputError, match="a_image"):
        checked(read_folder(tmp_path, scheme="acdc", spacing_rule="refuse"))


@pytest.mark.skipif(not SHARED.is_dir(), reason="real data are not beside the repository")
def test_real_files() -> None:
    assert [c.id for c in checked(read_mmwhs(SHARED / "whole_heart")).cases] == ["ct_train_1001", "ct_train_1002"]
    with pytest.warns(HeaderConflictWarning, match="198 of 198 headers"):
        assert len(checked(read_folder(SHARED / "acdc", scheme="acdc")).cases) == 99
