"""The readers on made-up folders, and on real files where they are present."""

from __future__ import annotations

import errno
import os
import warnings
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.data.formats.volume_files import HeaderConflictWarning
from whqa.data.sources.checks import checked
from whqa.data.sources.folder import read_folder
from whqa.data.sources.listing import list_files
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


def test_mmwhs_encrypted_labels_are_no_labels(tmp_path: Path) -> None:
    put(tmp_path / "ct_test_2001_image.nii.gz")
    put(tmp_path / "nii" / "ct_test_2001_label_encrypt_1mm.nii.gz")
    put(tmp_path / "ct_test_2002_image.nii.gz")
    cohort = checked(read_mmwhs(tmp_path))
    assert [(c.id, c.has_label) for c in cohort.cases] == [("ct_test_2001", False), ("ct_test_2002", False)]
    put(tmp_path / "ct_test_2002_label.nii.gz")
    assert read_mmwhs(tmp_path)["ct_test_2002"].has_label, "an open label of one's own is one"


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


def odd(root: Path) -> Path:
    """What data folders hold besides data: links in circles and to the same files, a pipe, a folder named as a file."""
    (root / "ct_train_1007_image.nii.gz").mkdir()
    (root / "ct_train_1007_image.nii.gz" / "notes.txt").touch()
    (root / "again").symlink_to(root, target_is_directory=True)
    (root / "part3").symlink_to(root / "part2", target_is_directory=True)
    (root / "circle").symlink_to(root / "circle")
    os.mkfifo(root / "mr_test_2009_image.nii.gz")
    (root / "zero_image.nii.gz").symlink_to("/dev/zero")
    (root / ".hidden").mkdir()
    put(root / ".hidden" / "ct_test_2003_image.nii.gz")
    return root


def test_a_strange_folder_is_read_all_the_same(tmp_path: Path) -> None:
    plain = [c.id for c in read_mmwhs(mmwhs(tmp_path)).cases]
    cohort = checked(read_mmwhs(odd(tmp_path)))
    assert [c.id for c in cohort.cases] == plain
    (tmp_path / "ct_test_2002_image.nii.gz").symlink_to(tmp_path / "gone.nii.gz")
    with pytest.raises(InputError, match=r"ct_test_2002_image\.nii\.gz: no such file"):
        checked(read_mmwhs(tmp_path))


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    mmwhs(tmp_path / "disk")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "all").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert len(checked(read_mmwhs(tmp_path / "mine")).cases) == 4


