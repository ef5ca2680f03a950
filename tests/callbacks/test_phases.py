"""Where a run's time goes, told by a clock that the test turns."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytorch_lightning.trainer.states import TrainerFn

from whqa.callbacks import phases
from whqa.callbacks.phases import PHASES, SECONDS, ClockPhases, time_spent


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    now = SimpleNamespace(s=100.0)
    monkeypatch.setattr(time, "perf_counter", lambda: now.s)
    monkeypatch.setattr(time, "process_time", lambda: now.s / 2)
    monkeypatch.setattr(phases, "seconds_since_start", lambda: 7.0)
    return now


def _passes(clock: SimpleNamespace, seconds: float) -> None:
    clock.s += seconds


def test_every_second_belongs_to_one_phase(tmp_path: Path, clock: SimpleNamespace) -> None:
    fitting, validating = (SimpleNamespace(state=SimpleNamespace(fn=fn)) for fn in (TrainerFn.FITTING, "validate"))
    watch = ClockPhases(tmp_path / SECONDS)
    _passes(clock, 3)
    watch.on_fit_start(fitting)
    for _ in range(2):
        _passes(clock, 20)
        watch.on_validation_start(fitting)
        _passes(clock, 1)
        watch.on_validation_end(fitting)
    _passes(clock, 2)
    watch.on_fit_end(fitting)
    _passes(clock, 4)
    watch.on_validation_start(validating)
    watch.on_validation_end(validating)
    _passes(clock, 5)
    watch.on_test_start(validating)
    _passes(clock, 6)
    watch.on_test_end(validating)
    found = json.loads((tmp_path / SECONDS).read_text())
    walls = {phase: spent["wall"] for phase, spent in found.items()}
    assert walls == dict(zip(PHASES, (10, 42, 2, 4, 5, 6), strict=True))
    assert sum(walls.values()) == clock.s - 93


def test_a_test_alone_has_no_training(tmp_path: Path, clock: SimpleNamespace) -> None:
    watch = ClockPhases(tmp_path / SECONDS)
    watch.on_test_start()
    _passes(clock, 6)
    watch.on_test_end()
    found = json.loads((tmp_path / SECONDS).read_text())
    assert {phase: spent["wall"] for phase, spent in found.items() if spent["wall"]} == {"start": 7, "test": 6}


def test_the_runs_of_an_experiment_are_summed_and_damaged_logs_left_out(tmp_path: Path) -> None:
    runs = [tmp_path / str(i) for i in range(4)]
    assert time_spent(runs) == ""
    for run in runs[:2]:
        run.mkdir()
        told = {phase: {"wall": 10.0, "cpu": 1.0} for phase in PHASES} | {"training": {"wall": 50.0, "cpu": 1.0}}
        (run / SECONDS).write_text(json.dumps(told))
    runs[2].mkdir()
    (runs[2] / SECONDS).write_text("{")
    line = time_spent(runs)
    assert line.startswith("200 s in all runs: start 10 %, training 50 %")


def test_a_run_that_points_of_a_sweep_share_counts_once(tmp_path: Path) -> None:
    text = json.dumps({phase: {"wall": 10.0, "cpu": 1.0} for phase in PHASES})
    runs = [tmp_path / point / "segmenter" / fold for point in ("a", "b") for fold in ("0", "1")]
    for run in runs:
        run.mkdir(parents=True)
        (run / SECONDS).write_text(text)
    assert time_spent(runs).startswith(f"{20 * len(PHASES)} s in all runs")
    (runs[-1] / SECONDS).write_text(text.replace("10.0", "10.5"))
    assert time_spent(runs).startswith(f"{30.5 * len(PHASES):.0f} s in all runs")
