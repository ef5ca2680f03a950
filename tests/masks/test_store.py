"""Masks on disk: what goes in comes out, and nothing seen, foreign, missing or damaged passes."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.masks.plan import MaskPlan
from whqa.masks.run_state import COMPLETED
from whqa.masks.store import MaskItem, collect_masks, mask_path, write_mask

FOLDS = Folds((("a", "b"), ("c",), ("d", "e")), seed=0)
KINDS = ("final", "early")
SHAPE = (3, 4, 5)


def _write_segmenters(root: Path, plan: MaskPlan) -> None:
    """What a finished stage one leaves behind, with random masks."""
    for job in plan.segmenters:
        directory = root / "segmenter" / job.name
        seen = set(FOLDS.without(job.held_out))
        rows = []
        for case in (c for fold in job.masks_of for c in FOLDS.cases(fold)):
            for kind in KINDS:
                _write(directory, case, kind, unseen=case not in seen)
                rows.append({"case": case, "mask_kind": kind, "error_rate": 0.25})
        with (directory / "cases.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["case", "mask_kind", "error_rate"])
            writer.writeheader()
            writer.writerows(rows)
        (directory / COMPLETED).touch()


def _write(directory: Path, case: str, kind: str, unseen: bool, maker: str | None = None) -> Path:
    path = mask_path(directory, case, kind)
    write_mask(path, np.zeros(SHAPE, np.uint8), np.zeros(SHAPE), maker or directory.name, unseen)
    return path


def _collect(root: Path, name: str = "out_of_fold", test_fold: int = 0, kinds: object = None) -> list[MaskItem]:
    return collect_masks(root, MaskPlan(name, 3), FOLDS, test_fold, kinds)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    _write_segmenters(tmp_path, MaskPlan("out_of_fold", 3))
    return tmp_path


def test_a_mask_returns_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask, entropy = rng.integers(0, 8, SHAPE).astype(np.uint8), rng.random(SHAPE).astype(np.float32)
    path = mask_path(tmp_path / "segmenter" / "0-1", "a", "side3")
    write_mask(path, mask, entropy, "0-1", unseen=True)
    assert path == tmp_path / "segmenter" / "0-1" / "masks" / "a" / "side3.npz"
    got_mask, got_entropy = MaskItem("a", "side3", path, "0-1", True, 0.0).load()
    np.testing.assert_array_equal(got_mask, mask)
    np.testing.assert_allclose(got_entropy, entropy, atol=0.5 / 255 + 1e-6)
    assert (got_mask.dtype, got_entropy.dtype) == (np.uint8, np.float32)
    assert list(path.parent.iterdir()) == [path]


def test_entropy_outside_its_range_by_rounding_is_clipped(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_mask(path, np.zeros(SHAPE), np.linspace(-1e-6, 1 + 1e-6, 60).reshape(SHAPE), "0", True)
    entropy = MaskItem("a", "final", path, "0", True, 0.0).load()[1]
    assert (entropy.min(), entropy.max()) == (0.0, 1.0)


@pytest.mark.parametrize("name", ["out_of_fold", "nested", "in_sample"])
@pytest.mark.parametrize("test_fold", range(3))
def test_every_case_gets_all_kinds_from_the_segmenter_of_the_plan(tmp_path: Path, name: str, test_fold: int) -> None:
    plan = MaskPlan(name, 3)
    _write_segmenters(tmp_path, plan)
    items = collect_masks(tmp_path, plan, FOLDS, test_fold)
    assert sorted((i.case, i.kind) for i in items) == sorted((c, k) for c in "abcde" for k in KINDS)
    for item in items:
        assert item.segmenter == plan.segmenter_of(test_fold, FOLDS.fold_of(item.case))
        assert item.error_rate == 0.25
        assert item.unseen or (name == "in_sample" and FOLDS.fold_of(item.case) != test_fold)


def test_nested_training_masks_come_from_pairs(tmp_path: Path) -> None:
    plan = MaskPlan("nested", 3)
    _write_segmenters(tmp_path, plan)
    makers = {i.case: i.segmenter for i in collect_masks(tmp_path, plan, FOLDS, 1)}
    assert makers == {"a": "0-1", "b": "0-1", "c": "1", "d": "1-2", "e": "1-2"}


def test_kinds_can_be_chosen(study: Path) -> None:
    assert {i.kind for i in _collect(study, kinds=["early"])} == {"early"}


def test_an_unknown_kind_is_refused_by_name(study: Path) -> None:
    with pytest.raises(InputError, match=r"no kind 'finl'; there are final, augmented1"):
        _collect(study, kinds=["finl"])


def test_a_kind_that_was_not_made_is_refused(study: Path) -> None:
    with pytest.raises(InputError, match="no masks of case a"):
        _collect(study, kinds=["side1"])


def test_segmenters_that_have_not_finished_are_named(study: Path) -> None:
    for fold in (1, 2):
        (study / "segmenter" / str(fold) / COMPLETED).unlink()
    with pytest.raises(InputError, match=r"fold 0 needs the segmenters 1, 2.*`whqa cv \.\.\.` trains them first"):
        _collect(study)


def test_missing_pairs_of_the_nested_plan_are_named(study: Path) -> None:
    with pytest.raises(InputError, match=r"needs the segmenters 0-1, 0-2, which"):
        _collect(study, "nested")


def test_a_mask_of_a_seen_case_is_refused(study: Path) -> None:
    path = _write(study / "segmenter" / "1", "c", "early", unseen=False)
    with pytest.raises(InputError, match="trained on case c") as error:
        _collect(study)
    assert str(path) in str(error.value)


def test_even_in_sample_the_test_fold_is_unseen(tmp_path: Path) -> None:
    _write_segmenters(tmp_path, MaskPlan("in_sample", 3))
    _collect(tmp_path, "in_sample")
    _write(tmp_path / "segmenter" / "0", "b", "final", unseen=False)
    with pytest.raises(InputError, match="trained on case b"):
        _collect(tmp_path, "in_sample")


def test_a_mask_of_another_segmenter_is_refused(study: Path) -> None:
    _write(study / "segmenter" / "1", "c", "final", unseen=True, maker="0-1")
    with pytest.raises(InputError, match=r"made by segmenter '0-1', expected '1'"):
        _collect(study)


def test_a_case_without_masks_is_named(study: Path) -> None:
    table = study / "segmenter" / "2" / "cases.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if not line.startswith("e,")) + "\n")
    with pytest.raises(InputError, match="no masks of case e"):
        _collect(study)


def test_a_mask_that_is_gone_is_named(study: Path) -> None:
    path = mask_path(study / "segmenter" / "2", "d", "final")
    path.unlink()
    with pytest.raises(InputError, match=r"d/final\.npz: no such file; make it again: rm "):
        _collect(study)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a zip", b"text"])
def test_a_damaged_mask_is_named(study: Path, damage: bytes) -> None:
    mask_path(study / "segmenter" / "2", "d", "final").write_bytes(damage)
    with pytest.raises(InputError, match=r"d/final\.npz: not readable as a mask"):
        _collect(study)


def test_a_mask_that_lost_its_end_is_named(study: Path) -> None:
    path = mask_path(study / "segmenter" / "2", "d", "final")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"d/final\.npz: not readable as a mask"):
        _collect(study)


def test_a_mask_without_its_record_is_named(study: Path) -> None:
    path = mask_path(study / "segmenter" / "2", "d", "final")
    np.savez_compressed(path, mask=np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match=r"d/final\.npz"):
        _collect(study)


def test_a_segmenter_without_its_table_is_named(study: Path) -> None:
    (study / "segmenter" / "2" / "cases.csv").unlink()
    with pytest.raises(InputError, match=r"cases\.csv"):
        _collect(study)
