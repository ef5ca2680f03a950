"""The lock of a run's directory: held or not, and by whom, as another process sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import whqa.process
from whqa.errors import InputError
from whqa.process import Lock, cpus, host_name, locked, read_lock


def test_a_lock_says_who_holds_it_and_that_it_was_let_go(tmp_path: Path) -> None:
    assert read_lock(tmp_path) is None
    before = time.time()
    with locked(tmp_path):
        held = read_lock(tmp_path)
        assert held is not None
        assert (held.held, held.host, held.pid, held.ended) == (True, host_name(), os.getpid(), False)
        assert before <= (held.since or 0) <= time.time()
        assert held.is_of_here
    assert read_lock(tmp_path) == Lock(False, held.host, held.pid, held.since, True)


def test_looking_at_a_lock_changes_nothing_and_keeps_nobody_out(tmp_path: Path) -> None:
    with locked(tmp_path):
        pass
    path = tmp_path / ".lock"
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    read_lock(tmp_path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    with locked(tmp_path):
        assert read_lock(tmp_path) == read_lock(tmp_path)


def test_who_is_refused_does_not_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whqa.process, "WAIT_S", -1.0)
    with locked(tmp_path):
        text = (tmp_path / ".lock").read_text()
        with pytest.raises(InputError, match="another process is at work here"), locked(tmp_path):
            pass
        assert (tmp_path / ".lock").read_text() == text != ""


def test_a_killed_process_holds_its_lock_no_more(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\nfrom whqa.process import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        held = read_lock(tmp_path)
        holder.send_signal(signal.SIGKILL)
    assert held is not None
    assert (held.held, held.pid) == (True, holder.pid)
    assert read_lock(tmp_path) == Lock(False, host_name(), holder.pid, held.since, False)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '{"host": "a"}', '{"host": "a", "pid": "x", "since": 0}'])
def test_a_lock_that_does_not_say_whose_it_is(text: str, tmp_path: Path) -> None:
    """Of an older version, or torn."""
    (tmp_path / ".lock").write_text(text)
    assert read_lock(tmp_path) == Lock(False, None, None, None, False)


def test_another_machine_s_lock_is_not_known_for_certain(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"host": f"not-{host_name()}", "pid": 1, "since": 2.0}))
    found = read_lock(tmp_path)
    assert found is not None
    assert (found.held, found.is_of_here, found.since) == (False, False, 2.0)


@pytest.mark.parametrize(("allotted", "found"), [("2", 2), ("1", 1), ("64", 8), ("", 8), ("0", 8), ("many", 8)])
def test_a_job_of_slurm_takes_the_cpus_that_it_was_allotted(
    allotted: str, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", allotted)
    assert cpus() == found


def test_the_last_search_for_garbage_is_left_out() -> None:
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000));"
    code += "from whqa.process import collect_seldom; collect_seldom()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
