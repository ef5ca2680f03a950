"""Calibration of stage two: after the training, a validation loop over training cases that the network has not seen."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from whqa.callbacks.batches import gather_by_index
from whqa.files import write_json
from whqa.judges.calibration import LogitHistogram, fit_calibration, read_calibration
from whqa.judges.correction import correction_gain, most_probable_other
from whqa.judges.threshold_rule import ThresholdRule
from whqa.masks.plan import is_delivered

DELIVERED_SHARE = 0.9
# Error logits, uncalibrated, from which masks are tried to be corrected.
CORRECTION_LOGITS = torch.arange(-4.0, 8.01, 0.5)


class Calibrate(pl.Callback):
    """In a validation loop of its own, after training: fits the calibration on the held-back training cases.

    Delivered masks, final ones and other programs', are what is judged in practice, and their few errors would drown in
    those of side outputs and early masks: they get 90 % of the weight.
    """

    def __init__(self, path: Path, rule: ThresholdRule) -> None:
        self.path = path
        self.rule = rule
        self.histograms: dict[int, LogitHistogram] = {}
        self.gains: dict[int, Tensor] = {}
        self.fitted = False

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """A test that no calibration went before takes up what an earlier one left."""
        if stage == "test" and not self.fitted and self.path.exists():
            remedy = f"rm {shlex.quote(str(self.path))}, and the same command fits it again"
            module.calibration = read_calibration(self.path, remedy)  # type: ignore[assignment]

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start afresh."""
        self.histograms, self.gains = {}, {}

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Count one mask's logits, and what correcting it would gain."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        index, mask, reference = int(batch["index"][0]), batch["mask"][0], batch["label"][0]
        self.histograms[index] = LogitHistogram.of(outputs.error_logit, mask != reference)
        if outputs.label_logits is not None:
            other = most_probable_other(outputs.label_logits, mask)
            n_classes = len(outputs.label_logits)
            self.gains[index] = correction_gain(
                mask, reference, other, outputs.error_logit, CORRECTION_LOGITS, n_classes
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Fit on the masks of all ranks, each once; keep the result beside the checkpoint."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        everyone = gather_by_index(self.histograms)
        kinds = [trainer.datamodule.val_items[i][1] for i in sorted(everyone)]  # type: ignore[attr-defined]
        delivered = [is_delivered(kind) for kind in kinds]
        n = sum(delivered)
        share = {True: DELIVERED_SHARE / max(1, n), False: (1 - DELIVERED_SHARE) / max(1, len(kinds) - n)}
        weights = [share[one] for one in delivered]
        histograms = [everyone[i] for i in sorted(everyone)]
        calibration = fit_calibration(histograms, weights, self.rule)
        gains = gather_by_index(self.gains)
        if gains:
            calibration = calibration.corrected_from(best_correction([gains[i] for i in sorted(gains)], weights))
        module.calibration = calibration  # type: ignore[assignment]
        self.fitted = True
        if trainer.is_global_zero:
            write_json(self.path, calibration.to_dict())


def best_correction(gains: Sequence[Tensor], weights: Sequence[float]) -> float | None:
    """The logit of `CORRECTION_LOGITS` with the best weighted mean gain; None where no correction gains anything."""
    share = torch.tensor(weights, dtype=torch.float64)
    mean = (share[:, None] * torch.stack(list(gains))).sum(dim=0) / share.sum()
    best = int(mean.argmax())
    return float(CORRECTION_LOGITS[best]) if mean[best] > 0 else None
