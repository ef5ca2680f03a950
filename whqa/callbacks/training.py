"""Callbacks of the training loop: seeds, early weights, progress for whoever watches from outside."""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from whqa.errors import InputError
from whqa.files import reading, write_text
from whqa.masks.run_state import made_anew
from whqa.modules.weights import read_weights, write_weights

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class SeedSteps(pl.Callback):
    """Seed the global generator from (seed, step) before every step: a resumed run equals an undisturbed one."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Seed for this step."""
        torch.manual_seed(self.seed * 1_000_003 + trainer.global_step)


class FreezeNorm(pl.Callback):
    """From a share of the training on, batch normalisation uses its running statistics, as it does on whole volumes.

    A batch of two patches normalises away what tells a good mask from a bad one; trained to the end like that, the
    network meets other activations in testing than it has learned from.

    Args:
        after: share of the steps; 1 never freezes.
        total_steps: of the training.
    """

    def __init__(self, after: float, total_steps: int) -> None:
        self.step = after * total_steps

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        """Switch the layers over; Lightning switches them back after every validation."""
        if trainer.global_step >= self.step:
            for layer in module.modules():
                if isinstance(layer, BATCH_NORMS):
                    layer.eval()


class RefuseDivergence(pl.Callback):
    """After every epoch, before its checkpoint: what is not finite ends the run, so checkpoints are sound."""

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Look at the last step's loss and at the weights that it left; once spoilt they never recover.

        Raises:
            InputError: the training diverged.
        """
        loss = trainer.callback_metrics["train/loss"]
        spoilt = [name for name, weights in module.state_dict().items() if not torch.isfinite(weights).all()]
        if spoilt or not torch.isfinite(loss):
            what = f"weights {spoilt[0]} are not finite" if spoilt else f"loss is {float(loss)}"
            raise InputError(
                f"training diverged: {what} at step {trainer.global_step}; lower the stage's own "
                "segmenter.learning_rate or errormap.learning_rate, or set trainer.precision=32-true"
            )


class KeepEarlyWeights(pl.Callback):
    """Save the network's weights after `step` optimiser steps, give them to the test: they make the masks "early"."""

    def __init__(self, step: int, path: Path) -> None:
        self.step = step
        self.path = path

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:
        """Save once, when the step has been reached."""
        if trainer.global_step == self.step and trainer.is_global_zero:
            write_weights(self.path, {k: v.cpu() for k, v in module.network.state_dict().items()})  # type: ignore[union-attr]

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Hand the weights to the module before the test.

        Raises:
            InputError: the training came as far, and there are none, or not those of this network.
        """
        if stage != "test" or (trainer.global_step < self.step and not self.path.exists()):
            return
        remedy = made_anew(self.path.parents[1])
        weights = read_weights(self.path, remedy)
        with reading(self.path, "weights of this network", remedy):
            known = module.network.state_dict()  # type: ignore[union-attr]
            if {k: v.shape for k, v in known.items()} != {k: v.shape for k, v in weights.items()}:
                raise ValueError("other layers")
        module.early_weights = weights  # type: ignore[assignment]


class ProgressFile(pl.Callback):
    """Write `progress.json` about once a second for whoever watches from outside; `whqa.results.run_progress` reads it.

    phase "training" or "testing"; done, its share, 0 to 1; step and of, optimiser steps or volumes; speed, what is done
    of the phase in a second, or null.
    """

    def __init__(self, path: Path, every_s: float = 1.0) -> None:
        self.path = path
        self.every_s = every_s
        self._last = 0.0
        self._phase = ""
        self._begun = (0.0, 0.0)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Report training progress."""
        total = max(1, int((trainer.max_epochs or 1) * trainer.num_training_batches))
        self._report("training", trainer.global_step, total)

    @rank_zero_only
    def on_validation_batch_end(self, *args: Any) -> None:
        """Give a sign of life; what was reported stays, and there may be nothing yet."""
        with suppress(OSError):
            os.utime(self.path)

    def on_test_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Report that training is over."""
        self._report("testing", 0, self._volumes(trainer))

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        """Report how many of the test's masks are done."""
        self._report("testing", batch_idx + 1, self._volumes(trainer))

    @staticmethod
    def _volumes(trainer: pl.Trainer) -> int:
        return max(1, int(sum(n for n in trainer.num_test_batches if math.isfinite(n))))

    @rank_zero_only
    def _report(self, phase: str, step: int, of: int) -> None:
        now, done = time.monotonic(), min(1.0, step / of)
        if phase != self._phase:
            self._phase, self._begun, self._last = phase, (now, done), 0.0
        if now - self._last >= self.every_s:
            self._last = now
            seconds, gained = now - self._begun[0], done - self._begun[1]
            speed = gained / seconds if gained > 0 and seconds > 0 else None
            told = {"phase": phase, "done": round(done, 4), "step": step, "of": of, "speed": speed}
            write_text(self.path, json.dumps(told))
