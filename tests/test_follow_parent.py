"""A child process ends with its parent, however that ends."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest


def test_a_child_follows_its_parent(tmp_path: Path) -> None:
    """Where the cross-validation is killed outright, its runs end by themselves."""
    child = textwrap.dedent("""
        import os, time
        from whqa.process import follow_parent
        follow_parent()
        print(os.getpid(), flush=True)
        time.sleep(600)
    """)
    parent = textwrap.dedent(f"""
        import os, subprocess, sys
        from whqa.process import PARENT
        mine = os.environ | {{PARENT: str(os.getpid())}}
        child = subprocess.Popen([sys.executable, "-c", {child!r}], env=mine, stdout=subprocess.PIPE)
        print(child.stdout.readline().decode().strip(), flush=True)
        os._exit(0)
    """)
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=600, check=True)
    pid, deadline = int(done.stdout), time.monotonic() + 120
    while _alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(pid)


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "zombie"])
def test_a_child_whose_parent_died_before_it_looked_ends_too(noted: bool) -> None:
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    os.waitid(os.P_PID, gone.pid, os.WEXITED | (0 if noted else os.WNOWAIT))
    program = f"from whqa.process import follow_parent\nimport os\nos.environ['WHQA_PARENT'] = '{gone.pid}'\n"
    alone = subprocess.run([sys.executable, "-c", program + "follow_parent()"], timeout=600, check=False)
    assert alone.returncode == 1
    rank = "os.environ['LOCAL_RANK'] = '1'\n"
    further = subprocess.run([sys.executable, "-c", program + rank + "follow_parent()"], timeout=600, check=False)
    assert further.returncode == 1
    gone.wait()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
