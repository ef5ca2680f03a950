"""A run is one process: it locks its directory, signs the lock, and ends when the process that started it is gone."""

from __future__ import annotations

import atexit
import ctypes
import errno
import fcntl
import gc
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from whqa.errors import InputError

PARENT = "WHQA_PARENT"
WAIT_S = 15.0
KEEP_MEMORY = "WHQA_KEEP_MEMORY"
# of <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _LARGEST = -1, -3, -4, 2**31 - 1
_LOCK = ".lock"
_OBJECTS = 20_000
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def cpus() -> int:
    """How many CPUs this process may use, of those that Slurm allotted where it did."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # a cluster without cgroups shows every job all of them
    allotted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return min(there, int(allotted)) if allotted.isdigit() and int(allotted) else there


def memory_gib() -> float:
    """Memory that this process and those beside it may use at most, in GiB; infinite where the system does not tell."""
    found = []
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    # of a container; "max" where it has no limit
    with suppress(OSError, ValueError):
        found.append(int(_CGROUP_LIMIT.read_text()))
    return min(found, default=float("inf")) / 2**30


def sleep_while_waiting() -> None:
    """Let threads that wait for each other sleep: spinning, two take ten times as long beside other busy processes.

    OpenMP reads it when torch is loaded; what the user has settled stays.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def collect_seldom() -> None:
    """Look for cyclic garbage seldom: what libraries make on import stays, and is many times that.

    Of `whqa assess` the searches took 0.73 of 8.8 CPU s, since then 0.27 of 7.8 (`gc.callbacks`, AMD EPYC).
    """
    if gc.isenabled():
        gc.set_threshold(_OBJECTS, *gc.get_threshold()[1:])
        # the interpreter's last search, through all that torch made, took 0.4 s of every command
        atexit.register(gc.freeze)


def keeps_memory() -> bool:
    """Whether `keep_memory` has something to do: there is glibc, and nobody who settled its allocator otherwise."""
    settled = any(name in os.environ for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"))
    return os.environ.get(KEEP_MEMORY) != "0" and not settled and hasattr(ctypes.CDLL(None), "mallopt")


def keep_memory() -> None:
    """Tell glibc to keep freed memory for the next allocation of this process, whatever its size."""
    if not keeps_memory():
        return
    mallopt = ctypes.CDLL(None).mallopt
    # older versions take no threshold above 32 MiB
    if not mallopt(_M_MMAP_THRESHOLD, _LARGEST):
        mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _LARGEST)


def seconds_since_start() -> float:
    """Wall time since this process was started; 0.0 where the system does not tell."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return 0.0


def is_first_rank() -> bool:
    """Whether this is the first process of a run, whoever starts the others: Lightning, torchrun or Slurm."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return int(next((rank for rank in ranks if rank), "0")) == 0


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, which says by whom it is held; the other ranks of a DDP run share rank 0's.

    Raises:
        InputError: another process works in the directory.
    """
    if not is_first_rank():
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    # not emptied: whoever holds it has signed it
    with (directory / _LOCK).open("a") as file:
        _acquire(file.fileno(), directory)
        mine = {"host": host_name(), "pid": os.getpid(), "since": time.time()}
        _sign(file.fileno(), mine)
        try:
            yield
        finally:
            _sign(file.fileno(), {**mine, "ended": True})


@dataclass(frozen=True)
class Lock:
    """The lock of a run's directory as somebody finds it who only looks.

    Attributes:
        held: a process holds it, as far as this machine can tell: other machines' locks show on some file systems only.
        host, pid, since: who holds it or held it last, and from when on (seconds since the epoch); None where it does
            not say, as one of an older version.
        ended: that process has let it go.
    """

    held: bool
    host: str | None
    pid: int | None
    since: float | None
    ended: bool

    @property
    def is_of_here(self) -> bool:
        """Whether this machine knows for certain that it is held, or not."""
        return self.host in (None, host_name())


def read_lock(directory: Path) -> Lock | None:
    """The lock of a run's directory, left as it is; None where no run ever held one.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with (directory / _LOCK).open("rb") as file:
            return Lock(_is_held(file.fileno()), *_signed(file.read()))
    except FileNotFoundError:
        return None


def host_name() -> str:
    """Of this machine, as it stands in a lock."""
    return os.uname().nodename


def _sign(descriptor: int, who: dict[str, object]) -> None:
    # a full disk keeps no run from working
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(who).encode())


def _signed(text: bytes) -> tuple[str | None, int | None, float | None, bool]:
    # of no matter what it holds
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        told = json.loads(text)
        return str(told["host"]), int(told["pid"]), float(told["since"]), bool(told.get("ended"))
    return None, None, None, False


def _is_held(descriptor: int) -> bool:
    try:
        # shared, so that those who look do not see each other; a run that begins now tries again
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


@contextmanager
def exclusive(path: Path, wait: bool) -> Iterator[bool]:
    """Hold the lock file `path`; yields False where another process holds it and `wait` is False.

    A file system without locks gives it to everybody.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            ours = True
        except OSError as error:
            ours = error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
        yield ours


def _acquire(descriptor: int, directory: Path) -> None:
    # a killed cross-validation's runs notice within about a second that they are orphans
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > deadline:
                raise InputError(f"{directory}: another process is at work here; wait for it or stop it") from None
            time.sleep(0.5)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Within it SIGTERM ends the work as Ctrl-C does, with KeyboardInterrupt; for the main thread.

    From that interrupt on Ctrl-C is ignored: pressed twice, it would end the process in the middle of its last words.
    A process that was started to ignore SIGTERM goes on to.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.getsignal(signal.SIGTERM)
    if previous != signal.SIG_IGN:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # where it came within exec(), of which imports are full, CPython would end by SIGINT whatever the exit code is,
        # until another one ends well
        exec("")
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def follow_parent() -> None:
    """Where the environment names a parent, end this process as soon as that parent is gone."""
    parent = os.environ.get(PARENT, "")
    if not parent.isdigit():
        return
    if os.getppid() != int(parent):
        # started by torchrun or a shell in between; or the parent died before we came here
        if _is_gone(parent):
            os._exit(1)
        return

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="follow-parent").start()


def _is_gone(pid: str) -> bool:
    """Whether a process has ended, also where nobody took note of its end yet; unknown without /proc, so False."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except OSError:
        return Path("/proc/self").exists()
