"""Work in processes: order, failures that stay their own, and nothing left behind."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import pytest

from whqa.errors import InputError
from whqa.parallel.beside import process_beside
from whqa.parallel.many import ProcessDiedError, in_processes

PATIENCE = 240  # seconds, until a test gives up on what should come soon


class TwoArgumentsError(Exception):
    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def work(item: int) -> tuple[int, int, str | None]:
    if item == 2:
        raise InputError("item 2 is bad")
    if item == 3:
        raise TwoArgumentsError("this", "that")
    if item == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return item * item, os.getpid(), os.environ.get("OMP_NUM_THREADS")


def slow(item: int) -> None:
    Path(os.environ["STARTED"], str(item)).touch()
    time.sleep(600)  # longer than any patience: who waits for the items fails


def test_results_come_in_order_and_failures_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    found = in_processes(work, [5, 4, 3, 2, 1, 0], jobs=2)
    squares = [f[0] if isinstance(f, tuple) else type(f) for f in found]
    assert squares == [25, ProcessDiedError, RuntimeError, InputError, 1, 0]
    assert str(found[2]) == "TwoArgumentsError: this and that"
    assert str(found[3]) == "item 2 is bad"
    pids = {f[1] for f in found if isinstance(f, tuple)}
    assert os.getpid() not in pids
    assert {f[2] for f in found if isinstance(f, tuple)} == {"1"}, "children compute with one thread"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert not multiprocessing.active_children()


def test_one_job_stays_in_this_process() -> None:
    found = in_processes(work, [3, 1, 2], jobs=1)
    assert isinstance(found[1], tuple)
    assert found[1][:2] == (1, os.getpid())
    assert [isinstance(f, Exception) for f in found] == [True, False, True]
    assert in_processes(work, []) == []


def dies_elsewhere(here: int) -> int:
    if os.getpid() != here:
        os.kill(os.getpid(), signal.SIGKILL)
    return here


def test_a_process_beside_imports_then_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whqa.parallel.beside.cpus", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    with process_beside(os.getpid) as start:
        assert os.environ["OMP_NUM_THREADS"] == "7"
        good, bad, travelling = (start(work, item) for item in (5, 2, 3))
        square, pid, threads = good()
        assert (square, threads) == (25, "1")
        assert pid != os.getpid()
        with pytest.raises(InputError, match="item 2 is bad"):
            bad()
        # a result that cannot travel is made here
        with pytest.raises(TwoArgumentsError, match="this and that"):
            travelling()
    assert not multiprocessing.active_children()


def test_work_of_a_process_that_died_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whqa.parallel.beside.cpus", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with process_beside(os.getpid) as start:
        first = start(dies_elsewhere, os.getpid())
        assert first() == os.getpid()
        assert start(dies_elsewhere, os.getpid())() == os.getpid()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("cpus", "threads"), [(1, "7"), (2, "1")])
def test_one_cpu_or_thread_has_no_process_beside(cpus: int, threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whqa.parallel.beside.cpus", lambda: cpus)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    with process_beside(os.getpid) as start:
        assert start is partial
        assert start(work, 5)()[1] == os.getpid()
        assert not multiprocessing.active_children()


@pytest.mark.parametrize("place", ["children.ProcessPoolExecutor", "children.ProcessPoolExecutor.submit"])
@pytest.mark.parametrize(
    "trouble", [OSError(38, "no semaphores"), NotImplementedError(), BlockingIOError(11, "too many")]
)
def test_a_system_that_gives_no_process_has_the_work_done_here(
    place: str, trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object, **__: object) -> None:
        raise trouble

    monkeypatch.setattr("whqa.parallel.beside.cpus", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(f"whqa.parallel.{place}", none)
    with process_beside(os.getpid) as start:
        assert start(work, 5)()[1] == os.getpid()
    assert not multiprocessing.active_children()


def test_a_process_beside_ends_where_the_block_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whqa.parallel.beside.cpus", lambda: 2)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    def fail() -> None:
        with process_beside(os.getpid) as start:
            start(time.sleep, 600)  # longer than any patience
            raise InputError("no")

    with pytest.raises(InputError, match="no"):
        fail()
    assert not multiprocessing.active_children()


def test_no_jobs_at_all() -> None:
    with pytest.raises(InputError, match="--jobs 0: must be at least 1"):
        in_processes(work, [1, 2], jobs=0)


def _alive_in_group(group: int) -> list[list[str]]:
    """The processes of a group that are not just waiting for somebody to take note of their end."""
    time.sleep(0.2)
    fields = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields.append(path.read_text().rsplit(")", 1)[1].split())
    return [f for f in fields if int(f[2]) == group and f[0] != "Z"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc to look for processes in")
@pytest.mark.parametrize("to_all", [True, False], ids=["terminal", "parent alone"])
def test_interrupted_it_ends_at_once_and_leaves_nothing(tmp_path: Path, to_all: bool) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_parallel import slow
        from whqa.parallel.many import in_processes
        if __name__ == "__main__":
            try:
                in_processes(slow, range(6), jobs=2)
            except KeyboardInterrupt:
                sys.exit(130)
        """)
    )
    started = tmp_path / "started"
    started.mkdir()
    run = subprocess.Popen(
        [sys.executable, str(program)],
        env=os.environ | {"STARTED": str(started)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    deadline = time.monotonic() + PATIENCE
    while len(list(started.iterdir())) < 2 and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    (os.killpg if to_all else os.kill)(run.pid, signal.SIGINT)
    _, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == 130, said
    assert said == b""
    # the tracker that Python keeps beside its processes ends a moment after them
    deadline = time.monotonic() + PATIENCE
    while _alive_in_group(run.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive_in_group(run.pid)
