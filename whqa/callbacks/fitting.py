"""The fit of the baselines: before the test loop, on the masks that the network was trained and calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytorch_lightning as pl

from whqa.files import write_json
from whqa.judges.baseline import Baseline
from whqa.loading.datamodule import Item, WholeHeartDataModule


class FitBaselines(pl.Callback):
    """Fits every baseline before the test loop, the same on all processes, and writes their numbers.

    Those that want all training masks get them, the others a sample.

    Args:
        path: of the JSON file with the numbers, {name: {parameter: value}}.
        baselines: fitted in place.
        at_most: size of the sample.
        seed: of the sample.
    """

    def __init__(self, path: Path, baselines: Sequence[Baseline], at_most: int, seed: int) -> None:
        self.path = path
        self.baselines = tuple(baselines)
        self.at_most = at_most
        self.seed = seed

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """Fit before the test."""
        if stage != "test":
            return
        data: WholeHeartDataModule = trainer.datamodule  # type: ignore[attr-defined]
        for baseline in self.baselines:
            baseline.fit(partial(data.judged, self._sample(baseline, data), baseline.needs))
        if trainer.is_global_zero:
            write_json(self.path, {b.name: b.parameters() for b in self.baselines})

    def _sample(self, baseline: Baseline, data: WholeHeartDataModule) -> list[Item]:
        items = fitting_items(data)
        if baseline.wants_all:
            return items
        usable = [item for item in items if baseline.needs <= data.extras(item)]
        return sample_of(usable, self.at_most, self.seed)


def sample_of(items: Sequence[Item], at_most: int, seed: int) -> list[Item]:
    """At most so many of them, drawn by the seed, in their order."""
    order = np.random.default_rng(seed).permutation(len(items))
    return [items[i] for i in sorted(order[:at_most])]


def fitting_items(data: WholeHeartDataModule) -> list[Item]:
    """(case, mask kind) of all masks of training cases, those held back for validation among them."""
    return [*data.train_items, *data.val_items]
