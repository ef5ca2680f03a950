"""The record of a run's own cases: which masks it holds, each once, whatever the processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from whqa.callbacks.recording import RecordFeatures
from whqa.data.preprocess import Geometry
from whqa.results.familiarity import IDENTITY, feature_table, read_features
from whqa.results.features import feature_names, features

SHAPE = (12, 14, 16)
KEYS = ("lv", "rv")
ITEMS = [("a", "final"), ("a", "side1"), ("b", "final"), ("b", "nnunet"), ("b", "early")]
GEOMETRY = Geometry(
    shape=SHAPE,
    spacing=(4.0, 4.0, 4.0),
    start=(0.0, 0.0, 0.0),
    step=(1.0, 1.0, 1.0),
    original_shape=SHAPE,
    affine=((4.0, 0, 0, 0), (0, 4.0, 0, 0), (0, 0, 4.0, 0), (0, 0, 0, 1.0)),
    orientation=((0, 1), (1, 1), (2, 1)),
)


def _arrays(index: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(index)
    mask = np.zeros(SHAPE, np.uint8)
    mask[3:6, 3:9, 4:12] = 1
    mask[6:9, 3:9, 4 : 8 + index] = 2
    return rng.uniform(-1, 1, SHAPE).astype(np.float32), mask


def _batch(index: int) -> dict[str, Any]:
    image, mask = _arrays(index)
    return {
        "image": torch.from_numpy(image)[None, None],
        "mask": torch.from_numpy(mask).long()[None],
        "label": torch.from_numpy(_arrays(7)[1]).long()[None],
        "index": torch.tensor([index]),
        "case": [ITEMS[index][0]],
        "kind": [ITEMS[index][1]],
    }


def _record(root: Path, order: tuple[int, ...] = (0, 1, 2, 3, 4, 0), zero: bool = True) -> None:
    cases = {case: SimpleNamespace(geometry=GEOMETRY) for case in "ab"}
    trainer: Any = SimpleNamespace(datamodule=SimpleNamespace(cases=cases, test_items=ITEMS), is_global_zero=zero)
    module: Any = SimpleNamespace(device=torch.device("cpu"))
    identity = {item: {"fold": 2, "patient": f"p{item[0]}", "modality": "mr", "segmenter": "x"} for item in ITEMS}
    record = RecordFeatures(root / "errormap" / "2", KEYS, identity)
    record.on_test_start(trainer, module)
    for index in order:
        record.on_test_batch_end(trainer, module, None, _batch(index), index)
    record.on_test_epoch_end(trainer, module)


def test_masks_that_somebody_would_use_have_one_row_each(
    tmp_path: Path, rows_of: Callable[[Path], list[dict[str, str]]]
) -> None:
    _record(tmp_path)
    rows = rows_of(tmp_path / "errormap" / "2" / "features.csv")
    assert tuple(rows[0]) == (*IDENTITY, *feature_names(KEYS))
    assert [(r["case"], r["mask_kind"]) for r in rows] == [
        *(("a", "final"), ("b", "final"), ("b", "nnunet")),
        *(("a", "reference"), ("b", "reference")),
    ]
    assert {(r["fold"], r["modality"]) for r in rows} == {("2", "mr")}
    for row, index in zip(rows, (0, 2, 3), strict=False):
        for name, value in features(*_arrays(index), GEOMETRY, KEYS).items():
            assert float(row[name]) == pytest.approx(value, rel=1e-6)
    for row, index in zip(rows[3:], (0, 3), strict=True):
        for name, value in features(_arrays(index)[0], _arrays(7)[1], GEOMETRY, KEYS).items():
            assert float(row[name]) == pytest.approx(value, rel=1e-6)


def test_what_was_written_is_what_a_loaded_run_knows(tmp_path: Path) -> None:
    _record(tmp_path)
    table = feature_table(read_features(tmp_path), "mr")
    assert tuple(table) == (*feature_names(KEYS), *(f"reference {name}" for name in feature_names(KEYS)))
    assert table["volume_rv"] == pytest.approx([3 * 6 * (4 + i) * 0.064 for i in (0, 2, 3)])
    assert table["reference volume_rv"] == pytest.approx([3 * 6 * 11 * 0.064] * 2)
    assert feature_table(read_features(tmp_path), "ct") == {}


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    _record(tmp_path, zero=False)
    assert not list(tmp_path.rglob("*.csv"))


def test_a_run_that_judges_side_outputs_alone_knows_no_case(tmp_path: Path) -> None:
    _record(tmp_path, order=(1, 4))
    assert (tmp_path / "errormap" / "2" / "features.csv").is_file()
    assert feature_table(read_features(tmp_path)) == {}
