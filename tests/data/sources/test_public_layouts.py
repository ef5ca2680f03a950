"""ACDC, CARE-WHS and TotalSegmentator: what may be missing, doubled or odd in their folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import pytest
from layout_files import patient, put, raises, subject

from whqa.config.cohorts import cohort_of
from whqa.data.sources.acdc import read_acdc
from whqa.data.sources.care_whs import read_care_whs
from whqa.data.sources.checks import UnusedFilesWarning, checked


def test_acdc_frames_can_be_chosen(tmp_path: Path) -> None:
    patient(tmp_path / "training", "patient001", frames=(1, 5, 12))
    patient(tmp_path / "training", "patient002", "ES: 9\r\nED: 01\r\nGroup: NOR\r\n", frames=(1, 9))
    cohort = checked(read_acdc(tmp_path))
    assert [c.id for c in cohort.cases] == ["patient001_ED", "patient001_ES", "patient002_ED", "patient002_ES"]
    assert [c.image.name[11:18] for c in cohort.cases] == ["frame01", "frame12", "frame01", "frame09"]
    assert [c.id for c in read_acdc(tmp_path, frames="ES").cases] == ["patient001_ES", "patient002_ES"]
    with raises("frames 'es': must be both, ED or ES"):
        read_acdc(tmp_path, frames="es")


def test_acdc_without_labels_for_testing(tmp_path: Path) -> None:
    for part in ("training", "testing"):
        folder = patient(tmp_path / part, f"patient{len(part):03}")
        for path in folder.glob("*_gt*"):
            path.unlink()
    found = read_acdc(tmp_path)
    assert [p for p in found.problems if "testing" in p] == []
    assert len([p for p in found.problems if "label file patient008_frame" in p]) == 2
    assert not found["patient007_ED"].has_label
    assert read_acdc(tmp_path / "testing").problems == (), "the folder itself may be the one for testing"


def test_acdc_the_info_beside_the_frames_says_which_they_are(tmp_path: Path) -> None:
    patient(tmp_path / "training", "patient001", "ED: 1\nES: 12\n", frames=(1, 5, 12))
    left = tmp_path / "zold" / "patient001"
    left.mkdir(parents=True)
    (left / "Info.cfg").write_text("ED: 1\nES: 5\n")
    cohort = read_acdc(tmp_path)
    assert [case.image.name for case in cohort.cases] == ["patient001_frame01.nii.gz", "patient001_frame12.nii.gz"]
    assert any(str(left / "Info.cfg") in problem for problem in map(str, cohort.problems))


@pytest.mark.parametrize(
    "info",
    [
        "",
        "ED: 1\n",
        "ED: one\nES: 12\n",
        "ED: 1\nES: 1\n",
        "ED: 1\nES: -3",
        "ED: 1\nED: 2",
        "\0\0",
        "ED: 9999999\nES: 1",
    ],
)
def test_acdc_odd_info_is_a_problem_and_frames_go_by_number(tmp_path: Path, info: str) -> None:
    folder = patient(tmp_path, "patient001", info)
    cohort = read_acdc(tmp_path)
    assert [c.id for c in cohort.cases] == ["patient001_frame01", "patient001_frame12"]
    with raises(f"{folder / 'Info.cfg'}: must state two frames in lines such as 'ED: 1' and 'ES: 12'; correct it"):
        checked(cohort)


def test_acdc_missing_and_doubled_files(tmp_path: Path) -> None:
    patient(tmp_path, "patient001", info=None)
    with raises("patient001: Info.cfg is missing; it says which frames of patient001 are ED and ES"):
        checked(read_acdc(tmp_path))
    shutil.rmtree(tmp_path / "patient001")
    folder = patient(tmp_path, "patient001")
    (folder / "patient001_frame12.nii.gz").unlink()
    found = read_acdc(tmp_path)
    assert [c.id for c in found.cases] == ["patient001_ED"]
    with raises("Info.cfg: frame 12 (ES) has no image patient001_frame12.nii.gz"):
        checked(found)
    put(folder / "patient001_frame12.nii.gz")
    put(folder / "copy" / "patient001_frame12.nii.gz")
    with raises("the same frame is also at"):
        checked(read_acdc(tmp_path))
    shutil.rmtree(folder / "copy")
    put(folder / "patient001_frame20_gt.nii.gz")
    with raises("patient001_frame20_gt.nii.gz: image patient001_frame20.nii.gz is missing"):
        checked(read_acdc(tmp_path))
    (folder / "patient001_frame20_gt.nii.gz").unlink()
    (tmp_path / "patient002").mkdir()
    (tmp_path / "patient002" / "Info.cfg").touch()
    with raises("patient002/Info.cfg: no frames patient002_frame01.nii.gz lie beside it"):
        checked(read_acdc(tmp_path))


def test_acdc_both_layouts_or_none(tmp_path: Path) -> None:
    with raises("no ACDC images found; it should be a folder with patient001/Info.cfg"):
        read_acdc(tmp_path)
    put(tmp_path / "patient001_image.nii.gz")
    put(tmp_path / "patient001_label.nii.gz")
    assert [c.id for c in read_acdc(tmp_path).cases] == ["patient001"]
    with raises("files of the flat layout do not tell their frame; leave data.frames=both"):
        read_acdc(tmp_path, frames="ED")
    patient(tmp_path, "patient002")
    with raises("holds both layouts of ACDC, official and flat; state the folder of one of them"):
        read_acdc(tmp_path)


def test_acdc_as_some_unpack_it(tmp_path: Path) -> None:
    """A folder around each file, named as the file."""
    folder = patient(tmp_path, "patient001")
    for path in list(folder.glob("*.nii.gz")):
        name = path.name.removesuffix(".gz")
        (folder / name).mkdir()
        nib.save(nib.load(path), folder / name / name)
        path.unlink()
    assert [c.id for c in checked(read_acdc(tmp_path)).cases] == ["patient001_ED", "patient001_ES"]


def pair(folder: Path, name: str) -> None:
    put(folder / f"{name}_image.nii.gz")
    put(folder / f"{name}_label.nii.gz")


def test_care_whs_modality_and_centre_from_folders_or_names(tmp_path: Path) -> None:
    pair(tmp_path / "CT" / "CenterA", "Case1001")
    pair(tmp_path / "MR" / "centre_C", "Case1001")
    pair(tmp_path / "WHS_MRI_train" / "Site2", "Case1001")
    pair(tmp_path / "ct_train", "ct_train_1001")
    pair(tmp_path / "MR" / "CenterD", "CenterD_CT_7")
    put(tmp_path / "val_CT" / "images" / "Case9_image.nii.gz")
    put(tmp_path / "CT" / "CenterA" / "Case1001_label_manual.nii.gz")
    with pytest.warns(UnusedFilesWarning, match="Case1001_label_manual"):
        cohort = checked(read_care_whs(tmp_path))
    assert [(c.id, c.modality) for c in cohort.cases] == [
        ("CenterD_CT_7", "ct"),
        ("ct_Case9", "ct"),
        ("ct_centerA_Case1001", "ct"),
        ("ct_train_1001", "ct"),
        ("mr_center2_Case1001", "mr"),
        ("mr_centerC_Case1001", "mr"),
    ]
    assert len({c.patient for c in cohort.cases}) == 6
    assert not cohort["ct_Case9"].has_label
    assert {c.modality for c in read_care_whs(tmp_path, modality="mr").cases} == {"mr"}


def test_care_whs_modality_of_a_centre(tmp_path: Path) -> None:
    pair(tmp_path / "train" / "CenterA", "Case1001")
    pair(tmp_path / "train" / "CenterCD", "Case3001")
    pair(tmp_path / "train" / "Center C&D", "Case3002")
    pair(tmp_path / "Center_E_x", "Case4001")
    pair(tmp_path / "CT" / "CenterE", "Case1")
    put(tmp_path / "centers_of_china" / "CenterG" / "Case9_image.nii.gz")
    assert [c.id for c in checked(read_care_whs(tmp_path)).cases] == [
        "ct_centerA_Case1001",
        "ct_centerE_Case1",  # a word wins
        "ct_centerG_Case9",
        "mr_centerCD_Case3001",
        "mr_centerCD_Case3002",
        "mr_centerE_Case4001",
    ]
    pair(tmp_path / "CenterH", "Case1")
    with raises("CenterH/Case1_image.nii.gz: neither name, folders nor centre tell CT or MR"):
        checked(read_care_whs(tmp_path))


def test_care_whs_label_in_another_folder(tmp_path: Path) -> None:
    put(tmp_path / "CT" / "image" / "CenterA" / "Case1_image.nii.gz")
    put(tmp_path / "CT" / "label" / "CenterA" / "Case1_label.nii.gz")
    assert checked(read_care_whs(tmp_path))["ct_centerA_Case1"].has_label


def test_care_whs_missing_doubled_and_unknown(tmp_path: Path) -> None:
    with raises("no images found; it should be a folder with CenterA/Case1001_image.nii.gz"):
        read_care_whs(tmp_path)
    with raises("modality 'us': must be ct, mr or null for both"):
        read_care_whs(tmp_path, modality="us")  # type: ignore[arg-type]
    pair(tmp_path / "x", "Case1")
    with raises("neither name, folders nor centre tell CT or MR; name the folder so, or set data.modality=ct or mr"):
        read_care_whs(tmp_path)
    assert [c.id for c in checked(read_care_whs(tmp_path, modality="ct")).cases] == ["ct_Case1"]
    shutil.rmtree(tmp_path / "x")
    pair(tmp_path / "CT" / "train", "Case1")
    with raises("no images of modality mr found"):
        read_care_whs(tmp_path, modality="mr")
    put(tmp_path / "CT" / "train" / "Case2_image.nii.gz")
    with raises("Case2_image.nii.gz: label file Case2_label.nii.gz is missing among those of its modality and centre"):
        checked(read_care_whs(tmp_path))
    (tmp_path / "CT" / "train" / "Case2_image.nii.gz").rename(tmp_path / "CT" / "train" / "Case2_label.nii.gz")
    with raises("Case2_label.nii.gz: image Case2_image.nii.gz is missing among those of its modality and centre"):
        checked(read_care_whs(tmp_path))
    (tmp_path / "CT" / "train" / "Case2_label.nii.gz").unlink()
    pair(tmp_path / "CT" / "copy", "Case1")
    assert len(read_care_whs(tmp_path).problems) == 2
    with raises("the same case is also at"):
        checked(read_care_whs(tmp_path))


SOURCES: dict[str, Callable[[Path], object]] = {
    "acdc": lambda root: patient(root, "patient001"),
    "care_whs": lambda root: pair(root / "CT" / "CenterA", "Case1"),
    "totalsegmentator": lambda root: subject(root, "s0"),
    "mmwhs": lambda root: pair(root, "mr_train_1001"),
    "folder": lambda root: pair(root, "a"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources_are_read_by_name(tmp_path: Path, source: str) -> None:
    SOURCES[source](tmp_path)
    cohort = cohort_of(source, tmp_path)
    assert cohort.cases
    assert cohort.problems == ()
    assert cohort.name == source


def test_settings_from_the_command_line_reach_the_readers(tmp_path: Path) -> None:
    patient(tmp_path / "a", "patient001")
    assert len(cohort_of("acdc", tmp_path / "a", ["frames=ED"]).cases) == 1
    for name in ("s0", "s1"):
        subject(tmp_path / "b", name)
    assert [c.id for c in cohort_of("totalsegmentator", tmp_path / "b", ["without=[s0]"]).cases] == ["s1"]
    put(tmp_path / "c" / "imagesTr" / "a_0000.nii.gz")
    put(tmp_path / "c" / "labelsTr" / "a.nii.gz")
    (tmp_path / "c" / "dataset.json").write_text(
        '{"channel_names": {"0": "x"}, "labels": {"left chamber": 1, "liver": 2}, "file_ending": ".nii.gz"}'
    )
    words = ["modality=ct", "structures={left chamber: lv, liver: null}", "channel=0"]
    scheme = cohort_of("nnunet", tmp_path / "c", words).scheme
    assert (dict(scheme.values), scheme.ignored) == ({"lv": 1}, {2})
    pair(tmp_path / "d", "a")
    scheme = cohort_of("folder", tmp_path / "d", ["scheme={lv: 1, myo: [2, 5], ignore: [7]}"]).scheme
    assert (dict(scheme.values), dict(scheme.aliases), scheme.ignored) == ({"lv": 1, "myo": 2}, {5: "myo"}, {7})


@pytest.mark.parametrize("names", [("patient{}_image.nii", "patient{}_label.nii"), ("Patient{}_Image.NII.GZ",) * 2])
def test_acdc_flat_in_any_letter_case_and_ending(tmp_path: Path, names: tuple[str, str]) -> None:
    for number in ("001", "002"):
        (tmp_path / names[0].format(number)).touch()
        (tmp_path / names[1].format(number).replace("Image", "Label")).touch()
    (tmp_path / "scan7_image.nii.gz").touch()
    cohort = read_acdc(tmp_path)
    assert [(c.id, c.patient, c.has_label) for c in cohort.cases] == [
        (p, p, True) for p in ("patient001", "patient002")
    ]
    assert cohort.problems == ()


def test_acdc_flat_faults_are_problems(tmp_path: Path) -> None:
    for name in ("patient001_image.nii.gz", "patient002_image.nii", "patient002_image.nii.gz", "patient003_label.nii"):
        (tmp_path / name).touch()
    problems = read_acdc(tmp_path).problems
    assert [p.split(": ")[1] for p in problems] == [
        f"the same case is also at {tmp_path / 'patient002_image.nii'}; remove or rename one of them",
        "image patient003_image.nii.gz is missing; add it or remove the label",
        "label file patient001_label.nii.gz is missing; add it or remove the image",
        "label file patient002_label.nii.gz is missing; add it or remove the image",
    ]
    assert len(read_acdc(tmp_path, without=["patient002"]).problems) == 2
