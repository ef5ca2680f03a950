"""One process that works beside this one.

    with process_beside(prepare) as start:
        result = start(work, item)
        ...
        result()

`work`, its item and its result must be picklable: a module's function, plain data.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

from whqa.parallel.children import interrupts_held, pool_of, single_threaded, terminate
from whqa.process import cpus

Item = TypeVar("Item")
Result = TypeVar("Result")
Start = Callable[..., Callable[[], Any]]
"""As functools.partial: takes a function and its item, and returns what waits for the result."""

_NO_PROCESSES = (OSError, NotImplementedError)
"""Of a system that gives none: too many are there, no memory is left, or it has no semaphores."""


@contextmanager
def process_beside(prepare: Callable[[], Any]) -> Iterator[Start]:
    """One process that prepares while this one goes on, then takes work: `start(work, item)()` is `work(item)`.

    It ends with the block. Its work is done in this process where it died or could not be had, where there is a single
    CPU, and where this process was told to compute with one thread (OMP_NUM_THREADS=1), for others work beside it.

    Args:
        prepare: called there first, to import what the work needs; a module's function.
    """
    if cpus() < 2 or os.environ.get("OMP_NUM_THREADS") == "1":
        yield partial
        return
    others = set(multiprocessing.active_children())
    with ExitStack() as stack:
        pool = None
        with suppress(*_NO_PROCESSES):
            pool = stack.enter_context(pool_of(1))
        started = pool is not None and _submitted(pool, prepare) is not None

        def start(work: Callable[[Item], Result], item: Item) -> Callable[[], Result]:
            here = partial(work, item)
            future = _submitted(pool, here) if pool is not None and started else None
            return here if future is None else partial(_result_or, future, here)

        yield start
        # it has nothing left to do, and to end by itself takes it a tenth of a second
        terminate(others)


def _submitted(pool: ProcessPoolExecutor, work: Callable[[], Result]) -> Future[Result] | None:
    """None where the process died or could not be had."""
    try:
        with single_threaded(), interrupts_held():
            return pool.submit(work)
    except (BrokenProcessPool, *_NO_PROCESSES):
        return None


def _result_or(future: Future[Result], otherwise: Callable[[], Result]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        return otherwise()
