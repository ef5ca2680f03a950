"""The graph of a cross-validation as Slurm jobs: `whqa cv ... --launcher slurm`.

A run is a job, alike ones are an array. A job waits for those whose masks it needs (afterok), the last one, which makes
the table, for all (afterany). Nothing has to run on the submitting machine: whoever makes the same call again submits
what is neither complete nor in Slurm's hands.

A job that Slurm takes back, for another one or because its time is over, is warned by a signal, and submitit puts it
into the queue again under its own id, so that those who wait for it still do. It goes on from its last checkpoint, with
the same weights in the end as if nothing had happened.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from whqa.config.schema import Stage
from whqa.errors import InputError
from whqa.masks.run_state import LOG
from whqa.masks.sharing import share_run
from whqa.process import exclusive
from whqa.results.slurm_queue import Queued, Submitted, queued, write_submitted
from whqa.stages.schedule import Run, run_environment

_FOLDER = ".slurm"
# Of one array: Slurm's own limit (MaxArraySize) is 1001 unless a site changed it.
_MOST = 1000
# How long a job whose run was ended by a signal waits for Slurm to put it into the queue again, or to end it.
_TOLD_S = 120.0
# Of a training: 130 after SIGTERM, which whqa hears.
_BY_SIGNAL = (130, -signal.SIGTERM, -signal.SIGUSR1, -signal.SIGUSR2)
_OF_ALL = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "stderr_to_stdout")


@dataclass(frozen=True)
class RunJob:
    """A run as a job: what runs on the compute node."""

    command: tuple[str, ...]
    run: Run

    def __call__(self) -> None:
        """Run it as a process of its own, as `whqa.cv` does; what it prints goes to train.log in its directory."""
        for source, target in self.run.shares:
            share_run(source, target)
        self.run.directory.mkdir(parents=True, exist_ok=True)
        words = [*self.command, *self.run.words, f"stage={self.run.stage}", f"fold={self.run.fold}"]
        with (self.run.directory / LOG).open("ab") as log:
            code = subprocess.run(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=run_environment(1), check=False
            ).returncode
        if code in _BY_SIGNAL or (code == 0 and not self.run.complete):
            # Slurm's signals reach all processes of a job, and this one is about to be told or ended
            time.sleep(_TOLD_S)
        if code or not self.run.complete:
            raise SystemExit(code if code > 0 else 1)

    def checkpoint(self) -> Any:
        """Asked by submitit before it puts the job into the queue again: the same run, which has its own checkpoint."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class LastJob:
    """What makes the table, as a job."""

    make: Callable[[], int]

    def __call__(self) -> None:
        """Make it; where a run failed the job fails as well."""
        if code := self.make():
            raise SystemExit(code)

    def checkpoint(self) -> Any:
        """See `RunJob`."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


@dataclass(frozen=True)
class InHand:
    """What Slurm has in hand of a graph: by a run's name, jobs that are new and those that it had before; the last."""

    new: Mapping[str, str]
    before: Mapping[str, Queued]
    last: str


