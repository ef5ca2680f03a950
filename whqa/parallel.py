"""One function over many items in processes of their own: a bar for people, an item's failure stays its own.

    outcomes = in_processes(work, items, jobs=4, title="checking")      # results, or the exception, in the items' order

    with process_beside(prepare) as start:          # one process that works beside this one
        result = start(work, item)
        ...
        result()

`work` and its items must be picklable: a module's function, `functools.partial`, plain data. Children start afresh
(no fork: the parent may hold threads), compute with one thread each, and end with their parent.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from whqa.errors import InputError
from whqa.process import PARENT, cpus, follow_parent

Item = TypeVar("Item")
Result = TypeVar("Result")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class ProcessDiedError(Exception):
    """The process that worked on an item is gone without an answer, most often because memory ran out."""


def in_processes(
    work: Callable[[Item], Result], items: Sequence[Item], jobs: int | None = None, title: str = ""
) -> list[Result | Exception]:
    """`work(item)` for every item, in the items' order; an exception takes the place of the result it prevented.

    Args:
        work: called once an item, and once more where the process beside it died.
        items: what to work on.
        jobs: processes side by side; None takes all CPUs; 1, or a single item, stays in this process.
        title: of the progress bar, which shows on a terminal only, on standard error; "" for none.

    Raises:
        InputError: `jobs` below 1.
        KeyboardInterrupt: after the children are stopped.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs {jobs}: must be at least 1")
    jobs = min(jobs or cpus(), len(items))
    outcomes: dict[int, Result | Exception] = {}
    with _bar(title, len(items)) as advance:
        if jobs <= 1:
            for index, item in enumerate(items):
                outcomes[index] = _attempt(work, item)
                advance()
        else:
            _run(work, items, jobs, outcomes, advance)
    return [outcomes[index] for index in range(len(items))]


def _attempt(work: Callable[[Item], Result], item: Item) -> Result | Exception:
    try:
        return work(item)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            # an exception that cannot travel between processes would take the pool down
            return RuntimeError(f"{type(error).__name__}: {error}")
        return error


def _run(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int,
    outcomes: dict[int, Result | Exception],
    advance: Callable[[], None],
) -> None:
    waiting = list(range(len(items)))
    while waiting:
        suspects = _until_one_dies(work, items, waiting, jobs, outcomes, advance)
        # whoever was at work when a process died is tried again alone, so that only the culprit is lost
        for index in suspects:
            if _until_one_dies(work, items, [index], 1, outcomes, advance):
                outcomes[index] = ProcessDiedError("its process died, out of memory perhaps; try fewer --jobs")
                advance()
        waiting = [index for index in waiting if index not in outcomes]


def _until_one_dies(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    waiting: Sequence[int],
    jobs: int,
    outcomes: dict[int, Result | Exception],
    advance: Callable[[], None],
) -> list[int]:
    """Work through `waiting`; where a process dies, stop and return the items that were under way."""
    queue = list(waiting)
    under_way: dict[Future[Result | Exception], int] = {}
    with _single_threaded(), _pool(min(jobs, len(queue))) as pool:
        while queue or under_way:
            try:
                while queue and len(under_way) < jobs:
                    with _interrupts_held():
                        under_way[pool.submit(_attempt, work, items[queue[0]])] = queue[0]
                    queue.pop(0)
                done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                for future in done:
                    outcomes[under_way[future]] = future.result()
                    del under_way[future]
                    advance()
            except BrokenProcessPool:
                return list(under_way.values())
    return []


@contextmanager
def process_beside(prepare: Callable[[], Any]) -> Iterator[Callable[..., Callable[[], Any]]]:
    """One process that prepares while this one goes on, then takes work: `start(work, item)()` is `work(item)`.

    It ends with the block. Its work is done in this process where it died, and where there is a single CPU.

    Args:
        prepare: called there first, to import what the work needs; a module's function.
    """
    if cpus() < 2:
        yield partial
        return
    others = set(multiprocessing.active_children())
    with _pool(1) as pool:
        with _single_threaded(), _interrupts_held():
            pool.submit(prepare)

        def start(work: Callable[[Item], Result], item: Item) -> Callable[[], Result]:
            try:
                future = pool.submit(work, item)
            except BrokenProcessPool:
                return partial(work, item)
            return partial(_result_or, future, partial(work, item))

        yield start
        # it has nothing left to do, and to end by itself takes it a tenth of a second
        _terminate(others)


def _result_or(future: Future[Result], otherwise: Callable[[], Result]) -> Result:
    try:
        return future.result()
    except BrokenProcessPool:
        return otherwise()


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start_child, (os.getpid(),))
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        _terminate(others)
        # the pool's own thread complains where Python ends under it
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _terminate(others: set[BaseProcess]) -> None:
    """End all children but these."""
    for child in set(multiprocessing.active_children()) - others:
        child.terminate()


@contextmanager
def _single_threaded() -> Iterator[None]:
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
def _interrupts_held() -> Iterator[None]:
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


@contextmanager
def _bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    # half of what importing this module would take
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=sys.stderr)
    with Progress(console=console, transient=True, disable=not (title and console.is_terminal)) as progress:
        task: Any = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)
