"""The cache: content decides, entries are whole, bad input leaves nothing."""

from __future__ import annotations

import dataclasses
import os
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.data import cache as cache_module
from whqa.data.cache import Cache, CropWarning, PreparedCase, prepare_cohort
from whqa.data.case import Case, Cohort
from whqa.data.nifti import read_image, read_label
from whqa.data.preprocess import Preprocess, preprocess_image, preprocess_label
from whqa.errors import InputError
from whqa.structures import ACDC, LabelScheme

SETTINGS = Preprocess((2.0, 2.0, 2.0))


def scan(shape: tuple[int, int, int] = (16, 18, 20)) -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).integers(0, 500, shape).astype("int16")
    label = np.zeros(shape, "uint8")
    label[4:8, 4:12, 4:12], label[8:10, 4:12, 4:12], label[10:14, 4:12, 4:12] = 1, 2, 3
    return image, label


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 2, 1])), path)
    return path


def cohort(folder: Path, label: np.ndarray | None = None, cases: int = 1) -> Cohort:
    image, default = scan()
    made = tuple(
        Case(
            f"c{i}",
            f"p{i}",
            "mr",
            save(folder / f"c{i}_image.nii.gz", image + np.int16(i)),
            save(folder / f"c{i}_label.nii.gz", default if label is None else label),
        )
        for i in range(cases)
    )
    return Cohort("mine", made, ACDC)


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name != "hashes") if folder.exists() else []


def test_arrays_are_those_of_preprocessing(tmp_path: Path) -> None:
    mine = cohort(tmp_path / "data")
    case = mine.cases[0]
    prepared = Cache(tmp_path / "cache", SETTINGS).prepare(mine, case)
    values, geometry = preprocess_image(read_image(case.image), "mr", SETTINGS)
    assert case.label
    reference = preprocess_label(read_label(case.label, ACDC), geometry)
    assert prepared.geometry == geometry
    assert (prepared.id, prepared.patient, prepared.modality, prepared.has_label) == ("c0", "p0", "mr", True)
    assert prepared.shape == values.shape == prepared.image().shape
    assert prepared.spacing == geometry.spacing
    for array, dtype in ((prepared.image(), np.float16), (prepared.label(), np.uint8)):
        assert isinstance(array, np.memmap)
        assert array.dtype == dtype
        assert not array.flags.writeable
    np.testing.assert_array_equal(prepared.image(), values.astype(np.float16))
    np.testing.assert_array_equal(prepared.label(), reference)
    again = pickle.loads(pickle.dumps(prepared))
    np.testing.assert_array_equal(again.image(), prepared.image())


def test_unlabelled_case(tmp_path: Path) -> None:
    mine = cohort(tmp_path / "data")
    case = dataclasses.replace(mine.cases[0], label=None)
    prepared = Cache(tmp_path / "cache", SETTINGS).prepare(mine, case)
    assert not prepared.has_label
    with pytest.raises(InputError, match="'c0' has no reference"):
        prepared.label()


def test_a_second_time_reads_neither_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = cohort(tmp_path / "data")
    first = Cache(tmp_path / "cache", SETTINGS).prepare(mine, mine.cases[0])

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    monkeypatch.setattr(cache_module, "read_case", fail)
    monkeypatch.setattr(cache_module.hashlib, "file_digest", fail)
    assert Cache(tmp_path / "cache", SETTINGS).prepare(mine, mine.cases[0]) == first


