"""When which run of a cross-validation is at work, with how many threads, and how many runs side by side are best.

All of it follows from the graph, the cores and the memory alone, as if all runs of a stage took equally long: neither
the clock nor what had been done before may decide with how many threads a run computes, for sums in another order
differ in the last digit.

One run a core leaves cores idle where the last ones of a stage are fewer than the cores: of three runs on two cores the
third is alone, and on two cores no run is twice as fast. One run more than cores shares them out to the end: `make
demo`, three runs a stage on two cores, took 5:43 with two side by side and 5:10 with three.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from whqa.masks.run_state import is_complete
from whqa.process import PARENT, cpus, memory_gib
from whqa.results.run_progress import share_done

MOST_BY_DEFAULT = 4
"""Runs side by side for memory's sake, where nobody says otherwise, but for the one more."""
GIB_A_RUN = 4.0
"""What the machine must have for each run before one more than cores is started; a run of the demo takes 0.8."""
SERIAL = 0.4
"""Share of a run that more threads do not shorten: a run of the demo on two cores takes 0.7 of its time on one."""


@dataclass(frozen=True)
class Run:
    """One node of the graph: a stage of a fold.

    Attributes:
        stage, fold, directory: runs/<experiment>/<stage>/<fold>.
        work: in units of its own.
        needs: names of the runs that it waits for.
        words: settings of its experiment.
        of: its experiment, where the graph has several.
        shares: runs of other experiments and where this run looks for them, see `whqa.masks.sharing`.
    """

    stage: str
    fold: str
    directory: Path
    work: float
    needs: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()
    of: str = ""
    shares: tuple[tuple[Path, Path], ...] = ()

    @property
    def name(self) -> str:
        """ "segmenter/0-1", and in a sweep that of a point, "demo,errormap.head=binary/segmenter/0-1"."""
        return f"{self.of}/{self.stage}/{self.fold}".lstrip("/")

    @property
    def complete(self) -> bool:
        """Whether its stamp is there."""
        return is_complete(self.directory)

    @property
    def done(self) -> float:
        """Share of the work that is done, 0 to 1."""
        return 1.0 if self.complete else share_done(self.directory)


def jobs_by_default(runs: Sequence[Run], accelerator: str | None, groups: int = 0) -> int:
    """Runs side by side: one a CPU, or one more where that is done earlier and memory allows; one a group of GPUs."""
    if accelerator not in (None, "cpu"):
        return max(1, groups)
    cores = cpus()
    jobs = min(MOST_BY_DEFAULT, cores)
    if jobs < cores or memory_gib() < GIB_A_RUN * (jobs + 1):
        return jobs
    return jobs + (expected_time(runs, jobs + 1, cores) < (1 - 1e-9) * expected_time(runs, jobs, cores))


def run_environment(beside: int) -> dict[str, str]:
    """Environment of a run: its share of the cores while `beside` runs are at work, and whom to follow into the grave.

    Why the cores are shared, `whqa.config.speed` says.
    """
    defaults = {"OMP_NUM_THREADS": str(_threads(beside, cpus()))}
    return defaults | dict(os.environ) | {PARENT: str(os.getpid())}


def at_work_beside(runs: Sequence[Run], jobs: int) -> dict[str, int]:
    """By a run's name, how many runs at most are at work at a time while it is, itself among them."""
    most: dict[str, int] = {}
    for names, _ in _periods(runs, jobs):
        most |= {name: max(most.get(name, 0), len(names)) for name in names}
    return most


def expected_time(runs: Sequence[Run], jobs: int, cores: int) -> float:
    """Of all runs, in units of their work by one thread that has a core of its own."""
    beside = at_work_beside(runs, jobs)
    total = 0.0
    for names, work in _periods(runs, jobs):
        threads = min(_threads(beside[name], cores) for name in names)
        total += work * max(SERIAL + (1 - SERIAL) / threads, len(names) / cores)
    return total


def _threads(beside: int, cores: int) -> int:
    return max(1, cores // max(1, beside))


def _periods(runs: Sequence[Run], jobs: int) -> Iterator[tuple[list[str], float]]:
    """Who is at work from one start or end of a run to the next, and how much of its work each does meanwhile."""
    ends: dict[str, float] = {}
    done: set[str] = set()
    now, waiting = 0.0, list(runs)
    while waiting or ends:
        ready = [run for run in waiting if run.needs <= done][: jobs - len(ends)]
        waiting = [run for run in waiting if run not in ready]
        ends |= {run.name: now + run.work for run in ready}
        if not ends:
            return
        before, now = now, min(ends.values())
        yield list(ends), now - before
        finished = {name for name, end in ends.items() if end <= now * (1 + 1e-9)}
        done |= finished
        ends = {name: end for name, end in ends.items() if name not in finished}
