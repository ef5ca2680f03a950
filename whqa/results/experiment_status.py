"""What has become of every run of an experiment, from the files of its directory.

done      it holds COMPLETED, and the files that others read
running   a process holds its lock, or one of another machine gave a sign of life just now
failed    its last attempt ended with an error, or a file of its results is gone
stopped   it has begun and nobody works on it: interrupted, killed, or its machine is gone
waiting   it has not begun, or Slurm took it back: for other runs, or for its turn

Of runs that were submitted to Slurm, Slurm is asked as well, where it answers.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import yaml

from whqa.data.folds import read_folds
from whqa.errors import InputError
from whqa.masks.plan import MaskPlan, chosen_by
from whqa.masks.run_state import LOG, has_begun, is_complete, logged_failure, lost_file, noted_failure
from whqa.process import Lock, read_lock
from whqa.results.run_progress import PROGRESS, Progress, read_progress, saved_step
from whqa.results.slurm_queue import JOB, Queued, queued

State = Literal["done", "running", "failed", "stopped", "waiting"]
RUN_STATES: tuple[State, ...] = get_args(State)
# How long a run on another machine may write nothing, as while it reads the scans or fits the baselines.
SILENT_S = 900.0
_FOLDS = "folds.json"
_MAKES_ONE = "`whqa cv experiment=...` makes one"
# Below a folder: runs/<experiment>, or <sweep>/<experiment> of runs/.
_DEPTH = 2


class RunStatus(TypedDict):
    """One run.

    Attributes:
        state: see the top of this file.
        done: share of its work, 0 to 1.
        phase: "training" or "testing", of a run that runs and has begun with it.
        step, of: optimiser steps of the training, volumes of the test.
        left_s: seconds to the end of a run that runs; null where its speed is not known yet.
        host, pid: who works on it, or did last; null where it has not begun, or an older version made it.
        resumes_from: optimiser step of the last checkpoint of a run that failed or stopped; null without one.
        waits_for: runs whose masks it needs and that are not done.
        why: of a failed run, or what makes one of another machine count as stopped.
        log: its file, of a failed run that has one.
        job: in Slurm, its id; null of a run that Slurm has not, or no longer, in hand.
    """

    state: State
    done: float
    phase: str | None
    step: int | None
    of: int | None
    left_s: float | None
    host: str | None
    pid: int | None
    resumes_from: int | None
    waits_for: list[str]
    why: str | None
    log: str | None
    job: str | None


class ExperimentStatus(TypedDict):
    """One experiment; where its folds.json cannot be read, `error` says why and the rest is empty."""

    plan: str | None
    folds: int | None
    runs: dict[str, RunStatus]
    error: str | None


def status(directory: Path) -> dict[str, ExperimentStatus]:
    """Experiment's directory -> what has become of its runs, segmenters first.

    Args:
        directory: runs/<experiment>, or a folder of experiments such as runs.

    Raises:
        InputError: there is no such directory, it holds no experiment, or it is one whose folds.json is damaged.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; {_MAKES_ONE} in runs")
    places = [directory] if (directory / _FOLDS).exists() else list(_experiments(directory, _DEPTH))
    queue = _queue(places)
    if places == [directory]:
        return {str(directory): _experiment(directory, queue)}
    found: dict[str, ExperimentStatus] = {}
    for path in places:
        try:
            found[str(path)] = _experiment(path, queue)
        # one that is damaged does not hide the others
        except InputError as error:
            found[str(path)] = _unreadable(str(error))
        except OSError as error:
            found[str(path)] = _unreadable(f"{error.filename or path}: {error.strerror}")
    if not found:
        raise InputError(f"{directory}: no experiment and no folder of experiments; {_MAKES_ONE} in runs")
    return found


def _experiments(directory: Path, depth: int) -> Iterator[Path]:
    if (directory / _FOLDS).exists():
        yield directory
    elif depth:
        with suppress(OSError):
            for path in sorted(path for path in directory.iterdir() if path.is_dir()):
                yield from _experiments(path, depth - 1)


def _queue(places: Iterable[Path]) -> Mapping[Path, Queued]:
    """Runs that Slurm has in hand; where it does not answer, the files alone tell."""
    with suppress(InputError):
        return queued(path.parent for place in places for path in place.glob(f"*/*/{JOB}"))
    return {}


def _unreadable(why: str) -> ExperimentStatus:
    return {"plan": None, "folds": None, "runs": {}, "error": why}


