"""What every validation epoch logs: Dice and distances of masks in stage one, error maps and QI in stage two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from whqa.metrics.over_cases import (
    ErrorMapAUPRC,
    ErrorMapDice,
    HausdorffDistance95,
    QIAccuracyCorrelation,
    SegmentationDice,
)
from whqa.modules.volume_batches import spacing_of
from whqa.quality import one_minus_mean


class MonitorSegmentation(pl.Callback):
    """Logs `val/dice`, `val/dice_<structure>` and `val/hd95` of the final masks; right on any number of processes."""

    def __init__(self, structures: Sequence[str]) -> None:
        self.dice = SegmentationDice(structures)
        self.hd95 = HausdorffDistance95(structures)

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Forget the last epoch; the trainer moves modules, not the metrics of callbacks."""
        for metric in (self.dice, self.hd95):
            metric.to(module.device)
            metric.reset()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Add one case."""
        mask, reference = outputs["final"][0], batch["label"][0]
        self.dice.update(batch["index"][0], mask, reference)
        self.hd95.update(batch["index"][0], mask, reference, spacing_of(batch))

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the means over cases."""
        values = self.dice.compute() | {"hd95": self.hd95.compute()["hd95"]}
        module.log_dict({f"val/{k}": v for k, v in values.items()}, rank_zero_only=True)


class MonitorErrorMap(pl.Callback):
    """Logs `val/error_dice`, `val/error_auprc` and `val/qi_{pcc,spearman,mae}` at tau = 0.5, uncalibrated."""

    def __init__(self) -> None:
        self.dice, self.auprc = ErrorMapDice(), ErrorMapAUPRC()
        self.correlation = QIAccuracyCorrelation()

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Forget the last epoch; the trainer moves modules, not the metrics of callbacks."""
        for metric in (self.dice, self.auprc, self.correlation):
            metric.to(module.device)
            metric.reset()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Add one judged mask."""
        index, error = batch["index"][0], batch["mask"][0] != batch["label"][0]
        logit = outputs.error_logit
        predicted = logit > 0
        self.dice.update(index, predicted, error)
        self.auprc.update(index, logit, error)
        self.correlation.update(index, one_minus_mean(predicted), one_minus_mean(error))

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the numbers over all masks of all ranks."""
        values = {"error_dice": self.dice.compute(), "error_auprc": self.auprc.compute()}
        values |= {f"qi_{k}": v for k, v in self.correlation.compute().items()}
        module.log_dict({f"val/{k}": v for k, v in values.items() if v.isfinite()}, rank_zero_only=True)
