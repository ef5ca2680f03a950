"""The LightningModules: what Lightning drives of the two stages.

Their networks, inputs and verdicts know no Lightning (`whqa.modules.segmenter`, `whqa.modules.errormap`): a mask is
judged without it, and its import takes two seconds.
"""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from whqa.errors import InputError
from whqa.modules.base import DeepSupervisionModule, deep_supervision, side_weight
from whqa.modules.errormap import ErrorMapModule, RawVerdict
from whqa.modules.kept_outputs import KeptOutputs
from whqa.modules.segmenter import SegmenterModule


class DeepSupervisionTraining(DeepSupervisionModule, pl.LightningModule):
    """AdamW with a one-cycle schedule.

    Args:
        network, settings: see `DeepSupervisionModule`; checkpoints keep the settings, which must be plain values.
    """

    def __init__(self, network: nn.Module, **settings: Any) -> None:
        super().__init__(network, **settings)
        self.save_hyperparameters(settings)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One optimiser step on a batch of patches."""
        outputs = self(self.inputs(batch))
        weight = side_weight(self.global_step, self.total_steps)
        with torch.autocast(self.device.type, enabled=False):
            loss = deep_supervision(outputs, self.target(batch), self.loss, weight)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["index"]))
        return loss

    def forward_volume(self, inputs_BCDHW: Tensor, sides: bool = False) -> list[Tensor]:
        """See `DeepSupervisionModule.forward_volume`.

        Raises:
            InputError: logits are not finite, as after a training whose loss is finite on patches alone.
        """
        outputs = super().forward_volume(inputs_BCDHW, sides)
        if not all(torch.isfinite(logits.sum()) for logits in outputs):
            raise InputError(
                f"training diverged: after step {self.global_step} the network gives no numbers (NaN) for a whole "
                "volume; lower the stage's own segmenter.learning_rate or errormap.learning_rate, or set "
                "trainer.precision=32-true"
            )
        return outputs

    def configure_optimizers(self) -> Any:
        """AdamW and a one-cycle learning rate, stepped every batch."""
        optimiser = torch.optim.AdamW(
            self.parameters(),
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            # None leaves the choice to torch
            fused=True if self.fused else None,
        )
        total = max(4, self.total_steps)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser,
            max_lr=self.learning_rate,
            total_steps=total,
            # torch divides by (warm-up steps - 1)
            pct_start=max(self.warmup, 2 / total),
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class SegmenterTraining(SegmenterModule, DeepSupervisionTraining):  # type: ignore[misc]
    """Stage one."""


class ErrorMapTraining(ErrorMapModule, DeepSupervisionTraining):  # type: ignore[misc]
    """Stage two; a checkpoint states the inputs also where the setting was to take all."""

    def __init__(self, network: nn.Module, **settings: Any) -> None:
        super().__init__(network, **settings)
        self.save_hyperparameters(settings | {"inputs": list(self.seen)})
        self._kept = KeptOutputs()

    def on_train_batch_start(self, *args: Any) -> None:
        """Weights are about to change."""
        self._kept.forget()

    def on_test_start(self) -> None:
        """Other volumes follow."""
        self._kept.forget()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> RawVerdict:  # type: ignore[override]
        """See `ErrorMapModule`; the network looks at a volume once while its weights stay as they are."""
        return self.verdict(self._kept.of(int(batch["index"][0]), lambda: self.final(batch)), batch)
