"""Clocks, and children that report their own: CPU seconds say the same on a busy machine, wall seconds do not."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

REPEATS = 5
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")


def median_seconds(work: Callable[[], object]) -> float:
    """Median wall time after one warm-up."""
    work()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one round in this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def peak_bytes() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Child:
    """`python script arguments`, with one thread, that does its work once each time it is asked; see `serve`."""

    def __init__(self, script: str, arguments: Sequence[str]) -> None:
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1"), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, "-W", "ignore", script, *arguments]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.seconds: list[float] = []
        self.peak = self.imported = 0.0
        self.failure = ""

    def ask(self) -> None:
        """One round of work, if there was no failure."""
        if self.failure:
            return
        try:
            self.process.stdin.write("go\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
            answer = next(line for line in self.process.stdout if line.startswith("{"))  # type: ignore[union-attr]
        except (BrokenPipeError, StopIteration):
            lines = self.process.communicate()[1].strip().splitlines() or ["ended without a word"]
            missing = lines[-1].startswith("ModuleNotFoundError")
            self.failure = 'not installed (pip install "whqa[bench]")' if missing else lines[-1]
            return
        found = json.loads(answer)
        self.seconds.append(found["seconds"])
        self.peak, self.imported = found["peak"], found["imported"]

    def end(self) -> None:
        """Close its pipes and wait."""
        if not self.failure:
            self.process.communicate()


def in_turn(script: str, rows: Sequence[Sequence[str]], repeats: int) -> list[Child]:
    """Children that take turns, so that whatever else the machine does meets all of them alike."""
    children = [Child(script, arguments) for arguments in rows]
    try:
        for _ in range(repeats):
            for child in children:
                child.ask()
    finally:
        for child in children:
            child.end()
    return children


def serve(work: Callable[[], object], first: Callable[[], object] = int) -> None:
    """The child's side: for each line, CPU seconds of all threads for one round of work, and memory.

    `first` is done once before; its memory counts, its time does not.
    """
    imported = peak_bytes()
    first()
    for _ in sys.stdin:
        started = time.process_time()
        work()
        seconds = time.process_time() - started
        print(json.dumps({"seconds": seconds, "peak": peak_bytes(), "imported": imported}), flush=True)


def megabytes(size: float) -> str:
    """For a table."""
    return f"{size / 1e6:,.0f}"
