"""Runs that are forks: what they find, what is heard of their end, and that none outlives who asked for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from whqa.stages.forked import ForkedRun, Forks
from whqa.stages.schedule import run_environment

# What a run is here: it says what it finds, then waits, or ends as told.
RUN = """
import json, os, sys, time
from whqa.process import follow_parent
follow_parent()
main = sys.modules["__main__"]
print(json.dumps({
    "pid": os.getpid(), "words": sys.argv[1:], "session": os.getsid(0), "main": main.__spec__.name, "cwd": os.getcwd(),
    "threads": os.environ["OMP_NUM_THREADS"], "of_user": os.environ.get("OF_USER"), "parent": os.getppid(),
    "preloaded": "tarfile" in sys.modules, "input": sys.stdin.read(), "fds": sorted(os.listdir("/proc/self/fd")),
}), flush=True)
print("a trouble", file=sys.stderr, flush=True)
if "wait" in sys.argv:
    time.sleep(600)
sys.exit(int(sys.argv[-1]))
"""
COMMAND = [sys.executable, "-m", "a_run"]

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells of threads")


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    (tmp_path / "a_run.py").write_text(RUN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OF_USER", "kept")
    return run_environment(1)


@pytest.fixture
def forks() -> Iterator[Forks]:
    made = Forks(COMMAND, ["tarfile"])
    yield made
    made.close()


@pytest.fixture
def started(forks: Forks, tmp_path: Path, env: dict[str, str]) -> Callable[..., ForkedRun]:
    def start(*words: str, log: str = "log") -> ForkedRun:
        run = forks.start(words, tmp_path / log, env)
        assert run is not None
        return run

    return start


def _told(log: Path) -> dict[str, object]:
    deadline = time.monotonic() + 60
    while not (log.exists() and "a trouble" in log.read_text()):
        assert time.monotonic() < deadline, "no run said anything"
        time.sleep(0.02)
    told: dict[str, object] = json.loads(log.read_text().splitlines()[0])
    return told


def _is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def _ends(pid: int) -> bool:
    deadline = time.monotonic() + 60
    while _is_there(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not _is_there(pid)


def test_a_fork_finds_what_a_process_of_its_own_would(started: Callable[..., ForkedRun], tmp_path: Path) -> None:
    run = started("fold=0", "0")
    assert run.wait(60) == 0
    told = _told(tmp_path / "log")
    assert told["pid"] == told["session"] == run.pid
    assert told["words"] == ["fold=0", "0"]
    assert told["main"] == "a_run"
    assert told["cwd"] == os.getcwd()
    assert (told["threads"], told["of_user"], told["input"]) == ("1", "kept", "")
    assert told["preloaded"] is True
    # the last is the folder of the open files itself
    assert told["fds"] == ["0", "1", "2", "3"]


def test_runs_side_by_side_have_logs_and_ends_of_their_own(started: Callable[..., ForkedRun], tmp_path: Path) -> None:
    waiting, failing = started("wait", "0", log="one"), started("3", log="other")
    assert failing.wait(60) == 3
    assert waiting.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.0)
    assert {_told(tmp_path / name)["pid"] for name in ("one", "other")} == {waiting.pid, failing.pid}
    os.killpg(waiting.pid, signal.SIGTERM)
    assert waiting.wait(60) == -signal.SIGTERM
    assert failing.poll() == 3


def test_logs_of_several_attempts_follow_each_other(started: Callable[..., ForkedRun], tmp_path: Path) -> None:
    for _ in range(2):
        assert started("0").wait(60) == 0
    assert (tmp_path / "log").read_text().count("a trouble") == 2


def test_runs_end_with_the_process_that_forked_them(
    forks: Forks, started: Callable[..., ForkedRun], tmp_path: Path, env: dict[str, str]
) -> None:
    run = started("wait", "0")
    server = int(str(_told(tmp_path / "log")["parent"]))
    assert server != os.getpid()
    os.kill(server, signal.SIGKILL)
    assert run.wait(60) == -signal.SIGKILL
    assert _ends(run.pid)
    assert forks.start(["0"], tmp_path / "log", env) is None, "whoever starts runs is left to do so by itself"


def test_runs_end_with_whoever_asked_for_them(tmp_path: Path, env: dict[str, str]) -> None:
    program = f"""
import os, sys, time
from pathlib import Path
from whqa.stages.forked import Forks
from whqa.stages.schedule import run_environment
forks = Forks([sys.executable, "-m", "a_run"], ["tarfile"])
forks.start(["wait", "0"], Path({str(tmp_path / "log")!r}), run_environment(1))
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", program], env=env)
    told = _told(tmp_path / "log")
    process.kill()
    process.wait()
    assert _ends(int(str(told["pid"])))
    assert _ends(int(str(told["parent"])))


def test_closed_it_leaves_nothing(
    forks: Forks, started: Callable[..., ForkedRun], tmp_path: Path, env: dict[str, str]
) -> None:
    run = started("wait", "0")
    told = _told(tmp_path / "log")
    forks.close()
    assert not _is_there(int(str(told["parent"])))
    assert _ends(run.pid)
    assert forks.start(["0"], tmp_path / "log", env) is None


@pytest.mark.parametrize("threads", ["2", None])
def test_a_run_of_several_threads_is_a_process_of_its_own(
    forks: Forks, tmp_path: Path, env: dict[str, str], threads: str | None
) -> None:
    del env["OMP_NUM_THREADS"]
    assert forks.start(["0"], tmp_path / "log", env | ({"OMP_NUM_THREADS": threads} if threads else {})) is None


def test_so_is_one_whose_environment_is_not_that_of_the_first(
    forks: Forks, started: Callable[..., ForkedRun], tmp_path: Path, env: dict[str, str]
) -> None:
    started("0").wait(60)
    assert forks.start(["0"], tmp_path / "log", env | {"MKL_NUM_THREADS": "2"}) is None
    assert started("0").wait(60) == 0


@pytest.mark.parametrize("command", [[sys.executable, "-S", "stub.py"], ["sleep", "1"], [sys.executable, "-m"]])
def test_so_is_a_command_that_is_no_module(tmp_path: Path, env: dict[str, str], command: list[str]) -> None:
    assert Forks(command).start(["0"], tmp_path / "log", env) is None


@pytest.mark.parametrize("module", ["no_such_module", "starts_a_thread"])
def test_so_are_all_where_nothing_can_be_forked(tmp_path: Path, env: dict[str, str], module: str) -> None:
    """An import that fails, which the run then says itself, or one that leaves a thread, which no fork would have."""
    (tmp_path / "starts_a_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    forks = Forks(COMMAND, [module])
    assert forks.start(["0"], tmp_path / "log", env) is None
    forks.close()
    assert not (tmp_path / "log").exists()
