"""A cohort by name of its source and folder: settings, near misses, odd names, layouts that are recognised."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.cohorts import cohort_of, recognised, sources
from whqa.config import config_dir
from whqa.data.phantom import write_phantoms
from whqa.errors import InputError


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root, 4, "both", 5, 6)
    return root


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


def test_settings_reach_the_reader(phantoms: Path) -> None:
    assert len(cohort_of("mmwhs", phantoms).cases) == 4
    cohort = cohort_of("mmwhs", phantoms, ["modality=mr", "name=mine", "spacing_rule=affine"])
    assert [c.id for c in cohort.cases] == ["mr_train_1001", "mr_train_1002"]
    assert (cohort.name, cohort.spacing_rule) == ("mine", "affine")


@pytest.mark.parametrize("name", ["a,b=1", "${oc.env:HOME}", "it's [ünï] #1"])
def test_folders_may_be_called_anything(phantoms: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(phantoms, tmp_path / name)
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
def test_mistakes_are_named(phantoms: Path, source: str, settings: list[str], words: str) -> None:
    with pytest.raises(InputError) as error:
        cohort_of(source, phantoms, settings)
    assert words in str(error.value)


def test_layouts_are_recognised(phantoms: Path, tmp_path: Path) -> None:
    assert recognised(phantoms) == "mmwhs"
    assert recognised(acdc(tmp_path / "a")) == "acdc"


def test_folders_that_no_source_knows(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.int16), np.eye(4)), tmp_path / "scan.nii.gz")
    with pytest.raises(InputError, match=r"not the layout of any source.*state --source, one of acdc.*folder takes"):
        recognised(tmp_path)
    with pytest.raises(InputError, match="nothing: data folder does not exist"):
        recognised(tmp_path / "nothing")
    with pytest.raises(InputError, match="is a file"):
        recognised(tmp_path / "scan.nii.gz")


def test_label_values_decide_between_layouts_and_nothing_is_guessed_without_them(tmp_path: Path) -> None:
    root = tmp_path / "scans"
    root.mkdir()
    for value, source in ((500, "mmwhs"), (3, "acdc")):
        for array, part in ((np.arange(64), "image"), (np.full(64, value), "label")):
            image = nib.Nifti1Image(array.reshape(4, 4, 4).astype(np.int16), np.eye(4))
            nib.save(image, root / f"ct_train_1001_{part}.nii.gz")
        assert recognised(root) == source
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), root / "ct_train_1001_label.nii.gz")
    with pytest.raises(InputError, match=r"fits the sources .*; choose one with --source") as error:
        recognised(root)
    assert {"acdc", "mmwhs"} <= set(str(error.value).replace(";", " ").split())
