"""validation.csv: every held-back mask once, measured by what the test judges with, whatever the processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from whqa.callbacks import validating
from whqa.callbacks.validating import RecordValidation, final_mask_row, verdict_row
from whqa.metrics.verdict_row import JUDGE_COLUMNS
from whqa.modules.volume_batches import judged_case
from whqa.quality import ErrorPrediction
from whqa.results.validation_table import read_validation, validated

ITEMS = [("a", "final"), ("b", "final"), ("b", "nnunet")]
SHAPE = (5, 6, 7)


class _Data(SimpleNamespace):
    """Stands for a data module."""

    def __init__(self, items: Sequence[tuple[str, str]] = ITEMS) -> None:
        self.choice_items = list(items)

    def volumes(self, items: Sequence[tuple[str, str]]) -> Iterator[dict[str, Any]]:
        for case, kind in items:
            rng = np.random.default_rng([ord(case), len(kind)])
            label, mask = (torch.from_numpy(rng.integers(0, 3, SHAPE)) for _ in range(2))
            image = torch.zeros(1, *SHAPE)
            yield {"image": image, "label": label, "mask": mask, "spacing": torch.ones(3), "case": case, "kind": kind}


class _Module:
    """Calls wrong what lies in the first half, and draws the mask that it is shown."""

    def judge_held_back(self, batch: dict[str, Any]) -> ErrorPrediction:
        probability = torch.zeros(SHAPE)
        probability[:2] = 1.0
        return ErrorPrediction(probability, probability > 0.5, calibrated=True)

    def validation_step(self, batch: dict[str, Any], index: int) -> dict[str, Any]:
        return {"final": (batch["mask"][0], None)}


def _identity(item: tuple[str, str]) -> dict[str, Any]:
    return {"case": item[0], "mask_kind": item[1], "fold": 1, "patient": f"p{item[0]}", "segmenter": "1"}


def _trainer(data: _Data, rank: int = 0, world: int = 1) -> Any:
    strategy = SimpleNamespace(batch_to_device=lambda batch: batch)
    precision = SimpleNamespace(test_step_context=nullcontext)
    ranks = {"global_rank": rank, "world_size": world, "is_global_zero": rank == 0}
    return SimpleNamespace(datamodule=data, strategy=strategy, precision_plugin=precision, **ranks)


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., RecordValidation]:
    return lambda stage, measure: RecordValidation(tmp_path / stage / "0", _identity, measure)


def test_rows_are_those_of_the_verdict_of_the_test(record: Callable[..., RecordValidation], tmp_path: Path) -> None:
    record("errormap", verdict_row).on_test_start(_trainer(_Data()), _Module())  # type: ignore[arg-type]
    rows = read_validation(tmp_path / "errormap" / "0")
    assert rows is not None
    assert list(zip(rows["case"], rows["mask_kind"], strict=True)) == ITEMS
    written = pd.read_csv(tmp_path / "errormap" / "0" / "validation.csv")
    assert set(JUDGE_COLUMNS) <= set(written)
    assert written["error_dice"].tolist() == rows["error_dice"].tolist()
    for (_, row), volume in zip(written.iterrows(), _Data().volumes(ITEMS), strict=True):
        error = (volume["mask"] != volume["label"]).numpy()
        called = np.zeros(SHAPE, bool)
        called[:2] = True
        assert row["error_dice"] == pytest.approx(2 * (error & called).sum() / (error.sum() + called.sum()))
        assert row["acc_volume"] == pytest.approx(1 - error.mean())
    assert validated([tmp_path / "errormap" / "0"]) == pytest.approx(rows["error_dice"].mean())


def test_segmenters_are_measured_by_the_dice_of_their_final_masks(
    record: Callable[..., RecordValidation], tmp_path: Path
) -> None:
    data = _Data(ITEMS[:2])
    record("segmenter", final_mask_row(("lv", "rv"))).on_test_start(_trainer(data), _Module())  # type: ignore[arg-type]
    rows = read_validation(tmp_path / "segmenter" / "0")
    assert rows is not None
    for (_, row), volume in zip(rows.iterrows(), data.volumes(ITEMS[:2]), strict=True):
        mask, label = volume["mask"].numpy(), volume["label"].numpy()
        dice = [2 * ((mask == k) & (label == k)).sum() / ((mask == k).sum() + (label == k).sum()) for k in (1, 2)]
        assert row["dice"] == pytest.approx(np.mean(dice))
    assert not [column for column in rows if str(column).startswith("hd95_")]


def test_two_processes_write_what_one_writes(
    record: Callable[..., RecordValidation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("errormap", verdict_row).on_test_start(_trainer(_Data()), _Module())  # type: ignore[arg-type]
    alone = (tmp_path / "errormap" / "0" / "validation.csv").read_bytes()
    (tmp_path / "errormap" / "0" / "validation.csv").unlink()
    parts: list[dict[int, Any]] = []

    def gather(mine: dict[int, Any]) -> dict[int, Any]:
        parts.append(mine)
        return {index: row for part in parts for index, row in part.items()}

    monkeypatch.setattr(validating, "gather_by_index", gather)
    for rank in (1, 0):
        record("errormap", verdict_row).on_test_start(_trainer(_Data(), rank, 2), _Module())  # type: ignore[arg-type]
    assert [sorted(part) for part in parts] == [[1], [0, 2]]
    assert (tmp_path / "errormap" / "0" / "validation.csv").read_bytes() == alone


def test_where_nothing_is_held_back_there_is_no_table(record: Callable[..., RecordValidation], tmp_path: Path) -> None:
    path = tmp_path / "errormap" / "0" / "validation.csv"
    path.parent.mkdir(parents=True)
    path.write_text("of an earlier test")
    record("errormap", verdict_row).on_test_start(_trainer(_Data([])), _Module())  # type: ignore[arg-type]
    assert not path.exists()
    assert read_validation(path.parent) is None
    assert validated([path.parent]) is None


def test_the_verdict_is_on_the_mask_of_the_batch() -> None:
    batch = torch.utils.data.default_collate(list(_Data().volumes(ITEMS[:1])))
    assert judged_case(batch).case == "a"
