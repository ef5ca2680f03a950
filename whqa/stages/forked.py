"""Runs that do without the seconds of CPU that a process needs to import torch and Lightning: one process imports them
once, and each run is a fork of it.

    python -m whqa.stages.forked whqa.train whqa.stages.from_config

It forks only while it has a single thread, so that no lock can be held by a thread that the fork lacks, and it computes
nothing, so that neither generators nor thread pools have a state that runs could share. A fork is a process as any
other: with its own session, log and environment, its command as `__main__`, and an end of its own. Whoever asked for it
is followed: when that process ends, however it does, so does this one at once, and its runs notice.
"""

from __future__ import annotations

import gc
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from runpy import run_module
from signal import SIGKILL
from typing import Any

from whqa.process import PARENT

PRELOADED = ("whqa.stages.from_config", "whqa.config.words", "whqa.config.settings_help", "hydra.core.hydra_config")
_POLL_S = 0.1
_THREADS = Path("/proc/self/task")


class ForkedRun:
    """A run as `subprocess.Popen` shows one: `pid`, `poll`, `wait`."""

    def __init__(self, pid: int, of: Forks) -> None:
        self.pid, self._of = pid, of

    def poll(self) -> int | None:
        """The exit code, negative for the signal that ended it; None while it runs."""
        return self._of.code(self.pid)

    def wait(self, timeout: float) -> int:
        """The exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(_POLL_S / 2)
        return code


class Forks:
    """The process that forks, started when the first run is.

    Args:
        command: what goes before the words of a run; only `python -m MODULE` can be forked.
        preloaded: what the module imports, or most of it.
    """

    def __init__(self, command: Sequence[str], preloaded: Sequence[str] = PRELOADED) -> None:
        self._preloaded = tuple(preloaded)
        self._module = command[2] if [*command[:2]] == [sys.executable, "-m"] and len(command) == 3 else ""
        self._env: dict[str, str] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self._codes: dict[int, int] = {}
        self._gone = False

    def start(self, words: Sequence[str], log: Path, env: Mapping[str, str]) -> ForkedRun | None:
        """Fork a run that appends what it prints to `log`; None where it must be started as any other process.

        That is where it shall compute with several threads, where its environment is not that of the first run, which
        libraries have read, and where the process that forks could not be had.
        """
        if self._gone or not self._module or env.get("OMP_NUM_THREADS") != "1" or not _THREADS.exists():
            return None
        if self._server is None:
            self._env = dict(env)
            self._server = subprocess.Popen(
                [sys.executable, "-m", __name__, self._module, *self._preloaded],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=self._env,
                start_new_session=True,
            )
        if env != self._env:
            return None
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(json.dumps({"words": list(words), "log": str(log)}).encode() + b"\n")
            self._server.stdin.flush()
        except OSError:
            self._gone = True
            return None
        while not self._gone:
            if pid := self._heard(None):
                return ForkedRun(pid, self)
        return None

    def code(self, pid: int) -> int | None:
        """Of a run that has ended, else None; its runs do not outlive the process that forked them."""
        while not self._gone and pid not in self._codes and self._heard(0.0) is not None:
            pass
        return self._codes.get(pid, -SIGKILL if self._gone else None)

    def close(self) -> None:
        """End the process that forks, and with it whatever still runs."""
        self._gone = True
        if self._server is not None:
            # not by closing its input, which it looks at when it has imported
            self._server.terminate()
            with self._server:
                pass

    def _heard(self, timeout: float | None) -> int | None:
        """Take up what the server says next: the pid of a run that began, or 0; None where it says nothing."""
        assert self._server is not None
        assert self._server.stdout is not None
        while b"\n" not in self._rest:
            if not select.select([self._server.stdout], [], [], timeout)[0]:
                return None
            said = os.read(self._server.stdout.fileno(), 4096)
            if not said:
                self._gone = True
                return None
            self._rest += said
        line, self._rest = self._rest.split(b"\n", 1)
        told = json.loads(line)
        if "code" not in told:
            return int(told["began"])
        self._codes[told["pid"]] = told["code"]
        return 0


def serve(module: str, preloaded: Sequence[str]) -> None:
    """Fork a run of the module for each line of standard input, until there is no more; say who began and who ended."""
    for name in preloaded:
        import_module(name)
    # a fork copies what it writes to, and a collection writes to everything
    gc.freeze()
    while True:
        if select.select([sys.stdin], [], [], _POLL_S)[0]:
            line = sys.stdin.readline()
            if not line or len(list(_THREADS.iterdir())) > 1:
                return
            if _forked(json.loads(line)):
                run_module(module, run_name="__main__", alter_sys=True)
                return
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                _say(pid=ended[0], code=os.waitstatus_to_exitcode(ended[1]))


def _forked(asked: Mapping[str, Any]) -> bool:
    """Whether this is now the process of the run."""
    parent = os.getpid()
    if os.fork():
        return False
    os.setsid()
    _say(began=os.getpid())
    with open(os.devnull, "rb") as nothing, Path(asked["log"]).open("ab") as log:
        for file, number in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(file.fileno(), number)
    os.environ[PARENT] = str(parent)
    sys.argv = ["", *asked["words"]]
    return True


def _say(**what: int) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
