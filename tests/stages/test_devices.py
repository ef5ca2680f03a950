"""Runs side by side on GPUs of their own; the GPUs are made up."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import whqa.cv
from whqa.config.words import compose_config
from whqa.cv import graph_of, work_through
from whqa.stages.devices import device_groups, least_used
from whqa.stages.schedule import Run

Machine = Callable[..., None]
# Says which GPUs it sees, and waits until as many runs as are started at once have done so: `-c STUB ROOT stage fold`
STUB = """
import os, pathlib, sys, time
root, stage, fold = pathlib.Path(sys.argv[1]), sys.argv[2].split("=")[1], sys.argv[3].split("=")[1]
run = root / stage / fold
(run / "sees").write_text(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
while len(list(root.glob("*/*/sees"))) < 3:
    time.sleep(0.01)
(run / "COMPLETED").touch()
"""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    def set_up(gpus: int, visible: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return set_up


@pytest.mark.parametrize(
    ("gpus", "visible", "devices", "groups"),
    [
        (4, None, 1, ("0", "1", "2", "3")),
        (4, None, 2, ("0,1", "2,3")),
        (5, None, "2", ("0,1", "2,3")),
        (1, None, 1, ("0",)),
        (1, None, 2, ()),
        (0, None, 1, ()),
        (2, "3,7", 1, ("3", "7")),
        (2, "GPU-a, GPU-b", 1, ("GPU-a", "GPU-b")),
        # CUDA sees what stands before the first name that is none
        (1, "3,-1,7", 1, ("3",)),
        (4, None, -1, ()),
        (4, None, "auto", ()),
        (4, None, [0, 1], ()),
    ],
)
def test_gpus_are_dealt_out_in_groups_of_as_many_as_a_run_takes(
    gpus: int, visible: str | None, devices: Any, groups: tuple[str, ...], machine: Machine
) -> None:
    machine(gpus, visible)
    assert device_groups({"accelerator": "gpu", "devices": devices}) == groups
    assert device_groups({"accelerator": "cpu", "devices": devices}) == ()


def test_a_run_goes_where_the_fewest_are() -> None:
    assert least_used(("0", "1", "2"), []) == "0"
    assert least_used(("0", "1", "2"), ["0", "2"]) == "1"
    assert least_used(("0", "1"), ["0", "1", "0"]) == "1"


@pytest.mark.parametrize(
    ("words", "gpus", "jobs", "seen"),
    [
        (["trainer=gpu"], 3, None, ["0", "1", "2"]),
        (["trainer=gpu"], 2, 3, ["0", "0", "1"]),
        (["trainer=gpu", "trainer.devices=2"], 6, None, ["0,1", "2,3", "4,5"]),
        (["trainer=ddp"], 2, 3, ["all", "all", "all"]),
        (["trainer=cpu"], 2, 3, ["all", "all", "all"]),
    ],
)
def test_each_run_sees_gpus_of_its_own(
    words: list[str],
    gpus: int,
    jobs: int | None,
    seen: list[str],
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine(gpus)
    monkeypatch.setattr(whqa.cv, "POLL_S", 0.02)
    monkeypatch.setattr(whqa.cv, "TRAIN", [sys.executable, "-S", "-c", STUB, str(tmp_path)])
    runs = [Run("segmenter", str(k), tmp_path / "segmenter" / str(k), 1.0) for k in range(3)]
    graph = graph_of(runs, compose_config(["experiment=demo", *words]), jobs)
    assert graph.jobs == 3
    work_through(graph, Console(file=io.StringIO()))
    assert not graph.failed
    assert sorted(path.read_text() for path in tmp_path.glob("*/*/sees")) == seen
