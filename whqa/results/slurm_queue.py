"""Which runs Slurm knows of: by a name that a run's directory keeps, from before it is submitted.

runs/<experiment>/<stage>/<fold>/slurm.json     name of the job, its number in an array, its id once sbatch told it

The name is there first: whoever is killed while he submits leaves no job that nobody finds again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from whqa.errors import InputError
from whqa.files import write_json

JOB = "slurm.json"
_WAIT_S = 60.0
# name, id of the job or array, number in the array or N/A, state, why it waits
_FORMAT = "%j|%F|%K|%T|%r"


@dataclass(frozen=True)
class Submitted:
    """What a run's directory keeps of its job.

    Attributes:
        name: of the job, as no other one is called.
        task: its number in an array, 0 otherwise.
        job: its id, "12" or "12_3"; None where the submission was cut off.
    """

    name: str
    task: int
    job: str | None


@dataclass(frozen=True)
class Queued:
    """A job that Slurm has not done with.

    Attributes:
        job: its id, "12" or "12_3".
        state: Slurm's word, such as PENDING or RUNNING.
        reason: why it waits, such as Priority or Dependency; "None" of one that runs.
        whole: its submission was not cut off.
    """

    job: str
    state: str
    reason: str
    whole: bool = True

    @property
    def waits(self) -> bool:
        """Whether nothing of it runs yet, or any more."""
        return self.state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING")


def write_submitted(directory: Path, submitted: Submitted) -> None:
    """Keep it in a run's directory."""
    write_json(directory / JOB, {"name": submitted.name, "task": submitted.task, "job": submitted.job})


def read_submitted(directory: Path) -> Submitted | None:
    """What a run's directory keeps of its job; None where it was never submitted, or nothing readable is left."""
    # of no matter what it holds
    with suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads((directory / JOB).read_bytes())
        return Submitted(str(told["name"]), int(told["task"]), None if told["job"] is None else str(told["job"]))
    return None


def queued(directories: Iterable[Path]) -> dict[Path, Queued]:
    """Directory of a run -> its job, of those that Slurm has not done with; one question for all.

    Raises:
        InputError: jobs were submitted from here, and Slurm does not answer.
    """
    known = {path: found for path in directories if (found := read_submitted(path))}
    jobs = _ask({found.name for found in known.values()}) if known else {}
    mine = {path: jobs.get((found.name, found.task)) for path, found in known.items()}
    return {path: Queued(*job, whole=known[path].job is not None) for path, job in mine.items() if job is not None}


def _ask(names: set[str]) -> Mapping[tuple[str, int], tuple[str, str, str]]:
    if shutil.which("squeue") is None:
        raise InputError("squeue: no such program here; ask where the jobs were submitted from")
    command = ["squeue", "--noheader", "--array", f"--format={_FORMAT}", f"--name={','.join(sorted(names))}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(f"squeue: no answer within {_WAIT_S:.0f} s; try again later") from None
    if done.returncode != 0:
        raise InputError(f"squeue: {done.stderr.strip() or 'failed'}; try again later")
    jobs = {}
    for line in done.stdout.splitlines():
        name, job, task, state, reason = line.split("|")
        number = int(task) if task.isdigit() else None
        jobs[name, number or 0] = (job if number is None else f"{job}_{number}", state, reason)
    return jobs
