"""Filling the cache with a cohort, in one process or in several.

Every case is one piece of work that is done or not: what is interrupted, killed or refused is made by the next call,
and several calls at the same time share the work.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from whqa.data.cache import Cache, CropWarning, PreparedCase
from whqa.data.case import Case, Cohort
from whqa.errors import InputError
from whqa.process import end_with

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        case: its id.
        prepared: the case in the cache, or None where it is bad.
        made: whether this call made it.
        error: what is wrong with a bad case, one line.
        cut: what preprocessing cuts away from it, one line a structure set; empty if nothing.
    """

    case: str
    prepared: PreparedCase | None
    made: bool = False
    error: str = ""
    cut: tuple[str, ...] = ()


def prepare_cohort(cohort: Cohort, cache: Cache, progress: bool = True, jobs: int = 1) -> dict[str, PreparedCase]:
    """All cases of a cohort by id, in its order; a progress bar shows on a terminal only.

    Warns with `CropWarning` of structures that preprocessing cuts.

    Raises:
        InputError: the first bad case that was met.
    """
    prepared: dict[str, PreparedCase] = {}
    with closing(prepare_each(cohort, cache, progress, jobs)) as outcomes:
        for outcome in outcomes:
            if outcome.prepared is None:
                raise InputError(outcome.error)
            for line in outcome.cut:
                warnings.warn(line, CropWarning, stacklevel=2)
            prepared[outcome.case] = outcome.prepared
    return {case.id: prepared[case.id] for case in cohort.cases}


def prepare_each(cohort: Cohort, cache: Cache, progress: bool = True, jobs: int = 1) -> Generator[Outcome, None, None]:
    """What becomes of each case, as it becomes known; a bad case does not stop the others.

    To be closed where it is not used up, so that no process goes on.

    Args:
        cohort: with the cases to prepare.
        cache: to fill.
        progress: whether to show a bar on a terminal.
        jobs: processes side by side, of one thread each; 1 works in this process.

    Raises:
        InputError: a process ended without a word.
    """
    console = Console(file=sys.stderr)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not (progress and console.is_terminal),
    )
    with bar, closing(_outcomes(cohort, cache, jobs)) as outcomes:
        task = bar.add_task(f"preparing {cohort.name}", total=len(cohort.cases))
        for outcome in outcomes:
            bar.advance(task)
            yield outcome


def _outcomes(cohort: Cohort, cache: Cache, jobs: int) -> Generator[Outcome, None, None]:
    missing = []
    for case in cohort.cases:
        prepared = cache.find(cohort, case)
        if prepared is None:
            missing.append(case)
        else:
            yield Outcome(case.id, prepared)
    if jobs > 1 and len(missing) > 1:
        yield from _in_processes(cohort, cache, missing, min(jobs, len(missing)))
    else:
        yield from _in_turn(cohort, cache, missing)


def _in_turn(cohort: Cohort, cache: Cache, cases: Sequence[Case]) -> Iterator[Outcome]:
    """One case after the other; what another process is making comes last, when it is likely to be there."""
    waiting, put_off = deque(cases), set[str]()
    while waiting:
        case = waiting.popleft()
        outcome = _attempt(cohort, cache, case, wait=case.id in put_off)
        if outcome is not None:
            yield outcome
        else:
            put_off.add(case.id)
            waiting.append(case)


def _attempt(cohort: Cohort, cache: Cache, case: Case, wait: bool) -> Outcome | None:
    try:
        result = cache.try_prepare(cohort, case, wait)
    except InputError as error:
        return Outcome(case.id, None, error=str(error))
    return None if result is None else Outcome(case.id, result[0], made=result[1])


def _in_processes(cohort: Cohort, cache: Cache, cases: Sequence[Case], jobs: int) -> Iterator[Outcome]:
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), end_with, (os.getpid(),))
    try:
        put_off = yield from _round(pool, cohort, cache, cases, wait=False)
        yield from _round(pool, cohort, cache, put_off, wait=True)
    except BrokenProcessPool:
        raise InputError(
            "a process that prepared cases ended without a word, likely for want of memory; run again with fewer jobs"
        ) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
            child.join(10)
        raise
    else:
        pool.shutdown()


def _round(
    pool: ProcessPoolExecutor, cohort: Cohort, cache: Cache, cases: Sequence[Case], wait: bool
) -> Generator[Outcome, None, list[Case]]:
    """All cases once; returns those that another process is making."""
    with _quiet_children():
        futures = {pool.submit(_work, replace(cohort, cases=(c,), problems=()), cache, wait): c for c in cases}
    busy = []
    for future in as_completed(futures):
        outcome = future.result()
        if outcome is None:
            busy.append(futures[future])
        else:
            yield outcome
    return busy


def _work(cohort: Cohort, cache: Cache, wait: bool) -> Outcome | None:
    """The one case of this cohort, in a process of its own."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CropWarning)
        outcome = _attempt(cohort, cache, cohort.cases[0], wait)
    cut = tuple(str(w.message) for w in caught if issubclass(w.category, CropWarning))
    return None if outcome is None else replace(outcome, cut=cut)


@contextmanager
def _quiet_children() -> Iterator[None]:
    """Processes started meanwhile compute with one thread and leave Ctrl-C to this one."""
    before = {name: os.environ.get(name) for name in _THREADS}
    main = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN) if main else None
    os.environ |= dict.fromkeys(_THREADS, "1")
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        if main:
            signal.signal(signal.SIGINT, previous)
