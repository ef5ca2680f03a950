"""A cohort by name of its source and folder: settings, near misses, odd names, layouts that are recognised."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.cli.commands import main
from whqa.cli.info import info
from whqa.config.cohorts import cohort_of, recognised, sources
from whqa.config.instantiate import config_dir
from whqa.errors import InputError


def acdc(root: Path) -> Path:
    root.mkdir(exist_ok=True)
    label = np.arange(4 * 5 * 6).reshape(4, 5, 6) % 4
    for i in (1, 2):
        for part in ("image", "label"):
            nib.save(nib.Nifti1Image(label.astype(np.int16), np.eye(4)), root / f"patient00{i}_{part}.nii.gz")
    return root


def test_the_sources_are_the_configurations_that_read() -> None:
    assert set(sources()) == {p.stem for p in (config_dir() / "data").glob("*.yaml")} - {"phantom"}
    assert {"mmwhs", "acdc", "folder"} <= set(sources())


def test_settings_reach_the_reader(mixed_phantoms: Path) -> None:
    assert len(cohort_of("mmwhs", mixed_phantoms).cases) == 4
    cohort = cohort_of("mmwhs", mixed_phantoms, ["modality=mr", "name=mine", "spacing_rule=affine"])
    assert [c.id for c in cohort.cases] == ["mr_train_1001", "mr_train_1002"]
    assert (cohort.name, cohort.spacing_rule) == ("mine", "affine")


@pytest.mark.parametrize("name", ["a,b=1", "${oc.env:HOME}", "it's [ünï] #1"])
def test_folders_may_be_called_anything(mixed_phantoms: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(mixed_phantoms, tmp_path / name)
    assert cohort_of("mmwhs", tmp_path / name).cases[0].image == tmp_path / name / "ct_train_1001_image.nii.gz"
    assert recognised(tmp_path / name) == "mmwhs"


@pytest.mark.parametrize(
    ("source", "settings", "words"),
    [
        ("mmwsh", [], "no source 'mmwsh'; did you mean 'mmwhs'? There are acdc"),
        ("MMWHS", [], "did you mean 'mmwhs'?"),
        ("xyz", [], "no source 'xyz'. There are acdc"),
        ("phantom", [], "read as source mmwhs"),
        ("mmwhs", ["modalty=ct"], "no key 'data.modalty' in the configuration; did you mean 'data.modality'?"),
        ("mmwhs", ["modality=us"], "us"),
        ("mmwhs", ["root=/"], "'root=/': the folder is stated as such"),
        ("mmwhs", ["+root=/"], "the folder is stated as such"),
        ("mmwhs", ["_target_=os.system"], "what reads it by --source"),
        ("mmwhs", ["spacing_rule=both"], "spacing_rule=both: must be one of pixdim, affine, refuse"),
        ("mmwhs", ["modality"], "'modality': must be key=value"),
    ],
)
def test_mistakes_are_named(mixed_phantoms: Path, source: str, settings: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        cohort_of(source, mixed_phantoms, settings)
    assert words in str(error.value)


def test_layouts_are_recognised(mixed_phantoms: Path, tmp_path: Path) -> None:
    assert recognised(mixed_phantoms) == "mmwhs"
    assert recognised(acdc(tmp_path / "a")) == "acdc"


def test_folders_that_no_source_knows(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(InputError, match=r"not the layout of any source.*state --source, one of acdc.*folder takes"):
        recognised(tmp_path)
    with pytest.raises(InputError, match="nothing: data folder does not exist"):
        recognised(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a file"):
        recognised(tmp_path / "scan.nii.gz")


def scan(path: Path, value: int = 500) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.full(64, value) if "label" in path.name.lower() else np.arange(64)
    nib.save(nib.Nifti1Image(array.reshape(4, 4, 4).astype(np.int16), np.eye(4)), path)
    return path


def pair(root: Path, case: str, value: int = 500, ending: str = ".nii.gz") -> Path:
    for part in ("image", "label"):
        scan(root / f"{case}_{part}{ending}", value)
    return root


@pytest.mark.parametrize("case", ["scan1", "A001", "patient_1", "1e5", "patientA1"])
def test_a_flat_folder_of_other_names_is_no_acdc(tmp_path: Path, case: str) -> None:
    with pytest.raises(InputError, match=r"not the layout of any source.*state --source, one of acdc.*folder takes"):
        recognised(pair(tmp_path, case, 3))


@pytest.mark.parametrize("fault", ["label without image", "copy", "both endings", "image without label"])
def test_a_layout_fault_does_not_make_mmwhs_another_source(tmp_path: Path, fault: str) -> None:
    pair(pair(tmp_path, "ct_train_1001"), "mr_train_1001")
    {
        "label without image": lambda: scan(tmp_path / "ct_train_1002_label.nii.gz"),
        "copy": lambda: scan(tmp_path / "sub" / "ct_train_1001_image.nii.gz"),
        "both endings": lambda: scan(tmp_path / "ct_train_1001_label.nii"),
        "image without label": lambda: (tmp_path / "ct_train_1001_label.nii.gz").unlink(),
    }[fault]()
    assert recognised(tmp_path) == "mmwhs"
    assert len(cohort_of("mmwhs", tmp_path).problems) == 1


@pytest.mark.parametrize("case", ["ct_train_1001", "CT_TRAIN_1001", "Ct_Train_1001"])
@pytest.mark.parametrize("value", [0, 3, 500])
def test_names_alone_make_mmwhs_whatever_its_label_values(tmp_path: Path, case: str, value: int) -> None:
    assert recognised(pair(tmp_path, case, value)) == "mmwhs"


def test_label_values_count_before_problems(tmp_path: Path) -> None:
    """Of patients with a word for CT in the folder's name, which CARE-WHS reads without a problem."""
    root = pair(pair(tmp_path / "ct", "patient001", 3), "patient002", 3)
    scan(root / "patient003_image.nii.gz")
    assert recognised(root) == "acdc"


