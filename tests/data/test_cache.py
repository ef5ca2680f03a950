"""The cache: content decides, entries are whole, bad input leaves nothing."""

from __future__ import annotations

import dataclasses
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_cohort import SETTINGS, cohort, entries, save, scan

from whqa.data import cache as cache_module
from whqa.data.cache import Cache, PreparedCase
from whqa.data.case import Case, Cohort
from whqa.data.formats.volume_files import read_image, read_label
from whqa.data.points import POINTS, structure_points
from whqa.data.prepare import prepare_cohort
from whqa.data.preprocess import Preprocess, preprocess_image, preprocess_label
from whqa.errors import InputError
from whqa.files import sha256
from whqa.structures import ACDC, LabelScheme


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
    assert prepared.minimum == values.astype(np.float16).min()
    structures = prepared.structures()
    assert len(structures) == 3
    for index, points in enumerate(structures, start=1):
        np.testing.assert_array_equal(points, np.argwhere(reference == index))
    again = pickle.loads(pickle.dumps(prepared))
    np.testing.assert_array_equal(again.image(), prepared.image())


def test_points_of_a_large_structure_are_spread_over_it() -> None:
    label = np.zeros((40, 50, 60), np.uint8)
    label[5:35, 5:45, 10:50], label[0, 0, 3] = 2, 7
    points = structure_points(label)
    large = points[points[:, 0] == 2, 1:]
    assert len(np.unique(large, axis=0)) == len(large) == POINTS
    assert (label[tuple(large.T)] == 2).all()
    np.testing.assert_allclose(large.mean(axis=0), (19.5, 24.5, 29.5), atol=0.5)
    assert points[points[:, 0] == 7].tolist() == [[7, 0, 0, 3]]
    assert structure_points(label * 0).shape == (0, 4)


def test_unlabelled_case(tmp_path: Path) -> None:
    mine = cohort(tmp_path / "data")
    case = dataclasses.replace(mine.cases[0], label=None)
    prepared = Cache(tmp_path / "cache", SETTINGS).prepare(mine, case)
    assert not prepared.has_label
    with pytest.raises(InputError, match="'c0' has no reference"):
        prepared.label()


def test_a_second_time_reads_neither_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_SETTLED_S", 0.0)
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


@pytest.mark.parametrize("what", ["image", "label"])
def test_a_file_replaced_by_one_of_equal_size_and_date_is_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(cache_module, "_SETTLED_S", 0.0)
    image, label = scan()
    paths = [save(tmp_path / f"{name}.nii", array) for name, array in (("image", image), ("label", label))]
    mine = Cohort("mine", (Case("c0", "p0", "mr", *paths),), ACDC)
    cache = Cache(tmp_path / "cache", SETTINGS)
    first = cache.prepare(mine, mine.cases[0])
    path = getattr(mine.cases[0], what)
    before = path.stat()
    image[5:8, 5:8, 5:8], label[5:8, 5:8, 5:8] = 900, 2
    save(path, image if what == "image" else label)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    second = cache.prepare(mine, mine.cases[0])
    assert second.directory != first.directory
    assert not np.array_equal(getattr(second, what)(), getattr(first, what)())


def test_young_files_are_hashed_each_time(tmp_path: Path) -> None:
    """A file could change twice within one step of its file system's clock."""
    mine = cohort(tmp_path / "data")
    cache = Cache(tmp_path / "cache", SETTINGS)
    cache.prepare(mine, mine.cases[0])
    assert not any(cache._remembered(path) for path in mine.cases[0].files)
    assert cache.find(mine, mine.cases[0]) is None


def test_a_file_that_changes_while_it_is_read_makes_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = cohort(tmp_path / "data")
    honest = cache_module.read_case

    def read(*arguments: Any, **options: Any) -> Any:
        save(mine.cases[0].image, scan()[0] + np.int16(5))
        return honest(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "read_case", read)
        with pytest.raises(InputError, match=r"c0_image\.nii\.gz: .* changed while it was read; run again"):
            Cache(tmp_path / "cache", SETTINGS).prepare(mine, mine.cases[0])
    assert entries(tmp_path / "cache") == []


def test_order_of_overlapping_parts_decides_the_entry(tmp_path: Path) -> None:
    """The structure that comes later wins, so the order is content."""
    mine = cohort(tmp_path / "data")
    whole = scan()[1]
    parts = {
        "lv": save(tmp_path / "lv.nii.gz", (whole > 1).astype("uint8")),
        "rv": save(tmp_path / "rv.nii.gz", (whole > 0).astype("uint8")),
    }
    cache = Cache(tmp_path / "cache", SETTINGS)
    for keys, volumes in ((("lv", "rv"), {1}), (("rv", "lv"), {1, 3})):
        case = dataclasses.replace(mine.cases[0], label=None, parts={k: parts[k] for k in keys})
        assert {int(v) for v in np.unique(cache.prepare(mine, case).label())} == {0, *volumes}


