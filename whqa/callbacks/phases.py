"""Where a run's time goes: seconds by phase in its seconds.json, summed over the runs of an experiment.

    start         of the process until the training: imports, data, cache
    training      steps, checkpoints
    validation    within the training
    calibration   of the error-map network
    baselines     their fit, and whatever else comes before the test
    test          a segmenter's masks of all kinds, or the judgement of the test fold's masks

Wall seconds and CPU seconds of the process; of a resumed run, those since it was resumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only

from whqa.files import write_json
from whqa.process import seconds_since_start

SECONDS = "seconds.json"
PHASES = ("start", "training", "validation", "calibration", "baselines", "test")


class ClockPhases(pl.Callback):
    """Notes what the process spends in which phase; put it before all other callbacks.

    Args:
        path: of seconds.json, {phase: {"wall": s, "cpu": s}}, written when the test has ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spent = {phase: {"wall": 0.0, "cpu": 0.0} for phase in PHASES}
        self._before = time.perf_counter() - seconds_since_start(), 0.0

    def _until_now(self, phase: str) -> None:
        now = time.perf_counter(), time.process_time()
        for clock, begun, ended in zip(("wall", "cpu"), self._before, now, strict=True):
            self.spent[phase][clock] += ended - begun
        self._before = now

    def on_fit_start(self, *args: Any) -> None:
        """The start is over."""
        self._until_now("start")

    def on_validation_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Training is interrupted, or the start is over where there is none."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        self._until_now("training" if fitting else self._outside())

    def on_validation_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Training goes on, or calibration is over."""
        self._until_now("validation" if trainer.state.fn == TrainerFn.FITTING else "calibration")

    def on_fit_end(self, *args: Any) -> None:
        """Training is over."""
        self._until_now("training")

    def on_test_start(self, *args: Any) -> None:
        """What comes before the test is over."""
        self._until_now("baselines" if self.spent["start"]["wall"] else "start")

    def on_test_end(self, *args: Any) -> None:
        """Write the file."""
        self._until_now("test")
        self._write()

    def _outside(self) -> str:
        return "calibration" if self.spent["start"]["wall"] else "start"

    @rank_zero_only
    def _write(self) -> None:
        write_json(
            self.path, {phase: {k: round(v, 3) for k, v in spent.items()} for phase, spent in self.spent.items()}
        )


def time_spent(run_dirs: Iterable[Path]) -> str:
    """One line on the runs that have a seconds.json: their wall seconds in sum, and the share of every phase.

    A run that several points of a sweep share lies in each of them, and counts once.
    """
    total = dict.fromkeys(PHASES, 0.0)
    counted = set()
    for run_dir in run_dirs:
        # a log, of no matter what it holds
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            text = (run_dir / SECONDS).read_text()
            told, run = json.loads(text), (run_dir.parent.name, run_dir.name, text)
            if run in counted:
                continue
            counted.add(run)
            for phase in PHASES:
                total[phase] += float(told[phase]["wall"])
    everything = sum(total.values())
    if not everything:
        return ""
    shares = ", ".join(f"{phase} {100 * seconds / everything:.0f} %" for phase, seconds in total.items())
    return f"{everything:.0f} s in all runs: {shares}"
