"""Volumes of a data folder that no case uses are named, whatever the source; what its layout passes over is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from whqa.data.case import Cohort
from whqa.data.findings.check import check_cohort
from whqa.data.sources.acdc import read_acdc
from whqa.data.sources.care_whs import read_care_whs
from whqa.data.sources.checks import UnusedFilesWarning, checked
from whqa.data.sources.decathlon import read_decathlon
from whqa.data.sources.folder import read_folder
from whqa.data.sources.mmwhs import read_mmwhs
from whqa.data.sources.nnunet import read_nnunet
from whqa.data.sources.totalsegmentator import FILES, read_totalsegmentator

Put = Callable[[Path], Path]
Build = Callable[..., Path]


def _folder(root: Path, **settings: str) -> Cohort:
    return read_folder(root, scheme="mmwhs", **settings)


_PAIR = ("ct_train_1001_image.nii.gz", "ct_train_1001_label.nii.gz")
_OFFICIAL = ("patient001/patient001_frame01.nii.gz", "patient001/patient001_frame01_gt.nii.gz")
_SUBJECT = ("s0/ct.nii.gz", *(f"s0/segmentations/{file}.nii.gz" for file in FILES.values()))


@pytest.mark.parametrize(
    ("read", "used", "passed_over", "unused"),
    [
        (read_mmwhs, _PAIR, ["ct_test_2001_label_encrypt_1mm.nii.gz"], ["more/ct_train_1002_img.nii", "notes.mha"]),
        (
            lambda root: read_mmwhs(root, modality="ct"),
            _PAIR,
            ["mr_train_1001_image.nii.gz", "mr_train_1001_label.nii.gz"],
            ["images/ct_train_1003.NII.GZ"],
        ),
        (read_care_whs, _PAIR, [], ["CT/Case2_image_1.nii.gz"]),
        (
            lambda root: read_care_whs(root, modality="ct"),
            _PAIR,
            ["MR/Case2_image.nii.gz", "MR/Case2_label.nii.gz"],
            ["CT/Case2.nrrd"],
        ),
        (
            read_acdc,
            _OFFICIAL,
            ["patient001/patient001_4d.nii.gz", "patient001/patient001_frame05.nii.gz"],
            ["patient001/patient001_frame1x.nii.gz", "patient002_ed.nii"],
        ),
        (read_acdc, ["patient001_image.nii", "patient001_label.NII.GZ"], [], ["patient002_img.nii.gz"]),
        (_folder, ["a_image.nii.gz", "a_label.nii.gz"], [], ["b_image.nii", "c_label.nii.gz"]),
        (read_totalsegmentator, _SUBJECT, ["s0/segmentations/liver.nii.gz"], ["s1/CT_1.nii.gz", "s1/scan.nrrd"]),
        (lambda root: read_totalsegmentator(root, without=["s1"]), _SUBJECT, ["s1/ct.NII"], ["other.nii"]),
    ],
)
def test_volumes_that_no_case_uses_are_named(read, used, passed_over, unused, tmp_path: Path, put: Put) -> None:
    for name in (*used, *passed_over, *unused, "notes.txt", ".hidden.nii.gz"):
        put(tmp_path / name) if name.lower().endswith((".nii", ".nii.gz")) else _touch(tmp_path / name)
    for path in tmp_path.glob("patient*/"):
        if path.is_dir():
            (path / "Info.cfg").write_text("ED: 1\nES: 5\n")
    cohort = read(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in cohort.unused] == sorted(unused)
    assert all(path.name != Path(name).name for path in cohort.unused for name in (*used, *passed_over))


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_a_file_of_another_ending_in_an_nnunet_data_set_is_a_problem(tmp_path: Path, put: Put, nnunet: Build) -> None:
    nnunet(tmp_path)
    image, label = put(tmp_path / "imagesTr" / "d_0000.nii"), put(tmp_path / "labelsTr" / "d.nii")
    cohort = read_nnunet(tmp_path)
    assert [(problem.split(": ")[0], getattr(problem, "cases", ())) for problem in cohort.problems] == [
        (str(label), ("d",)),
        (str(image), ("d",)),
    ]
    assert read_nnunet(tmp_path, without=["d"]).problems == read_nnunet(tmp_path, without=["d"]).unused == ()


def test_endings_in_capitals_are_endings(tmp_path: Path, put: Put, nnunet: Build) -> None:
    nnunet(tmp_path)
    for name in ("imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"):
        (tmp_path / name).rename(tmp_path / name.replace(".nii.gz", ".NII.GZ"))
    cohort = read_nnunet(tmp_path)
    assert cohort.problems == cohort.unused == ()
    assert cohort["a"].image.name == "a_0000.NII.GZ"
    assert cohort["a"].has_label


def test_volumes_that_a_description_does_not_list_are_named(
    tmp_path: Path, put: Put, nnunet: Build, decathlon: Build
) -> None:
    nnunet(
        tmp_path / "v2",
        dataset={"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}},
        numTraining=None,
    )
    put(tmp_path / "v2" / "imagesTr" / "a_0001.nii.gz")
    put(tmp_path / "v2" / "predictions" / "a.nii.gz")
    assert {path.name for path in read_nnunet(tmp_path / "v2").unused} == {"b_0000.nii.gz", "b.nii.gz"}
    assert not read_nnunet(tmp_path / "v2", parts=["Ts"]).unused, "a part that is not asked for is no oversight"
    root = decathlon(tmp_path / "v1")
    put(root / "imagesTr" / "d.nii")
    assert [path.name for path in read_decathlon(root).unused] == ["d.nii"]
    (root / "dataset.json").write_text(
        json.dumps(json.loads((root / "dataset.json").read_text()) | {"training": [], "numTraining": 0})
    )
    assert len(read_decathlon(root).unused) == 5


def test_a_check_warns_of_every_such_volume(tmp_path: Path, put: Put) -> None:
    for name in ("a_image.nii.gz", "a_label.nii.gz", "b_image.nii", "c_label.nii.gz"):
        put(tmp_path / name)
    found = [f for f in check_cohort(_folder(tmp_path), jobs=1).findings if f.code == "unused-file"]
    assert [(f.severity, f.message.split(": ")[0]) for f in found] == [
        ("warning", str(tmp_path / "b_image.nii")),
        ("warning", str(tmp_path / "c_label.nii.gz")),
    ]


def test_a_training_is_told_of_volumes_that_it_does_not_use(tmp_path: Path, put: Put) -> None:
    for name in ("a_image.nii.gz", "a_label.nii.gz", "b_image.nii", "c_label.nii.gz"):
        put(tmp_path / name)
    with pytest.warns(UnusedFilesWarning, match=r"2 volume\(s\) belong to no case .*b_image\.nii"):
        assert len(checked(_folder(tmp_path)).cases) == 1
