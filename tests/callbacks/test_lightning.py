"""What Lightning does and whqa leans on, seen on the smallest training there is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from whqa.callbacks.history import CsvHistory


class _Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Tensor, index: int) -> Tensor:
        return self.layer(batch).sum()

    def validation_step(self, batch: Tensor, index: int) -> None:
        self.log("val/number", 1.0)

    def test_step(self, batch: Tensor, index: int) -> None:
        pass

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def _loader(self) -> DataLoader[Any]:
        return DataLoader(torch.ones(3, 1), batch_size=1)  # type: ignore[arg-type]

    train_dataloader = val_dataloader = test_dataloader = _loader


class _Watch(pl.Callback):
    """Remembers which hooks came, and at which step Lightning would log then."""

    def __init__(self) -> None:
        self.hooks: list[str] = []
        self.steps: list[int] = []

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self.hooks.append("setup of the test" if stage == "test" else "setup")

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.hooks.append("on_test_start")

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.steps.append(trainer.fit_loop.epoch_loop._batches_that_stepped)


@pytest.fixture
def trained(tmp_path: Path) -> tuple[pl.Trainer, _Watch]:
    watch = _Watch()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        callbacks=[pl.callbacks.ModelCheckpoint(tmp_path / "checkpoints"), watch],
        logger=[CsvHistory(tmp_path / "metrics.csv")],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    module = _Module()
    trainer.fit(module)
    trainer.test(module, verbose=False)
    return trainer, watch


def test_numbers_are_logged_at_the_step_that_pictures_are_logged_at(
    trained: tuple[pl.Trainer, _Watch], rows_of: Any, tmp_path: Path
) -> None:
    logged = [int(row["step"]) for row in rows_of(tmp_path / "metrics.csv") if row["val/number"]]
    assert trained[1].steps == logged == [2, 5]


def test_checkpoints_are_saved_after_all_other_callbacks_whatever_their_order(
    trained: tuple[pl.Trainer, _Watch],
) -> None:
    callbacks = trained[0].callbacks  # type: ignore[attr-defined]
    assert isinstance(callbacks[-1], pl.callbacks.Checkpoint)
    assert trained[1] in callbacks


def test_setup_comes_before_the_first_hook_of_a_test(trained: tuple[pl.Trainer, _Watch]) -> None:
    assert trained[1].hooks == ["setup", "setup of the test", "on_test_start"]
