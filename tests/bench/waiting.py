"""Whether training waits for its data: real training steps beside steps on one batch that never changes.

Lightning trains the segmenter, or the error-map network, on batches of the data module and on the fixed batch in turn.
A step is timed from the end of the one before to its own end, so that reading, augmenting and collating count. On a
busy machine steps differ by more than that; there the CPU time of making a batch, beside that of a step, says more.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from rich.console import Console
from rich.table import Table

from whqa.config.speed import cpu_precision
from whqa.data.cache import Cache
from whqa.data.folds import Folds
from whqa.data.phantom import phantom_cohort
from whqa.data.prepare import prepare_cohort
from whqa.data.preprocess import Preprocess
from whqa.errors import plain_messages
from whqa.loading.augmentation import Augmentation
from whqa.loading.datamodule import WholeHeartDataModule
from whqa.masks.store import MaskItem, write_mask
from whqa.modules.errormap import in_channels, out_channels
from whqa.modules.lightning import ErrorMapTraining, SegmenterTraining
from whqa.networks.voxresnet import VoxResNet

if TYPE_CHECKING:
    from whqa.data.cache import PreparedCase

CASES, KINDS, STEPS = 4, 8, 16
# As conf/ has it for training.
AUGMENTATION = Augmentation()


class Clock(pl.Callback):
    """Wall and CPU seconds of every step by whether its batch was new; the first two warm up."""

    def __init__(self) -> None:
        self.wall: dict[bool, list[float]] = {False: [], True: []}
        self.cpu: dict[bool, list[float]] = {False: [], True: []}
        self._last = (0.0, 0.0)

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Note the time since the end of the step before."""
        now = time.perf_counter(), time.process_time()
        if batch_idx > 1:
            new = bool((batch["index"] >= 0).all())
            self.wall[new].append(now[0] - self._last[0])
            self.cpu[new].append(now[1] - self._last[1])
        self._last = now


class InTurn:
    """A new batch, the fixed one, a new one, ...; with a length, so that Lightning fetches none ahead."""

    def __init__(self, batches: Any) -> None:
        self.batches = batches
        self.fixed = {**next(iter(batches)), "index": torch.full((2,), -1)}

    def __len__(self) -> int:
        return 2 * len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            yield batch
            yield self.fixed


def segmenter(width: int) -> pl.LightningModule:
    """As an experiment makes it."""
    return SegmenterTraining(VoxResNet(1, 8, width=width), total_steps=10_000)


def errormap(width: int) -> pl.LightningModule:
    """As an experiment makes it."""
    inputs = ("image", "mask")
    network = VoxResNet(in_channels(inputs, 8), out_channels("label", inputs, 8), width=width)
    return ErrorMapTraining(network, n_classes=8, inputs=inputs, head="label", total_steps=10_000)


def loader(cases: dict[str, PreparedCase], patch: int, masks: Sequence[MaskItem] | None) -> Any:
    """Training batches of two patches, as the data module makes them."""
    names = list(cases)
    data = WholeHeartDataModule(
        cases,
        Folds((tuple(names[1:]), (names[0],)), seed=0),
        (1,),
        masks=masks,
        n_classes=8,
        patch=(patch,) * 3,
        batch_size=2,
        steps_per_epoch=STEPS,
        validation_fraction=0.0,
        augmentation=AUGMENTATION,
    )
    return data.train_dataloader()


def write_masks(folder: Path, cases: dict[str, PreparedCase]) -> list[MaskItem]:
    """Wrong masks of every case, stored as a segmenter stores them."""
    items = []
    for name, case in cases.items():
        for kind in range(KINDS):
            mask = np.roll(np.array(case.label()), kind - KINDS // 2, axis=kind % 3)
            path = folder / name / f"side{kind}.npz"
            entropy = np.random.default_rng(kind).random(mask.shape, dtype=np.float32) * (mask > 0)
            write_mask(path, mask, entropy, "0", unseen=True)
            items.append(MaskItem(name, f"side{kind}", path, "0", True, float(np.mean(mask != case.label()))))
    return items


def compare(module: pl.LightningModule, batches: Any) -> tuple[float, ...]:
    """Median step on the fixed batch in ms, what new batches make of it in wall and CPU time.

    Then the CPU time of a batch beside that of a step: of masks that are met for the first time, and of known ones.
    """
    clock, alone = Clock(), []
    for _ in range(2):
        started = time.process_time()
        for _ in batches:
            pass
        alone.append((time.process_time() - started) / len(batches))
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=cpu_precision(),  # type: ignore[arg-type]
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[clock],
    )
    trainer.fit(module, InTurn(batches))
    wall, cpu = ({new: statistics.median(times) for new, times in found.items()} for found in (clock.wall, clock.cpu))
    shares = (seconds / cpu[False] for seconds in alone)
    return 1e3 * wall[False], wall[True] / wall[False], cpu[True] / cpu[False], *shares


def print_table(console: Console) -> None:
    """Both stages, small and large patches."""
    plain_messages()
    warnings.simplefilter("ignore")
    table = Table(
        *(
            "training step, 2 patches",
            "fixed batch, ms",
            "with data",
            "in CPU time",
            "CPU of a batch / step, first",
            "later",
        ),
        title=f"does training wait? {torch.get_num_threads()} threads, {cpu_precision()}, medians of {STEPS} steps",
    )
    with tempfile.TemporaryDirectory() as folder:
        cohort = phantom_cohort(Path(folder) / "phantoms", CASES, "ct", 0, 2.0)
        cases = prepare_cohort(cohort, Cache(Path(folder) / "cache", Preprocess((1.5,) * 3)), progress=False)
        masks = write_masks(Path(folder) / "masks", cases)
        for name, module, patch, judged in (
            ("segmenter 40^3, width 16", segmenter(16), 40, None),
            ("segmenter 64^3, width 16", segmenter(16), 64, None),
            ("segmenter 64^3, width 32", segmenter(32), 64, None),
            ("error map 40^3, width 16", errormap(16), 40, masks),
        ):
            step, wall, cpu, *shares = compare(module, loader(cases, patch, judged))
            row = (f"{step:.0f}", f"{wall:.3f} x", f"{cpu:.3f} x", *(f"{100 * share:.1f} %" for share in shares))
            table.add_row(name, *row)
    console.print(table)


if __name__ == "__main__":
    print_table(Console())