def test_whatever_decides_the_arrays_decides_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = cohort(tmp_path / "data")
    case = mine.cases[0]
    seen = {Cache(tmp_path / "cache", SETTINGS).prepare(mine, case).directory}

    def prepare(other: Cohort = mine, one: Case = case, settings: Preprocess = SETTINGS) -> PreparedCase:
        return Cache(tmp_path / "cache", settings).prepare(other, one)

    seen.add(prepare(settings=Preprocess((3.0, 3.0, 3.0))).directory)
    seen.add(prepare(settings=Preprocess((2.0, 2.0, 2.0), mr_percentiles=(1, 99))).directory)
    seen.add(prepare(one=dataclasses.replace(case, modality="ct")).directory)
    seen.add(prepare(one=dataclasses.replace(case, label=None)).directory)
    swapped = LabelScheme("mine", {"lv": 1, "myo": 2, "rv": 3})
    seen.add(prepare(other=dataclasses.replace(mine, scheme=swapped)).directory)
    monkeypatch.setattr(cache_module, "_code_version", lambda: "newer code")
    seen.add(prepare().directory)
    assert len(seen) == 7
    monkeypatch.undo()
    save(case.image, scan()[0] + np.int16(9))
    assert prepare().directory not in seen


def test_a_copied_or_touched_file_is_the_same_content(tmp_path: Path) -> None:
    mine = cohort(tmp_path / "data")
    first = Cache(tmp_path / "cache", SETTINGS).prepare(mine, mine.cases[0]).directory
    os.utime(mine.cases[0].image, (1, 1))
    assert Cache(tmp_path / "cache", SETTINGS).prepare(mine, mine.cases[0]).directory == first


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
    other_shape: r"c0_label\.nii\.gz: shape .* differs from .*c0_image\.nii\.gz",
    label_gone: r"c0_label\.nii\.gz: not readable \(No such file",
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
        InputError, match=r"c0_label\.nii\.gz: the crop of case 'c0' leaves nothing of .*enlarge crop_mm"
    ):
        Cache(tmp_path / "lost", lost).prepare(mine, mine.cases[0])
    assert entries(tmp_path / "lost") == []


def test_a_structure_thinner_than_the_grid_is_a_warning(tmp_path: Path) -> None:
    label = scan()[1]
    label[label == 2] = 1
    label[9, 8, 8] = 2
    mine = cohort(tmp_path / "data", label)
    with pytest.warns(CropWarning, match="all of myo"):
        Cache(tmp_path / "cache", Preprocess((6.0, 6.0, 6.0))).prepare(mine, mine.cases[0])


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = cohort(tmp_path / "data")
    cache = Cache(tmp_path / "cache", SETTINGS)

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "write_json", full)
        with pytest.raises(OSError, match="disk full"):
            cache.prepare(mine, mine.cases[0])
    assert entries(tmp_path / "cache") == []
    assert cache.prepare(mine, mine.cases[0]).image().size


@pytest.mark.parametrize("damage", ["remove", "shorten", "record"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str) -> None:
    mine = cohort(tmp_path / "data")
    cache = Cache(tmp_path / "cache", SETTINGS)
    prepared = cache.prepare(mine, mine.cases[0])
    expected = np.array(prepared.image())
    image = prepared.directory / "image.npy"
    if damage == "remove":
        image.unlink()
    elif damage == "shorten":
        image.write_bytes(image.read_bytes()[:-10])
    else:
        (prepared.directory / "case.json").write_text("{")
    np.testing.assert_array_equal(cache.prepare(mine, mine.cases[0]).image(), expected)
    assert entries(tmp_path / "cache") == [prepared.directory.name]


def test_several_workers_at_once(tmp_path: Path) -> None:
    mine = cohort(tmp_path / "data", cases=3)
    start = threading.Barrier(6)

    def work(_: int) -> dict[str, PreparedCase]:
        start.wait()
        return prepare_cohort(mine, Cache(tmp_path / "cache", SETTINGS), progress=False)

    with ThreadPoolExecutor(6) as crowd:
        results = list(crowd.map(work, range(6)))
    assert all(result == results[0] for result in results)
    assert list(results[0]) == ["c0", "c1", "c2"]
    assert len(entries(tmp_path / "cache")) == 3


def test_no_progress_bar_without_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_cohort(cohort(tmp_path / "data"), Cache(tmp_path / "cache", SETTINGS))
    assert capsys.readouterr() == ("", "")
