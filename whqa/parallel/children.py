"""Processes that start afresh (no fork: the parent may hold threads), and end with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.process import BaseProcess

from whqa.process import PARENT, follow_parent

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@contextmanager
def pool_of(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """So many processes, which start when they are given work; where the block fails they are ended."""
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_child, (os.getpid(),))
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        terminate(others)
        # the pool's own thread complains where Python ends under it
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def terminate(others: set[BaseProcess]) -> None:
    """End all children but these."""
    for child in set(multiprocessing.active_children()) - others:
        child.terminate()


@contextmanager
def single_threaded() -> Iterator[None]:
    """Processes that are started meanwhile compute with one thread each."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits, also for a process that is started meanwhile, until it can end in silence."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_child(parent: int) -> None:
    # Ctrl-C reaches every process of the terminal: a child ends at once and in silence
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ[PARENT] = str(parent)
    follow_parent()
