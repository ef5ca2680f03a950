"""The further processes of a DDP run: on one machine Lightning starts them, and the first one alone answers for all.

In a Slurm job of several tasks srun has started them. A job of one task is as good as a machine of its own.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment
from pytorch_lightning.strategies.launchers.subprocess_script import _SubprocessScriptLauncher

from whqa.process import PARENT


def cluster_environment() -> list[ClusterEnvironment]:
    """What Lightning must be told in a Slurm job; nothing elsewhere, and where torchrun starts the processes.

    It neither saves nor puts jobs into the queue again at a signal, as its own way would: in the midst of an epoch,
    under a name that from then on outdoes each later checkpoint. submitit does, see `whqa.stages.slurm`.
    """
    tasks, is_shell = os.environ.get("SLURM_NTASKS", ""), SLURMEnvironment.job_name() in ("bash", "interactive")
    if not tasks.isdigit() or is_shell or "TORCHELASTIC_RUN_ID" in os.environ:
        return []
    return [LightningEnvironment() if int(tasks) == 1 else SLURMEnvironment(auto_requeue=False)]


def lead_processes(trainer: pl.Trainer) -> None:
    """Let the first process alone hear Ctrl-C and SIGTERM, and the others end when it does, however that is.

    A terminal's Ctrl-C reaches all of them. Where another one ends first, Lightning kills the first with SIGKILL, which
    leaves it no word and the exit code of a crash.
    """
    launcher = trainer.strategy.launcher
    if not isinstance(launcher, _SubprocessScriptLauncher):
        return
    start, settle = launcher._call_children_scripts, trainer.strategy.on_exception

    def start_followers() -> None:
        with _deaf(), _followed():
            start()

    def kill(signum: int) -> None:
        processes = list(launcher.procs)
        # emptied, so that Lightning's watch over them does not take their end for a crash
        launcher.procs.clear()
        for process in processes:
            process.send_signal(signum)

    def end_followers(exception: BaseException) -> None:
        if isinstance(exception, KeyboardInterrupt):
            # now, before the tear-down leaves them alone with an error of the connection, which they would print
            kill(signal.SIGKILL)
        settle(exception)

    trainer.strategy.on_exception = end_followers  # type: ignore[method-assign]
    launcher._call_children_scripts = start_followers  # type: ignore[method-assign]
    launcher.kill = kill  # type: ignore[method-assign]


@contextmanager
def _deaf() -> Iterator[None]:
    """Signals that are ignored meanwhile; processes that are started then ignore them for good."""
    heard = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


@contextmanager
def _followed() -> Iterator[None]:
    """Processes that are started meanwhile follow this one, see `whqa.process.follow_parent`."""
    before = os.environ.get(PARENT)
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(PARENT)
        if before is not None:
            os.environ[PARENT] = before