def test_a_folder_that_cannot_be_opened_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mmwhs(tmp_path)
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("part2"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    cohort = read_mmwhs(tmp_path)
    assert len(cohort.cases) == 3
    with pytest.raises(InputError, match=r"part2: folder cannot be opened \(Permission denied\); change"):
        checked(cohort)
    with pytest.raises(InputError, match="part2: folder cannot be opened"):
        read_mmwhs(tmp_path / "part2")


def test_a_name_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    put(tmp_path / "a_image.nii.gz")
    os.rename(os.fsencode(put(tmp_path / "b.nii.gz")), os.fsencode(tmp_path) + b"/b\xff_image.nii.gz")
    put(tmp_path / "new\nline_image.nii.gz")
    cohort = read_folder(tmp_path, label=None, scheme="acdc")
    assert [c.id for c in cohort.cases] == ["a"]
    assert len(cohort.problems) == 2
    assert all("is not plain text; rename" in p and p.isprintable() for p in cohort.problems)


def test_listing_thousands_of_files_asks_the_system_once_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        (tmp_path / f"f{i}").mkdir()
        for j in range(1000):
            (tmp_path / f"f{i}" / f"x{j}.nii.gz").touch()
    asked: Counter[str] = Counter()
    for name in ("scandir", "stat", "lstat", "open"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, _name=name, _real=real, **k: asked.update([_name]) or _real(*a, **k))
    listing = list_files(tmp_path)
    monkeypatch.undo()
    assert asked == {"scandir": 6, "stat": 6}
    assert len(listing.files) == 5000
    assert list(listing.files) == sorted(listing.files)
    assert len(listing.within("f3")) == 1000
    assert not list_files(tmp_path, depth=0).files


def test_a_root_that_no_system_can_open(tmp_path: Path) -> None:
    for root in (f"{tmp_path}/{'a' * 300}", "a\0b", "~nobody-of-that-name/x"):
        with pytest.raises(InputError, match=r"cannot be opened|does not exist"):
            read_mmwhs(root)


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


def test_endings_of_files_may_be_written_in_capitals(tmp_path: Path) -> None:
    for name, ending in (("a", ".NII.GZ"), ("b", ".nii.gz"), ("c", ".Nii.gz")):
        for kind in ("image", "label"):
            (tmp_path / f"{name}_{kind}{ending}").touch()
    cases = read_folder(tmp_path, scheme="acdc").cases
    found = [(case.id, case.image.name, case.label_files[0].name) for case in cases]
    assert found == [
        ("a", "a_image.NII.GZ", "a_label.NII.GZ"),
        ("b", "b_image.nii.gz", "b_label.nii.gz"),
        ("c", "c_image.Nii.gz", "c_label.Nii.gz"),
    ]


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
    # a group that took no part tells nothing, and the next one may
    both = read_folder(tmp_path, label=None, scheme="acdc", patient=r"(q\d+)_|(p\d+)_")
    assert [case.patient for case in both.cases] == [case.patient for case in cohort.cases]
    for pattern in (r"(\d*)", r"(q\d+)?_"):
        with pytest.raises(InputError, match="finds nothing in its name"):
            read_folder(tmp_path, label=None, scheme="acdc", patient=pattern)
    with pytest.raises(InputError, match="not a regular expression"):
        read_folder(tmp_path, label=None, scheme="acdc", patient=r"(")


def test_folder_with_files_in_sub_folders(tmp_path: Path) -> None:
    for key in ("siteA/p1", "siteB/2024/p1", "p1"):
        put(tmp_path / f"{key}_image.nii")
        put(tmp_path / f"{key}_label.nii")
    cohort = checked(read_folder(tmp_path, "**/*_image.nii", "**/*_label.nii", scheme="acdc", patient=r"p\d+"))
    assert [c.id for c in cohort.cases] == ["p1", "siteA_p1", "siteB_2024_p1"]
    assert {c.patient for c in cohort.cases} == {"p1"}
    assert cohort["siteB_2024_p1"].label == tmp_path / "siteB/2024/p1_label.nii"
    (tmp_path / "siteA/p1_label.nii").unlink()
    with pytest.raises(InputError, match=r"siteA/p1_image\.nii: label file .*siteA/p1_label\.nii is missing"):
        checked(read_folder(tmp_path, "**/*_image.nii", "**/*_label.nii", scheme="acdc"))
    with pytest.raises(InputError, match=r"either both or none of them begin with \*\*/"):
        read_folder(tmp_path, "**/*_image.nii", "*_label.nii", scheme="acdc")
    put(tmp_path / "siteA_p1_image.nii")
    with pytest.raises(InputError, match=r"case 'siteA_p1' is also the name of .*; rename one"):
        read_folder(tmp_path, "**/*_image.nii", None, scheme="acdc")


def test_folder_with_other_formats_and_a_scheme_of_its_own(tmp_path: Path) -> None:
    for name in ("a.nrrd", "a.seg.nrrd", "b.nrrd", "b.seg.nrrd", "notes.txt"):
        (tmp_path / name).touch()
    cohort = read_folder(tmp_path, "*.nrrd", "*.seg.nrrd", scheme={"lv": 1, "myo": [2, 5], "ignore": [7]})
    assert [(c.id, c.label) for c in cohort.cases] == [(k, tmp_path / f"{k}.seg.nrrd") for k in "ab"]
    assert (cohort.scheme.keys, cohort.scheme.ignored) == (("lv", "myo"), {7})


@pytest.mark.parametrize(
    "pattern",
    ["image.nii.gz", "*/*.nii.gz", "/abs/*.nii.gz", "../*.nii.gz", "a/../../*.nii.gz", "a/**/*.nii.gz", "**.nii", 3],
)
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
    with pytest.raises(InputError, match=r"a_label\.nii\.gz: its grid differs from .*a_image\.nii\.gz"):
        checked(read_folder(tmp_path, scheme="acdc"))
    put(label, shift=3)
    with pytest.raises(InputError, match=r"a_label\.nii\.gz: its grid differs .*a_image\.nii\.gz.* identity"):
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


def test_mmwhs_names_in_any_letter_case_and_ending(tmp_path: Path) -> None:
    names = ("CT_Train_1001_Image.NII.GZ", "ct_train_1001_LABEL.nii", "MR_TEST_2001_image.nii", "mr_train_1_label.Nii")
    for name in names:
        (tmp_path / name).touch()
    cohort = read_mmwhs(tmp_path)
    assert [(c.id, c.modality, c.has_label) for c in cohort.cases] == [
        ("ct_train_1001", "ct", True),
        ("mr_test_2001", "mr", False),
    ]
    assert len(cohort.problems) == 1
    assert [c.id for c in read_mmwhs(tmp_path, "mr").cases] == ["mr_test_2001"]
