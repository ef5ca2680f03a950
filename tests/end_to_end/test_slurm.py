"""A cross-validation and a sweep on a real Slurm, disturbed, end with the numbers that they have without one."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_HERE = runpy.run_path(str(Path(__file__).with_name("slurm_here.py")))
lacking, slurm_here = _HERE["lacking"], _HERE["slurm_here"]

Tiny = Callable[[Path], list[str]]
Read = Callable[[Path], list[dict[str, str]]]
Table = Callable[[Path], dict[str, Any]]

LAUNCH = ("--launcher", "slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.timeout_min=60")
# two folds: a run takes seconds, most of them to import torch
VALUES = ("folds=2", "errormap.head=label,binary", "errormap.dice_weight=0.5,1.0")
PATIENCE_S = 900.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(lacking()), reason=f"a real Slurm: {lacking()}"),
]


class Cluster:
    """Commands within a Slurm, in a folder."""

    def __init__(self, env: dict[str, str], root: Path) -> None:
        self.root = root
        # as many threads here as there, or the last digits differ
        paths = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [env.get("PYTHONPATH")])])
        self.env = {**env, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}

    def said(self, *command: str) -> str:
        done = subprocess.run(command, env=self.env, cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        print(f"$ {' '.join(command[:4])} ...\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def whqa(self, *words: str) -> str:
        return self.said(sys.executable, "-m", "whqa", *words)

    def jobs(self) -> list[list[str]]:
        """Id, name, state of every job and task."""
        return [line.split("|") for line in self.said("squeue", "-h", "-r", "-o", "%i|%j|%T|%r").splitlines()]

    def wait(self, there: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE_S
        while not (found := there()):
            assert time.monotonic() < end, f"waited for {what}: {self.said('squeue')}"
            time.sleep(0.2)
        return found

    def hasten(self) -> None:
        """Slurm lets a job that was put back wait for two minutes; who waits for others is left alone."""
        for job, _, state, reason in self.jobs():
            if (state, reason) == ("PENDING", "BeginTime"):
                self.said("scontrol", "update", f"JobId={job}", "StartTime=now")

    def all_done(self) -> bool:
        self.hasten()
        return not self.jobs()


@pytest.fixture(scope="module")
def env() -> Iterator[dict[str, str]]:
    with slurm_here() as found:
        yield found


@pytest.fixture
def cluster(env: dict[str, str], tmp_path: Path) -> Cluster:
    return Cluster(env, tmp_path)


def points(sweep: Path) -> list[dict[str, Any]]:
    return json.loads((sweep / "sweep.json").read_text())["points"]


def test_a_cross_validation_is_taken_back_drained_and_ends_as_it_does_here(
    cluster: Cluster, phantoms: Path, tiny: Tiny, rows_of: Read, table_of: Table
) -> None:
    root = cluster.root
    shutil.copytree(phantoms, root, dirs_exist_ok=True)
    here, there = ([*tiny(root), f"runs_dir={root / name}"] for name in ("here", "runs"))
    cluster.whqa("cv", *here, "--jobs", "2")
    experiment = root / "runs" / "tiny"
    told = cluster.whqa("cv", *there, *LAUNCH)
    assert "submitted: 3 segmenter run(s)" in told
    assert "submitted: 3 errormap run(s)" in told
    jobs = {name: job for job, name, *_ in cluster.jobs()}
    # one node for two: the third segmenter waits, and the other node's job ends as it may
    cluster.said("scontrol", "update", "NodeName=two", "State=DRAIN", "Reason=test")
    # the first that has saved something is taken back
    run = experiment / "segmenter" / "0"
    cluster.wait((run / "checkpoints" / "last.ckpt").exists, "a checkpoint")
    job = json.loads((run / "slurm.json").read_text())["job"]
    cluster.said("scancel", "--signal=USR2", job)
    cluster.wait(lambda: [j for j in cluster.jobs() if (j[0], j[2]) == (job, "PENDING")], "the job in the queue")
    assert not (run / "COMPLETED").exists()
    state = json.loads(cluster.said(sys.executable, "-m", "whqa", "status", str(experiment), "--json"))
    found = state[str(experiment)]["runs"]["segmenter/0"]
    assert (found["state"], found["job"]) == ("waiting", job)
    assert found["resumes_from"] in (12, 24)
    assert "submitted" not in cluster.whqa("cv", *there, *LAUNCH)
    cluster.said("scontrol", "update", "NodeName=two", "State=RESUME")
    cluster.wait(cluster.all_done, "the end of all jobs")
    assert table_of(experiment) == table_of(root / "here" / "tiny")
    for fold in "012":
        for stage in ("segmenter", "errormap"):
            one, other = (root / name / "tiny" / stage / fold / "metrics.csv" for name in ("here", "runs"))
            assert rows_of(one) == rows_of(other)
    restarts = re.search(r"Restarts=(\d+)", cluster.said("scontrol", "show", "job", job))
    assert restarts is not None
    assert int(restarts[1]) == 1
    table = max(jobs.values(), key=lambda name: int(name.partition("_")[0]))
    log = (experiment / ".slurm" / f"{table}_0_log.out").read_text()
    print(log)
    assert "tiny: 3 folds, mean" in log
    # with nothing missing the same call prints the table
    assert "tiny: 3 folds, mean" in cluster.whqa("cv", *there, *LAUNCH)


def test_a_sweep_whose_caller_is_killed_ends_with_the_table_that_it_has_here(
    cluster: Cluster, phantoms: Path, tiny: Tiny
) -> None:
    root = cluster.root
    shutil.copytree(phantoms, root, dirs_exist_ok=True)
    here, there = ([*tiny(root), *VALUES, f"runs_dir={root / name}"] for name in ("here", "runs"))
    cluster.whqa("sweep", *here, "--jobs", "2")
    sweep = next((root / "here").glob("*/sweep.json")).parent.name
    # killed as soon as Slurm has the first array, which then lacks what the caller writes after that
    sbatch = shutil.which("sbatch", path=cluster.env["PATH"])
    deadly = root / "deadly" / "sbatch"
    deadly.parent.mkdir()
    deadly.write_text(f'#!/bin/sh\n{sbatch} "$@"\nkill -9 $PPID\n')
    deadly.chmod(0o755)
    killed = subprocess.run(
        [sys.executable, "-m", "whqa", "sweep", *there, *LAUNCH],
        env={**cluster.env, "PATH": f"{deadly.parent}{os.pathsep}{cluster.env['PATH']}"},
        cwd=root,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(cluster.jobs()) == 2
    told = cluster.whqa("sweep", *there, *LAUNCH)
    assert "submitted: 2 segmenter run(s)" in told
    assert "submitted: 8 errormap run(s)" in told
    assert "submitted" not in cluster.whqa("sweep", *there, *LAUNCH)
    cluster.wait(cluster.all_done, "the end of all jobs")
    assert points(root / "runs" / sweep) == points(root / "here" / sweep)
    one, other = (root / name / sweep / "sweep.csv" for name in ("here", "runs"))
    assert one.read_text() == other.read_text()
    print(one.read_text(), other.read_text(), sep="\n")
    # every run was trained once
    for log in (root / "runs").glob("*/*/errormap/*/train.log"):
        assert log.read_text().count("done: ") == 1
    trained = [run for run in (root / "runs").glob("*/*/segmenter/*") if (run / "slurm.json").exists()]
    assert len(trained) == 2


def test_a_run_that_fails_is_named_and_submitted_again_alone(
    cluster: Cluster, phantoms: Path, tiny: Tiny, table_of: Table
) -> None:
    root = cluster.root
    shutil.copytree(phantoms, root, dirs_exist_ok=True)
    experiment = root / "runs" / "tiny"
    cluster.whqa("cv", *tiny(root), *LAUNCH)
    job = json.loads((experiment / "segmenter" / "1" / "slurm.json").read_text())["job"]
    cluster.wait(lambda: [j for j in cluster.jobs() if j[0] == job and j[2] == "RUNNING"], "segmenter/1")
    cluster.said("scancel", job)
    cluster.wait(cluster.all_done, "the end of all jobs")
    table = json.loads((experiment / "slurm.json").read_text())["job"]
    said = (experiment / ".slurm" / f"{table}_0_log.err").read_text()
    print(said)
    assert "not run: errormap/0 waits for segmenter/1" in said
    assert "the same command runs again what is missing" in said
    told = cluster.whqa("cv", *tiny(root), *LAUNCH)
    assert "submitted: 1 segmenter run(s)" in told
    assert "submitted: 3 errormap run(s)" in told
    cluster.wait(cluster.all_done, "the end of all jobs")
    assert table_of(experiment)["cohort"]["folds"] == 3
