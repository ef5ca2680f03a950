"""A Slurm of two nodes on this machine's loopback, for as long as a command takes.

    python tests/end_to_end/slurm_here.py whqa cv experiment=demo --launcher slurm hydra.launcher.cpus_per_task=1
    python tests/end_to_end/slurm_here.py bash          # a shell within it: sinfo, squeue, scancel, ...

Wants Debian's packages slurm-wlm and munge, and root, as slurmd does. Nothing of it lies outside a temporary folder.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
NODES = ("one", "two")
_SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CONF = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MpiDefault=none
ReturnToService=2
KillWait=5
{nodes}
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def lacking() -> str:
    """Why there can be no Slurm here; empty where there can."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=_SBIN) is None]
    if absent:
        return f"no {', '.join(absent)} here: apt-get install slurm-wlm munge"
    return "" if os.geteuid() == 0 else "slurmd wants root"


@contextmanager
def slurm_here(cpus: int = 1) -> Iterator[dict[str, str]]:
    """Start it, yield the environment in which its commands and jobs work, end it with all its jobs.

    Args:
        cpus: that each node pretends to have.
    """
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, ExitStack() as stack:
        root = Path(folder)
        # munged trusts no folder that others may write to
        root.chmod(0o755)
        ports = _free_ports(1 + len(NODES))
        nodes = [
            f"NodeName={name} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} "
            "RealMemory=1000 State=UNKNOWN"
            for name, port in zip(NODES, ports[1:], strict=True)
        ]
        text = _CONF.format(
            host=socket.gethostname(), ports=ports, root=root, user=getpass.getuser(), nodes="\n".join(nodes)
        )
        (root / "slurm.conf").write_text(text)
        (root / "state").mkdir()
        (root / "munge.key").write_bytes(os.urandom(1024))
        (root / "munge.key").chmod(0o600)
        env = {**os.environ, "SLURM_CONF": str(root / "slurm.conf"), "PATH": _SBIN}
        places = [f"--{name}-file={root}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        _start(stack, env, ["munged", "--foreground", "--force", f"--socket={root}/munge.socket", *places])
        _wait_for(lambda: (root / "munge.socket").exists(), "munged")
        _start(stack, env, ["slurmctld", "-D", "-i"])
        for name in NODES:
            (root / f"spool-{name}").mkdir()
            _start(stack, env, ["slurmd", "-D", "-N", name])
        stack.callback(_cancel_all, env)
        _wait_for(lambda: _idle(env) == len(NODES), "the nodes of Slurm")
        yield env


def _start(stack: ExitStack, env: dict[str, str], command: list[str]) -> None:
    process = subprocess.Popen(
        command,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def end() -> None:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    stack.callback(end)


def _cancel_all(env: dict[str, str]) -> None:
    subprocess.run(["scancel", "--partition=all"], env=env, check=False, capture_output=True)
    with suppress(TimeoutError):
        _wait_for(lambda: not _said(env, "squeue", "--noheader"), "the end of its jobs")


def _idle(env: dict[str, str]) -> int:
    return _said(env, "sinfo", "--noheader", "-N", "--format=%T").split().count("idle")


def _said(env: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False).stdout.strip()


def _wait_for(there: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not there():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


if __name__ == "__main__":
    if lacking():
        sys.exit(lacking())
    with slurm_here() as environment:
        sys.exit(subprocess.run(sys.argv[1:], env=environment, check=False).returncode)
