"""validation.csv: the finished network on training cases that were held back, by which settings may be chosen.

What is logged while a network trains is of that moment, uncalibrated and of all masks that the training takes; this
table is of the weights, the calibration and the threshold that the test judges with, mask by mask, and of the same
masks whatever the settings of the training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from whqa.callbacks.ranks import gather_by_index
from whqa.files import write_rows
from whqa.loading.datamodule import Item, WholeHeartDataModule
from whqa.loading.whole_volumes import batch_of_one
from whqa.metrics.mask_row import measure_mask
from whqa.metrics.verdict_row import judge
from whqa.modules.volume_batches import judged_case, spacing_of
from whqa.results.validation_table import VALIDATION

Numbers = dict[str, float]
Measure = Callable[[Any, dict[str, Any]], Numbers]
"""Module, whole-volume batch of size 1 -> columns."""


class RecordValidation(pl.Callback):
    """Before the test loop: writes validation.csv, a row for each of the data module's `choice_items`.

    Where no case is held back there is no such file.

    Args:
        run_dir: of the run.
        identity: item -> columns that say what the row is about.
        measure: of one item.
    """

    def __init__(self, run_dir: Path, identity: Callable[[Item], Mapping[str, Any]], measure: Measure) -> None:
        self.path = run_dir / VALIDATION
        self.identity = identity
        self.measure = measure

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Each process takes its share of the items; the first writes the table."""
        data: WholeHeartDataModule = trainer.datamodule  # type: ignore[attr-defined]
        items = data.choice_items
        share = range(trainer.global_rank, len(items), trainer.world_size)
        volumes = data.volumes([items[index] for index in share])
        found = gather_by_index(
            {index: self._row(trainer, module, volume) for index, volume in zip(share, volumes, strict=True)}
        )
        if not trainer.is_global_zero:
            return
        if not items:
            self.path.unlink(missing_ok=True)
            return
        rows = [{**self.identity(items[index]), **found[index]} for index in sorted(found)]
        write_rows(self.path, list(rows[0]), rows)

    @torch.no_grad()
    def _row(self, trainer: pl.Trainer, module: pl.LightningModule, volume: dict[str, Any]) -> Numbers:
        batch = trainer.strategy.batch_to_device(batch_of_one([volume]))
        with trainer.precision_plugin.test_step_context():
            return self.measure(module, batch)


def verdict_row(module: Any, batch: dict[str, Any]) -> Numbers:
    """Of stage two: what `whqa.metrics.verdict_row.judge` says of the calibrated verdict of a held-back case."""
    return judge(judged_case(batch), module.judge_held_back(batch))


def final_mask_row(structures: Sequence[str]) -> Measure:
    """Of stage one: share of wrong voxels and Dice of the final mask, structure by structure."""

    def measure(module: Any, batch: dict[str, Any]) -> Numbers:
        mask, reference = module.validation_step(batch, 0)["final"][0], batch["label"][0]
        row = measure_mask(mask, reference, spacing_of(batch), structures, surfaces=False)
        return {key: value for key, value in row.items() if not key.startswith("hd95_")}

    return measure
