"""The further processes of a DDP run: deaf to Ctrl-C, gone when the first is, and no crash where they are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment

from whqa.process import PARENT
from whqa.stages.processes import cluster_environment, lead_processes

_CHILD = """
import os, signal, sys
deaf = all(signal.getsignal(n) == signal.SIG_IGN for n in (signal.SIGINT, signal.SIGTERM))
print(deaf, os.environ["WHQA_PARENT"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pl.Trainer:
    """Of two processes, the further one of which prints what it finds and waits for the end of its input."""
    made = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False, default_root_dir=tmp_path)
    launcher = made.strategy.launcher

    def start() -> None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        launcher.procs = [subprocess.Popen([sys.executable, "-c", _CHILD], **pipes)]

    monkeypatch.setattr(launcher, "_call_children_scripts", start)
    lead_processes(made)
    return made


def test_further_processes_hear_no_signal_and_follow_the_first(trainer: pl.Trainer) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    launcher = trainer.strategy.launcher
    launcher._call_children_scripts()
    (process,) = launcher.procs
    assert process.stdout.readline().decode().split() == ["True", str(os.getpid())]
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    assert process.poll() is None
    watched = launcher.procs
    launcher.kill(signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert watched == [], "Lightning's watch would take its end for a crash and kill the first process as well"
    process.stdin.close()
    process.stdout.close()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert PARENT not in os.environ


def test_an_interrupt_ends_them_before_they_can_complain_and_an_error_does_not(trainer: pl.Trainer) -> None:
    """After an error Lightning lets each process tell its own."""
    launcher = trainer.strategy.launcher
    launcher._call_children_scripts()
    (process,) = launcher.procs
    trainer.strategy.on_exception(ValueError())
    assert process.poll() is None
    trainer.strategy.on_exception(KeyboardInterrupt())
    assert process.wait(timeout=60) == -signal.SIGKILL
    process.stdin.close()
    process.stdout.close()


def test_a_run_of_one_process_is_left_alone(tmp_path: Path) -> None:
    lead_processes(pl.Trainer(accelerator="cpu", devices=1, logger=False, default_root_dir=tmp_path))


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, []),
        # a job of one task starts its processes itself, as on a machine of its own
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "demo"}, [LightningEnvironment]),
        ({"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "demo"}, [SLURMEnvironment]),
        ({"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "TORCHELASTIC_RUN_ID": "x"}, []),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "bash"}, []),
    ],
)
def test_who_starts_the_processes_of_a_job_of_slurm(
    env: dict[str, str], expected: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "TORCHELASTIC_"))]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    found = cluster_environment()
    assert [type(one) for one in found] == expected
    # whose checkpoint in the midst of an epoch would outdo all later ones
    assert not any(getattr(one, "auto_requeue", False) for one in found)