def test_ignored_values_decide_the_entry(tmp_path: Path) -> None:
    label = scan()[1]
    label[0, 0, 0] = 9
    mine = cohort(tmp_path / "data", label)
    cache = Cache(tmp_path / "cache", SETTINGS)
    lenient = dataclasses.replace(mine, scheme=dataclasses.replace(ACDC, ignored=frozenset({9})))
    assert cache.prepare(lenient, mine.cases[0]).image().size
    with pytest.raises(InputError, match=r"unknown label value\(s\) \[9\]"):
        cache.prepare(mine, mine.cases[0])


def test_a_copied_or_touched_file_is_the_same_content(tmp_path: Path) -> None:
    mine = cohort(tmp_path / "data")
    first = Cache(tmp_path / "cache", SETTINGS).prepare(mine, mine.cases[0]).directory
    os.utime(mine.cases[0].image, (1, 1))
    assert Cache(tmp_path / "cache", SETTINGS).prepare(mine, mine.cases[0]).directory == first


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = cohort(tmp_path / "data")
    cache = Cache(tmp_path / "cache", SETTINGS)

    def full(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "write_json", full)
        with pytest.raises(InputError, match=r"cannot be written \(disk full\); make room, or"):
            cache.prepare(mine, mine.cases[0])
    assert entries(tmp_path / "cache") == []
    assert cache.prepare(mine, mine.cases[0]).image().size


def test_what_is_not_an_entry_is_neither_counted_nor_removed(tmp_path: Path) -> None:
    mine, cache = cohort(tmp_path / "data"), Cache(tmp_path / "cache", SETTINGS)
    prepared = cache.prepare(mine, mine.cases[0])
    for folder in ("thesis", "runs", "ct_train_1001-draft"):
        (tmp_path / "cache" / folder).mkdir()
        (tmp_path / "cache" / folder / "text.txt").write_text("important")
    old = tmp_path / "cache" / "ct_train_1001-0123456789abcdef"
    old.mkdir()
    (old / "gone.npy").symlink_to("/no/such/file")
    assert set(cache.sizes()) == {prepared.directory, old}
    assert cache.prune([prepared]) == 1
    assert not old.exists()
    assert (tmp_path / "cache" / "thesis" / "text.txt").read_text() == "important"
    assert {p.name for p in (tmp_path / "cache").iterdir()} >= {"thesis", "runs", "ct_train_1001-draft"}


@pytest.mark.parametrize("damage", ["remove", "shorten", "record", "noise"])
def test_a_damaged_entry_is_made_again(tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As trainings ask for it, which know its scan."""
    mine = cohort(tmp_path / "data")
    cache = Cache(tmp_path / "cache", SETTINGS)
    monkeypatch.setattr("whqa.data.cache._SETTLED_S", -1.0)
    prepared = cache.prepare(mine, mine.cases[0])
    assert cache.find(mine, mine.cases[0]) == prepared
    expected = np.array(prepared.image())
    image = prepared.directory / "image.npy"
    if damage == "remove":
        image.unlink()
    elif damage == "shorten":
        image.write_bytes(image.read_bytes()[:-10])
    elif damage == "noise":
        values = np.load(image)
        values[2] = np.random.default_rng(0).normal(size=values[2].shape)
        np.save(image, values)
    else:
        (prepared.directory / "case.json").write_text("{")
    (again,) = prepare_cohort(mine, cache, progress=False).values()
    np.testing.assert_array_equal(again.image(), expected)
    assert entries(tmp_path / "cache") == [prepared.directory.name]


def test_arrays_are_read_for_their_digest_only_where_they_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with the date set back."""
    mine = cohort(tmp_path / "data")
    cache = Cache(tmp_path / "cache", SETTINGS)
    prepared = cache.prepare(mine, mine.cases[0])
    expected, image = np.array(prepared.image()), prepared.directory / "image.npy"
    monkeypatch.setattr("whqa.data.cache._SETTLED_S", -1.0)
    read: list[str] = []

    def count(path: Path) -> str:
        read.append(path.name)
        return sha256(path)

    monkeypatch.setattr("whqa.data.cache.sha256", count)
    cache.prepare(mine, mine.cases[0])
    assert "image.npy" not in read
    before = image.stat()
    image.write_bytes(image.read_bytes()[:-50] + bytes(50))
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    np.testing.assert_array_equal(cache.prepare(mine, mine.cases[0]).image(), expected)
    assert "image.npy" in read


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
