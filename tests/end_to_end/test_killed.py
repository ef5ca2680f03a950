"""SIGKILL at random moments: whatever was being written, the same command ends with the same numbers."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tiny = Callable[[Path], list[str]]
Read = Callable[[Path], list[dict[str, str]]]
Table = Callable[[Path], dict[str, Any]]

KILLS = 30
# Seconds to a kill: from the start of a cross-validation, and from the start of its first run, which imports torch,
# trains and judges.
SOONEST, LATEST = 5.0, 12.0


def without_seconds(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def children(parent: int) -> list[int]:
    told = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False)
    return [int(pid) for pid in told.stdout.split()]


def runs_under(parent: int) -> list[int]:
    """Processes of the runs that a cross-validation has started: forks of the process that it has started for them."""
    return [run for server in children(parent) for run in children(server)]


@pytest.mark.slow
def test_a_cross_validation_that_is_killed_again_and_again_ends_with_the_undisturbed_table(
    phantoms: Path, tmp_path: Path, tiny: Tiny, rows_of: Read, table_of: Table
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for root in (undisturbed, killed):
        shutil.copytree(phantoms, root)

    def start(root: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "whqa", "cv", *tiny(root), "--jobs", "2"]
        return subprocess.Popen(command, cwd=root, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def end(process: subprocess.Popen[bytes]) -> str:
        said = process.communicate(timeout=3600)[1].decode()
        assert "Traceback" not in said, said
        return said

    end(start(undisturbed))
    draw, kills, done = random.Random(0), {"cross-validation": 0, "run": 0}, 0
    while sum(kills.values()) < KILLS:
        process = start(killed)
        # now and then while it reads its data, else once it has begun to train, however busy the machine is
        if draw.random() < 0.2:
            time.sleep(draw.uniform(0.0, SOONEST))
        else:
            while process.poll() is None and not runs_under(process.pid):
                time.sleep(0.1)
            time.sleep(draw.uniform(0.0, LATEST))
        # now and then what forks the runs, which ends all of them
        runs = runs_under(process.pid)
        if draw.random() < 0.2:
            runs = [server for server in children(process.pid) if children(server)]
        if runs and draw.random() < 0.4:
            kills["run"] += 1
            os.kill(draw.choice(runs), signal.SIGKILL)
            # the others go on; what waits for it does not begin
            time.sleep(draw.uniform(0.0, 2.0))
        if process.poll() is None:
            kills["cross-validation"] += 1
            process.send_signal(signal.SIGKILL)
        end(process)
        if process.returncode == 0:
            # too fast for so many kills: once more from the start of the second stage
            done += 1
            shutil.rmtree(killed / "runs" / "tiny" / "errormap")
    print(f"{kills}, {done} times finished in between")
    last = start(killed)
    end(last)
    assert last.returncode == 0
    one, other = (root / "runs" / "tiny" for root in (undisturbed, killed))
    assert table_of(one) == table_of(other)
    assert without_seconds(rows_of(one / "cases.csv")) == without_seconds(rows_of(other / "cases.csv"))
    for path in sorted(one.glob("*/*/metrics.csv")):
        assert path.read_bytes() == (other / path.relative_to(one)).read_bytes()
    # nothing half-written is left but what a killed process could not take away, under names that nobody reads
    assert not [
        path for path in other.rglob("*") if path.is_file() and path.stat().st_size == 0 and path.name[0] != "."
    ]
