"""A cross-validation that is killed again and again, each time in a process that is forked from this one.

    python tests/end_to_end/killed_here.py 31,7,112 SETTING ...

Forked, as importing torch takes longer than a tiny study. A number is a change of files (one is opened to be written,
renamed, linked or removed, a folder is made) at which, or up to 50 ms after which, SIGKILL comes. After the last one
the same call goes on undisturbed. Says on standard error how each ended, as `subprocess` does.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from typing import Any

from rich.console import Console

import whqa.train
from whqa.cv import Graph, cross_validate
from whqa.masks.sharing import share_run

# before the first fork
from whqa.report import style
from whqa.stages import from_config  # noqa: F401
from whqa.summarize import summarize  # noqa: F401

_CHANGES = ("os.rename", "os.link", "os.remove", "os.mkdir")
_LATEST_S = 0.05


class KillAt:
    """An audit hook that ends its process."""

    def __init__(self, change: int, delay: float) -> None:
        self.left, self.delay = change, delay

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        written = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if written or event in _CHANGES:
            self.left -= 1
            if self.left == 0:
                threading.Thread(target=self.kill, daemon=True).start()

    def kill(self) -> None:
        time.sleep(self.delay)
        os.kill(os.getpid(), signal.SIGKILL)


def train_here(graph: Graph, console: Console) -> None:
    """What `whqa.cv.work_through` does, one run after the other in this process."""
    while ready := graph.ready():
        run = ready[0]
        for source, target in run.shares:
            share_run(source, target)
        sys.argv = ["whqa train", *run.words, f"stage={run.stage}", f"fold={run.fold}"]
        whqa.train.main()


def cross_validated(settings: list[str], change: int | None, delay: float) -> int:
    """How a process that cross-validates ends, killed at a change of files or not."""
    process = os.fork()
    if process == 0:
        if change is not None:
            sys.addaudithook(KillAt(change, delay))
        os._exit(cross_validate(settings, jobs=1, work=train_here))
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


if __name__ == "__main__":
    # drawn they take longest, and only fill a page
    style.png = lambda figure: b""
    draw = random.Random(0)
    for at in (*map(int, sys.argv[1].split(",")), None):
        print("ended:", cross_validated(sys.argv[2:], at, draw.uniform(0.0, _LATEST_S)), file=sys.stderr, flush=True)
