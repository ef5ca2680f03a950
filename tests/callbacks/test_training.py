"""Callbacks of the training loop, with a stand-in for the trainer."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from whqa.callbacks.training import FreezeNorm, KeepEarlyWeights, ProgressFile, RefuseDivergence, SeedSteps
from whqa.errors import InputError


def _trainer(step: int, **extra: Any) -> Any:
    return SimpleNamespace(global_step=step, is_global_zero=True, max_epochs=4, num_training_batches=5, **extra)


def test_the_random_numbers_of_a_step_depend_on_seed_and_step_only() -> None:
    def draw(seed: int, step: int) -> float:
        SeedSteps(seed).on_train_batch_start(_trainer(step))
        return float(torch.rand(()))

    torch.rand(7)
    first = draw(0, 5)
    torch.rand(3)
    assert draw(0, 5) == first
    assert len({draw(seed, step) for seed in range(3) for step in range(20)}) == 60


def test_early_weights_are_those_of_their_step(tmp_path: Path) -> None:
    module = SimpleNamespace(network=nn.Linear(1, 1))
    keep = KeepEarlyWeights(3, tmp_path / "checkpoints" / "early.pt")
    for step in range(1, 6):
        nn.init.constant_(module.network.weight, step)
        keep.on_train_batch_end(_trainer(step), module)
    assert float(torch.load(keep.path, weights_only=True)["weight"]) == 3.0
    assert list(keep.path.parent.iterdir()) == [keep.path]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"[1, 2]", "other", None])
def test_early_weights_that_are_damaged_or_gone_are_named(content: bytes | str | None, tmp_path: Path) -> None:
    path, module = tmp_path / "segmenter" / "0" / "checkpoints" / "early.pt", SimpleNamespace(network=nn.Linear(1, 1))
    keep = KeepEarlyWeights(3, path)
    keep.setup(_trainer(2), module, "test")  # a training that was cut short before
    keep.on_train_batch_end(_trainer(3), module)
    keep.setup(_trainer(5), module, "test")
    assert module.early_weights.keys() == {"weight", "bias"}
    if content == "other":
        torch.save(nn.Linear(2, 1).state_dict(), path)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.unlink()
    with pytest.raises(InputError, match=r"early\.pt: .*; start this run anew: rm -r .*/segmenter/0, then the same"):
        keep.setup(_trainer(5), module, "test")


def test_early_weights_are_kept_by_the_first_process_only(tmp_path: Path) -> None:
    trainer = _trainer(3)
    trainer.is_global_zero = False
    KeepEarlyWeights(3, tmp_path / "early.pt").on_train_batch_end(trainer, SimpleNamespace(network=nn.Linear(1, 1)))
    assert not list(tmp_path.iterdir())


def test_progress_is_told_in_shares(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path / "progress.json", every_s=0.0)
    progress.on_train_batch_end(_trainer(5))
    first = {"phase": "training", "done": 0.25, "step": 5, "of": 20, "speed": None}
    assert json.loads(progress.path.read_text()) == first
    progress.on_test_start(_trainer(20, num_test_batches=[3, 1]))
    assert json.loads(progress.path.read_text()) == {"phase": "testing", "done": 0.0, "step": 0, "of": 4, "speed": None}
    progress.on_test_batch_end(_trainer(20, num_test_batches=[3, 1]), None, None, None, 0)
    assert json.loads(progress.path.read_text())["step"] == 1


def test_the_speed_is_that_of_this_attempt_and_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress, clock = ProgressFile(tmp_path / "progress.json", every_s=0.0), iter([100.0, 105.0, 200.0, 201.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    speeds = []
    for tell in (
        lambda: progress.on_train_batch_end(_trainer(10)),  # resumed there
        lambda: progress.on_train_batch_end(_trainer(12)),
        lambda: progress.on_test_start(_trainer(20, num_test_batches=[4])),
        lambda: progress.on_test_batch_end(_trainer(20, num_test_batches=[4]), None, None, None, 0),
    ):
        tell()
        speeds.append(json.loads(progress.path.read_text())["speed"])
    assert speeds == [None, pytest.approx(0.1 / 5), None, pytest.approx(0.25)]


def test_a_validation_is_a_sign_of_life(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path / "progress.json")
    progress.on_validation_batch_end()
    assert not progress.path.exists()
    progress.on_train_batch_end(_trainer(5))
    told = progress.path.read_text()
    os.utime(progress.path, (1, 1))
    progress.on_validation_batch_end()
    assert progress.path.stat().st_mtime > 1
    assert progress.path.read_text() == told


def test_progress_is_not_told_at_every_step(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path / "progress.json", every_s=60.0)
    for step in (1, 2, 3):
        progress.on_train_batch_end(_trainer(step))
    assert json.loads(progress.path.read_text())["done"] == 0.05
    progress.on_test_start(_trainer(20, num_test_batches=[3]))
    assert json.loads(progress.path.read_text())["phase"] == "testing"


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(loss: float) -> None:
    trainer = _trainer(7, callback_metrics={"train/loss": torch.tensor(loss)})
    with pytest.raises(InputError, match=r"training diverged.*at step 7"):
        RefuseDivergence().on_train_epoch_end(trainer, nn.Linear(1, 1))


def test_weights_that_the_last_step_spoilt_never_reach_a_checkpoint() -> None:
    trainer, module = _trainer(7, callback_metrics={"train/loss": torch.tensor(3.0)}), nn.BatchNorm3d(2)
    module.running_var[1] = torch.nan
    with pytest.raises(InputError, match=r"training diverged: weights running_var are not finite at step 7"):
        RefuseDivergence().on_train_epoch_end(trainer, module)


def test_a_finite_loss_passes() -> None:
    trainer = _trainer(7, callback_metrics={"train/loss": torch.tensor(3.0)})
    RefuseDivergence().on_train_epoch_end(trainer, nn.BatchNorm3d(2))


def test_normalisation_freezes_at_its_step_and_again_after_every_validation() -> None:
    module = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2), nn.Dropout())
    freeze = FreezeNorm(0.3, total_steps=10)
    for step in range(6):
        module.train()
        freeze.on_train_batch_start(_trainer(step), module)
        assert [layer.training for layer in module] == [True, step < 3, True]


def test_a_frozen_normalisation_gives_in_training_what_it_gives_in_testing() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.BatchNorm3d(2))
    module(5 + 3 * torch.randn(4, 2, 3, 3, 3))
    patch = torch.randn(1, 2, 3, 3, 3)
    training = module(patch)
    FreezeNorm(0.0, 1).on_train_batch_start(_trainer(0), module)
    frozen = module(patch)
    module.eval()
    assert torch.equal(frozen, module(patch))
    assert not torch.allclose(frozen, training)
