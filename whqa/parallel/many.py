"""One function over many items in processes of their own: a bar for people, an item's failure stays its own.

    outcomes = in_processes(work, items, jobs=4, title="checking")      # results, or the exception, in the items' order

`work` and its items must be picklable: a module's function, `functools.partial`, plain data. Children start afresh
(no fork: the parent may hold threads), compute with one thread each, and end with their parent.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from whqa.errors import InputError
from whqa.parallel.children import interrupts_held, pool_of, single_threaded
from whqa.process import cpus

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    with single_threaded(), pool_of(min(jobs, len(queue))) as pool:
        while queue or under_way:
            try:
                while queue and len(under_way) < jobs:
                    with interrupts_held():
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
def _bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    # half of what importing this module would take
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=sys.stderr)
    with Progress(console=console, transient=True, disable=not (title and console.is_terminal)) as progress:
        task: Any = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)
