"""Six trainings, one after the other on all cores, and two and three side by side: wall time of a short training each.

On a busy machine this says little: nothing else may run beside it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from rich.console import Console
from rich.table import Table

from whqa.process import cpus

RUNS, STEPS, EDGE = 6, 40, 40
WORK = f"""
import steps
from whqa.process import keep_memory
keep_memory()
step = steps.ours({EDGE}, 16)
for _ in range({STEPS}):
    step()
"""


def seconds(jobs: int) -> float:
    """Wall time of all runs, at most so many at a time, each with its share of the cores."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cpus() // jobs)), "OMP_WAIT_POLICY": "PASSIVE"}
    waiting, running, started = RUNS, [], time.perf_counter()
    while waiting or running:
        running = [process for process in running if process.poll() is None]
        while waiting and len(running) < jobs:
            command = [sys.executable, "-W", "ignore", "-c", WORK]
            running.append(subprocess.Popen(command, env=environment, cwd=os.path.dirname(__file__)))
            waiting -= 1
        time.sleep(0.02)
    return time.perf_counter() - started


def print_table(console: Console) -> None:
    """A row a number of jobs."""
    table = Table(
        *("runs side by side", "threads each", "wall s", "beside one after the other"),
        title=f"{RUNS} trainings of {STEPS} steps at {EDGE}^3 on {cpus()} CPUs, start of the processes included",
    )
    alone = seconds(1)
    table.add_row("1", str(cpus()), f"{alone:.1f}", "1.00")
    for jobs in sorted({2, 3, cpus(), cpus() + 1} - {1}):
        spent = seconds(jobs)
        table.add_row(str(jobs), str(max(1, cpus() // jobs)), f"{spent:.1f}", f"{alone / spent:.2f}")
    console.print(table)


if __name__ == "__main__":
    print_table(Console())
