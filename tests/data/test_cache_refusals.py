"""What is not prepared, and what is prepared with a warning."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_cohort import SETTINGS, cohort, entries, save, scan

from whqa.data.cache import Cache, CropWarning
from whqa.data.case import Cohort
from whqa.data.prepare import prepare_cohort
from whqa.data.preprocess import Preprocess
from whqa.errors import InputError
from whqa.structures import LabelScheme


def bad_label_value(folder: Path) -> Cohort:
    label = scan()[1]
    label[0, 0, 0] = 9
    return cohort(folder, label)


def truncated_image(folder: Path) -> Cohort:
    mine = cohort(folder)
    block = mine.cases[0].image.read_bytes()
    mine.cases[0].image.write_bytes(block[: len(block) // 2])
    return mine


def nan_image(folder: Path) -> Cohort:
    mine = cohort(folder)
    save(mine.cases[0].image, np.where(scan()[0] == 7, np.nan, scan()[0]).astype("float32"))
    return mine


def other_shape(folder: Path) -> Cohort:
    mine = cohort(folder)
    save(folder / "c0_label.nii.gz", scan()[1][1:])
    return mine


def label_gone(folder: Path) -> Cohort:
    mine = cohort(folder)
    (folder / "c0_label.nii.gz").unlink()
    return mine


def empty_label(folder: Path) -> Cohort:
    return cohort(folder, scan()[1] * 0)


BAD: dict[Callable[[Path], Cohort], str] = {
    bad_label_value: r"c0_label\.nii\.gz: unknown label value\(s\) \[9\]",
    truncated_image: r"c0_image\.nii\.gz: truncated",
    nan_image: r"c0_image\.nii\.gz: .* NaN or infinite",
    other_shape: r"c0_label\.nii\.gz: its grid differs from .*c0_image\.nii\.gz",
    label_gone: r"c0_label\.nii\.gz: no such file",
    empty_label: r"c0_label\.nii\.gz: empty label map",
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__)
def test_bad_input_leaves_nothing(tmp_path: Path, make: Callable[[Path], Cohort]) -> None:
    mine = make(tmp_path / "data")
    with pytest.raises(InputError, match=BAD[make]):
        prepare_cohort(mine, Cache(tmp_path / "cache", SETTINGS))
    assert entries(tmp_path / "cache") == []


def test_a_cut_structure_is_a_warning_and_a_lost_one_an_error(tmp_path: Path) -> None:
    label = scan()[1]
    mine = cohort(tmp_path / "data", label)
    cut = Preprocess((None, None, None), (12.0, 100.0, 100.0))
    with pytest.warns(CropWarning, match=r"case 'c0': preprocessing cuts away 50.0 % of lv|50.0 % of rv"):
        Cache(tmp_path / "cache", cut).prepare(mine, mine.cases[0])
    lost = Preprocess((None, None, None), (3.0, 100.0, 100.0))
    with pytest.raises(
        InputError, match=r"c0_label\.nii\.gz: the crop of case 'c0' leaves nothing of .*enlarge preprocess\.crop_mm"
    ):
        Cache(tmp_path / "lost", lost).prepare(mine, mine.cases[0])
    assert entries(tmp_path / "lost") == []


def test_great_vessels_may_leave_a_crop_round_the_heart(tmp_path: Path) -> None:
    image, label = scan((16, 18, 60))
    label[8:10, 8:10, 15:] = 4
    mine = cohort(tmp_path / "data")
    save(mine.cases[0].image, image)
    save(mine.cases[0].label or Path(), label)
    mine = dataclasses.replace(mine, scheme=LabelScheme("four", {"rv": 1, "myo": 2, "lv": 3, "ao": 4}))
    settings = Preprocess((1.5, 1.5, 2.0), (24.0, 27.0, 24.0), "heart")
    prepared = Cache(tmp_path / "cache", settings).prepare(mine, mine.cases[0])
    lost = json.loads((prepared.directory / "case.json").read_text())["lost"]
    assert lost == pytest.approx({"rv": 0, "myo": 0, "lv": 0, "ao": 1})
    wide = dataclasses.replace(settings, centre="image", crop_mm=(24.0, 27.0, 100.0))
    around_image = Cache(tmp_path / "cache", wide)
    with pytest.warns(CropWarning, match=r"12\.5 % of lv, 11\.1 % of ao"):
        around_image.prepare(mine, mine.cases[0])


def test_a_structure_thinner_than_the_grid_is_a_warning(tmp_path: Path) -> None:
    label = scan()[1]
    label[label == 2] = 1
    label[9, 8, 8] = 2
    mine = cohort(tmp_path / "data", label)
    with pytest.warns(CropWarning, match="all of myo"):
        Cache(tmp_path / "cache", Preprocess((6.0, 6.0, 6.0))).prepare(mine, mine.cases[0])