def _experiment(directory: Path, queue: Mapping[Path, Queued]) -> ExperimentStatus:
    path = directory / _FOLDS
    folds = read_folds(path, _MAKES_ONE)
    try:
        plan = MaskPlan(folds["plan"], len(folds["folds"]))
    except InputError as error:
        raise InputError(f"{path}: {error}; start anew: rm -r {shlex.quote(str(directory))}") from None
    graph = plan.graph(_needs_segmenters(directory))
    runs = {name: _run(directory / name, queue.get(directory / name)) for name in graph}
    for name, needs in graph.items():
        runs[name]["waits_for"] = [need for need in graph if need in needs and runs[need]["state"] != "done"]
    return {"plan": plan.name, "folds": plan.n_folds, "runs": runs, "error": None}


def _needs_segmenters(directory: Path) -> bool:
    """Whether the experiment judges masks of its own: its runs know; before there is any, most do."""
    if (directory / "segmenter").is_dir():
        return True
    for path in sorted((directory / "errormap").glob("*/config.yaml")):
        # of no matter what it holds
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError, InputError):
            masks = yaml.safe_load(path.read_text("utf-8"))["masks"]
            return chosen_by(masks).needs_segmenters
    return True


def _run(run_dir: Path, job: Queued | None) -> RunStatus:
    lock, progress = read_lock(run_dir), read_progress(run_dir)
    if is_complete(run_dir):
        lost = lost_file(run_dir)
        return _status("failed", lock, why=lost) if lost else _status("done", lock, done=1.0)
    done = round(progress.share, 4) if progress else 0.0
    if job is not None:
        return _in_queue(run_dir, job, lock, progress, done)
    silent_s = _silent_s(run_dir, lock)
    if lock and (lock.held or silent_s < SILENT_S):
        return _running(lock, progress, done)
    # whoever signs its lock notes its own failures; of others there is the log
    why = noted_failure(run_dir) or (logged_failure(run_dir) if lock is None or lock.host is None else None)
    if why:
        log = str(run_dir / LOG) if (run_dir / LOG).is_file() else None
        return _status("failed", lock, done=done, resumes_from=saved_step(run_dir), why=why, log=log)
    if lock is None and not has_begun(run_dir):
        return _status("waiting", lock)
    why = _no_sign(lock, silent_s) if lock and silent_s < float("inf") else None
    return _status("stopped", lock, done=done, resumes_from=saved_step(run_dir), why=why)


def _in_queue(run_dir: Path, job: Queued, lock: Lock | None, progress: Progress | None, done: float) -> RunStatus:
    if not job.waits:
        return _running(lock, progress, done) | {"job": job.job}
    why = f"job {job.job} in Slurm's queue" + (f" ({job.reason})" if job.reason != "None" else "")
    return _status("waiting", lock, done=done, resumes_from=saved_step(run_dir), why=why, job=job.job)


def _running(lock: Lock | None, progress: Progress | None, done: float) -> RunStatus:
    # what an earlier attempt told is no news of this one, but for how much is done
    if lock is None or progress is None or progress.at < (lock.since or 0):
        return _status("running", lock, done=done)
    return _status(
        "running",
        lock,
        done=done,
        phase=progress.phase,
        step=progress.step,
        of=progress.of,
        left_s=None if progress.left_s is None else round(progress.left_s, 1),
    )


def _silent_s(run_dir: Path, lock: Lock | None) -> float:
    """How long a process of another machine has given no sign of life; infinite where the lock itself tells the end."""
    if lock is None or lock.is_of_here or lock.ended:
        return float("inf")
    told = [run_dir / PROGRESS, run_dir / LOG]
    return max(0.0, time.time() - max([lock.since or 0.0, *(path.stat().st_mtime for path in told if path.exists())]))


def _no_sign(lock: Lock, silent_s: float) -> str:
    return f"no sign of life from {lock.host} for {silent_s / 60:.0f} min"


def _status(state: State, lock: Lock | None, **told: Any) -> RunStatus:
    empty: RunStatus = {
        "state": state,
        "done": 0.0,
        "phase": None,
        "step": None,
        "of": None,
        "left_s": None,
        "host": lock.host if lock else None,
        "pid": lock.pid if lock else None,
        "resumes_from": None,
        "waits_for": [],
        "why": None,
        "log": None,
        "job": None,
    }
    return {**empty, **told}  # type: ignore[typeddict-item]