def test_both_layouts_of_acdc_are_named(tmp_path: Path) -> None:
    pair(tmp_path, "patient001", 3)
    scan(tmp_path / "patient002" / "patient002_frame01.nii.gz")
    with pytest.raises(InputError, match="holds both layouts of ACDC"):
        recognised(tmp_path)


def test_a_folder_without_scans_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds no \.nii, \.nii\.gz, \.nrrd or \.mha file"):
        recognised(tmp_path)


NUMBERS = ("007", "12", "13", "1_2", "1e5")
FOLDER = ("scheme=acdc", "label=null")


def left(root: Path, *settings: str) -> list[str]:
    return [case.id for case in cohort_of("folder", root, [*FOLDER, *settings]).cases]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("numbers")
    for name in (*NUMBERS, "true", "O'Neil", "Fall ä (2)", "a[1]", "it, or", "inf", "5"):
        (root / f"{name}_image.nii.gz").touch()
    return root


@pytest.fixture(scope="module")
def everyone(numbers: Path) -> list[str]:
    return left(numbers)


@pytest.mark.parametrize("name", [*NUMBERS, "true", "O'Neil", "Fall ä (2)", "a[1]", "inf", "5"])
@pytest.mark.parametrize("form", ["{}", "[{}]", '["{}"]', '"{}"', "[ {} , 13]", "['5',{}]"])
def test_names_to_leave_out_are_taken_as_they_are_typed(
    numbers: Path, everyone: list[str], name: str, form: str
) -> None:
    gone = {name, *(other for other in ("13", "5") if other in form)}
    assert left(numbers, f"without={form.format(name)}") == [n for n in everyone if n not in gone]


def test_commas_need_quotes_and_null_is_nothing(numbers: Path) -> None:
    assert "it, or" not in left(numbers, 'without=["it, or"]')
    assert left(numbers, "without=null") == left(numbers, "without=[]") == left(numbers)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("without=", "'without=': states no name; state names, [a, b], or a text file, or null for none"),
        ("without= ", "states no name"),
        ("without=[13,,5]", "'without=[13,,5]': states an empty name"),
        ("without=14", "14: not readable"),
        ("without=[1_3]", "has no case '1_3'"),
    ],
)
def test_names_that_are_none(
    numbers: Path, setting: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        left(numbers, setting)
    assert words in str(error.value)


def test_subjects_are_names_as_well(tmp_path: Path) -> None:
    for name in ("1_2", "12"):
        scan(tmp_path / name / "ct.nii.gz")
    assert [c.id for c in cohort_of("totalsegmentator", tmp_path, ["subjects=[1_2]"]).cases] == ["1_2"]
    assert [c.id for c in cohort_of("totalsegmentator", tmp_path, ["subjects=12"]).cases] == ["12"]


def test_names_of_many_bytes_are_a_problem(tmp_path: Path) -> None:
    for name in ("ä" * 75, "ä" * 76):
        (tmp_path / f"{name}_image.nii.gz").touch()
    cohort = cohort_of("folder", tmp_path, FOLDER)
    assert [c.id for c in cohort.cases] == ["ä" * 75]
    assert "up to 150 bytes" in cohort.problems[0]


def test_training_needs_labels(numbers: Path) -> None:
    with pytest.raises(InputError, match="'folder': none of its 12 cases has a label; training needs them"):
        _ = cohort_of("folder", numbers, FOLDER).labelled


@pytest.mark.parametrize("words", [[], ["--source", "nnunet"]])
def test_the_advice_about_links_and_channels_works_in_the_command_that_gave_it(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    root, store = tmp_path / "data", tmp_path / "store"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    store.mkdir()
    array = np.arange(1000, dtype=np.int16).reshape(10, 10, 10)
    for name, voxels in (("imagesTr/a_0000.nii.gz", array), ("labelsTr/a.nii.gz", array // 500)):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), store / Path(name).name)
        (root / name).symlink_to(store / Path(name).name)
    description = {"channel_names": {"0": "first", "1": "second"}, "labels": {"background": 0, "LV": 1}}
    (root / "dataset.json").write_text(json.dumps(description | {"file_ending": ".nii.gz"}))
    command = ["data", "check", str(root), *words, "--jobs", "1"]
    for advised, full in (
        ("choose one with data.channel", "data.channel=0"),
        ("set data.modality=ct", "data.modality=ct"),
        ("set data.links=true", "data.links=true"),
    ):
        with pytest.raises(SystemExit) as end:
            main(command)
        assert end.value.code == 2
        assert advised in capsys.readouterr().err
        command.append(full)
    with pytest.raises(SystemExit) as end:
        main(command)
    assert "1 case: 0 errors" in capsys.readouterr().out


def test_info_names_sources_and_schemes() -> None:
    found = info()
    assert {*sources(), "phantom"} <= set(found["data"])
    assert {"mmwhs", "care_whs", "acdc", "totalsegmentator_v1", "totalsegmentator_highres"} <= set(
        found["label_schemes"]
    )
