"""Clocks, and children that report their own: CPU seconds say the same on a busy machine, wall seconds do not."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

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


def best_cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """Least CPU time of all threads of this process."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def peak_bytes() -> int:
    """The most memory that this process has held."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_child(script: str, peer: str, arguments: Sequence[str]) -> dict[str, Any] | str:
    """What `python script peer arguments` reports as its last line, with one thread; a line of text if it cannot."""
    environment = {**os.environ, **dict.fromkeys(_THREADS, "1"), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-W", "ignore", script, peer, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["ended without a word"]
        missing = lines[-1].startswith("ModuleNotFoundError")
        return 'not installed (pip install "whqa[bench]")' if missing else lines[-1]
    report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return report


def report(values: Mapping[str, float]) -> None:
    """Last line of a child."""
    print(json.dumps({**values, "peak": peak_bytes()}))


def megabytes(size: float) -> str:
    """For a table."""
    return f"{size / 1e6:,.0f}"