@dataclass(frozen=True)
class Slurm:
    """A cluster, and what jobs ask it for: keys of submitit's executor, see `whqa.config.launcher`."""

    settings: Mapping[str, Any]

    def submit(self, runs: Sequence[Run], directory: Path, command: Sequence[str], last: Callable[[], int]) -> InHand:
        """Submit what is neither complete nor in the queue, then a last job after all.

        Args:
            runs: the graph.
            directory: runs/<experiment> or runs/<sweep>; what submitit writes goes below it.
            command: that trains a run, before its words.
            last: makes the table.

        Raises:
            InputError: there is no Slurm here, it does not answer, or it refuses a job.
        """
        _refuse_no_slurm()
        directory.mkdir(parents=True, exist_ok=True)
        with exclusive(directory / _FOLDER / "lock", wait=True):
            there = queued([*(run.directory for run in runs), directory])
            there = {path: job for path, job in there.items() if job.whole or not _cancelled(job)}
            known = {run.name: there[run.directory] for run in runs if run.directory in there}
            ids = {name: job.job for name, job in known.items()}
            missing = [run for run in runs if not run.complete and run.name not in ids]
            new: dict[str, str] = {}
            for alike in _alike(missing):
                needs = [(ids | new)[need] for need in sorted(alike[0].needs) if need in ids or need in new]
                new |= self._array(alike, directory, command, needs)
            if not missing and directory in there:
                return InHand({}, known, there[directory].job)
            if directory in there:
                _cancelled(there[directory])
            arrays = sorted({job.partition("_")[0] for job in (ids | new).values()}, key=int)
            return InHand(new, known, self._last(directory, last, arrays))

    def _array(self, runs: Sequence[Run], directory: Path, command: Sequence[str], needs: list[str]) -> dict[str, str]:
        name = _job_name(directory, runs[0].stage)
        for task, run in enumerate(runs):
            write_submitted(run.directory, Submitted(name, task, None))
        jobs = self._submitted(directory, name, [RunJob(tuple(command), run) for run in runs], "afterok", needs)
        for task, (run, job) in enumerate(zip(runs, jobs, strict=True)):
            write_submitted(run.directory, Submitted(name, task, job))
        return {run.name: job for run, job in zip(runs, jobs, strict=True)}

    def _last(self, directory: Path, last: Callable[[], int], needs: list[str]) -> str:
        name = _job_name(directory, "table")
        write_submitted(directory, Submitted(name, 0, None))
        (job,) = self._submitted(directory, name, [LastJob(last)], "afterany", needs)
        write_submitted(directory, Submitted(name, 0, job))
        return job

    def _submitted(
        self, directory: Path, name: str, calls: Sequence[Callable[[], None]], after: str, needs: Sequence[str]
    ) -> list[str]:
        from submitit import AutoExecutor
        from submitit.core.utils import FailedJobError

        settings = dict(self.settings)
        more = {"kill-on-invalid-dep": "yes", **(settings.pop("additional_parameters", None) or {})}
        if needs:
            more["dependency"] = f"{after}:{':'.join(needs)}"
        timeouts = settings.pop("max_num_timeout")
        words = {key if key in _OF_ALL else f"slurm_{key}": value for key, value in settings.items()}
        try:
            executor = AutoExecutor(directory / _FOLDER, cluster="slurm", slurm_max_num_timeout=timeouts)
            executor.update_parameters(name=name, slurm_additional_parameters=more, **words)
            with executor.batch():
                jobs = [executor.submit(call) for call in calls]
        except (FailedJobError, ValueError) as error:
            raise InputError(f"sbatch: {error}; correct hydra.launcher.*, and the same command continues") from None
        return [str(job.job_id) for job in jobs]


def _alike(missing: Sequence[Run]) -> list[list[Run]]:
    """Runs that wait for the same ones, and can be an array; whoever waits comes after those that he waits for."""
    groups: dict[tuple[str, frozenset[str]], list[Run]] = {}
    for run in sorted(missing, key=lambda run: run.stage != Stage.segmenter):
        groups.setdefault((run.stage, run.needs), []).append(run)
    return [group[i : i + _MOST] for group in groups.values() for i in range(0, len(group), _MOST)]


def _job_name(directory: Path, what: str) -> str:
    """As no other job is called; a comma would part names in squeue's own list."""
    return f"{re.sub('[^A-Za-z0-9_.=+-]+', '-', directory.name)}-{what}-{uuid.uuid4().hex[:8]}"


def _cancelled(job: Queued) -> bool:
    return subprocess.run(["scancel", job.job], capture_output=True, check=False).returncode == 0


def _refuse_no_slurm() -> None:
    for program in ("sbatch", "srun", "squeue", "scancel"):
        if shutil.which(program) is None:
            raise InputError(
                f"--launcher slurm: no {program} on this machine; call it where jobs are submitted from, or leave "
                "--launcher out to train here"
            )


def tell(found: InHand, runs: Sequence[Run], directory: Path, console: Console) -> None:
    """Which jobs there are, and where to look."""
    for stage in dict.fromkeys(run.stage for run in runs):
        ids = [found.new[run.name] for run in runs if run.stage == stage and run.name in found.new]
        if ids:
            jobs = ", ".join(dict.fromkeys(job.partition("_")[0] for job in ids))
            console.print(f"submitted: {len(ids)} {stage} run(s), job {jobs}", highlight=False, soft_wrap=True)
    if found.before:
        console.print(f"in Slurm's hands before: {len(found.before)} run(s)", highlight=False)
    done = sum(run.complete for run in runs)
    console.print(f"complete: {done} of {len(runs)} runs", highlight=False)
    log = directory / _FOLDER / f"{found.last}_0_log.out"
    console.print(f"the table will be in {log} (job {found.last})", highlight=False, soft_wrap=True)
    console.print(f"see what they do: whqa status {shlex.quote(str(directory))}", highlight=False, soft_wrap=True)
