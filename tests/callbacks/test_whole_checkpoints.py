"""A checkpoint needs room in its own folder only, and the last one is there until the new one is whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from whqa.callbacks.whole_checkpoints import WholeCheckpointIO
from whqa.config.instantiate import make
from whqa.config.words import compose_config


class _Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)


def _trainer(**options: Any) -> pl.Trainer:
    trainer = make(compose_config([]).trainer, precision="32-true", logger=False, **options)
    trainer.strategy.connect(_Module())
    return trainer


@pytest.fixture(autouse=True)
def no_room_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))


def test_a_runs_trainer_needs_no_tmpdir(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "last.ckpt"
    _trainer().save_checkpoint(path)
    assert "layer.weight" in torch.load(path, weights_only=True)["state_dict"]
    assert list(path.parent.iterdir()) == [path]


def test_the_last_checkpoint_outlives_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"epoch": 1}, path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        WholeCheckpointIO().save_checkpoint({"epoch": 2}, path)
    assert caught.value.filename == str(path)
    monkeypatch.undo()
    assert WholeCheckpointIO().load_checkpoint(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]
