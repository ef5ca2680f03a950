"""The graph as Slurm jobs, before a Slurm that runs nothing; a real one is in tests/end_to_end/test_slurm.py."""

from __future__ import annotations

import io
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console

import whqa.stages.slurm
from whqa.config.launcher import slurm_settings
from whqa.config.words import compose_config
from whqa.cv import plan_runs
from whqa.errors import InputError
from whqa.masks.plan import MaskPlan, PlanName
from whqa.masks.sharing import share_run
from whqa.results.experiment_status import status
from whqa.results.slurm_queue import read_submitted
from whqa.stages.schedule import Run
from whqa.stages.slurm import InHand, LastJob, RunJob, Slurm, tell

Submit = Callable[..., InHand]


_config, _settings = cache(lambda: compose_config(["experiment=demo"])), cache(slurm_settings)


def made(root: Path, plan: PlanName = "out_of_fold") -> list[Run]:
    return plan_runs(_config(), root / "runs" / "x", MaskPlan(plan, 3), ("a=b",))


@pytest.fixture
def submit(tmp_path: Path, slurm: Path) -> Submit:
    def ask(plan: PlanName = "out_of_fold", *words: str) -> InHand:
        cluster = Slurm(_settings(words))
        return cluster.submit(made(tmp_path, plan), tmp_path / "runs" / "x", ["train"], _zero)

    return ask


def _zero() -> int:
    return 0


def _three() -> int:
    return 3


def script(slurm: Path, job: int | str) -> str:
    return (slurm / "jobs" / str(job)).read_text()


def after(slurm: Path, job: int | str) -> str | None:
    found = re.search(r"^#SBATCH --dependency=(.*)$", script(slurm, job), re.MULTILINE)
    return found and found[1]


def complete(run: Run) -> None:
    run.directory.mkdir(parents=True, exist_ok=True)
    (run.directory / "COMPLETED").touch()


def test_alike_runs_are_an_array_and_each_waits_for_its_masks(slurm: Path, submit: Submit, tmp_path: Path) -> None:
    found = submit()
    runs = [*(f"segmenter/{k}" for k in range(3)), *(f"errormap/{k}" for k in range(3))]
    assert found.new == dict(zip(runs, ["1_0", "1_1", "1_2", "2_0", "2_1", "2_2"], strict=True))
    assert (found.before, found.last) == ({}, "3")
    assert [after(slurm, k) for k in (1, 2, 3)] == [None, "afterok:1_0:1_1:1_2", "afterany:1:2"]
    assert "#SBATCH --array=0-2%3\n" in script(slurm, 1)
    assert all("#SBATCH --kill-on-invalid-dep=yes\n" in script(slurm, k) for k in (1, 2, 3))


def test_a_network_of_a_nested_plan_waits_for_its_own_segmenters_alone(
    slurm: Path, submit: Submit, tmp_path: Path
) -> None:
    found = submit("nested")
    runs = {run.name: run for run in made(tmp_path, "nested")}
    assert len(list((slurm / "jobs").iterdir())) == 1 + 3 + 1
    for k in range(3):
        waits = after(slurm, found.new[f"errormap/{k}"])
        assert waits == "afterok:" + ":".join(found.new[need] for need in sorted(runs[f"errormap/{k}"].needs))


def test_settings_reach_the_scripts(slurm: Path, submit: Submit) -> None:
    submit(
        "out_of_fold",
        *("hydra.launcher.partition=gpu", "hydra.launcher.account=heart", "hydra.launcher.gpus_per_node=2"),
        *("hydra.launcher.timeout_min=90", "hydra.launcher.cpus_per_task=6", "hydra.launcher.mem_gb=12"),
        "+hydra.launcher.additional_parameters={mail-type: END}",
    )
    stated = ("partition=gpu", "account=heart", "gpus-per-node=2", "time=90", "cpus-per-task=6", "mem=12GB")
    for job in (1, 2, 3):
        for line in (*stated, "mail-type=END", "kill-on-invalid-dep=yes", "signal=USR2@120", "ntasks-per-node=1"):
            assert f"#SBATCH --{line}\n" in script(slurm, job)


def test_the_same_call_submits_what_is_missing_alone(slurm: Path, submit: Submit, tmp_path: Path) -> None:
    first = submit()
    runs = made(tmp_path)
    again = submit()
    assert (again.new, set(again.before), again.last) == ({}, {run.name for run in runs}, "3")
    assert len(list((slurm / "jobs").iterdir())) == 3
    # one is done, one failed, and the networks with it
    complete(runs[0])
    (slurm / "queue").write_text("\n".join(x for x in (slurm / "queue").read_text().split() if "|1|1|" in x) + "\n")
    third = submit()
    assert set(third.before) == {"segmenter/1"}
    assert third.before["segmenter/1"].job == first.new["segmenter/1"] == "1_1"
    assert third.new == {"segmenter/2": "4", **{f"errormap/{k}": f"5_{k}" for k in range(3)}}
    assert (after(slurm, 5), after(slurm, 6)) == ("afterok:1_1:4", "afterany:1:4:5")


def test_a_table_that_waits_for_too_few_is_cancelled(slurm: Path, submit: Submit, tmp_path: Path) -> None:
    submit()
    queue = (slurm / "queue").read_text().splitlines()
    (slurm / "queue").write_text("".join(f"{line}\n" for line in queue if "|1|2|" not in line))
    assert submit().last == "5"
    assert (slurm / "cancelled").read_text() == "3\n"
    assert after(slurm, 5) == "afterany:1:2:4"


def test_jobs_of_a_caller_who_was_killed_are_found_and_submitted_anew(
    slurm: Path, submit: Submit, tmp_path: Path
) -> None:
    """Whole jobs have files that the caller writes after sbatch; without them they would fail when they begin."""
    (slurm / "deadly").touch()
    program = (
        "import sys; from pathlib import Path; from tests_slurm import made, _zero\n"
        "from whqa.stages.slurm import Slurm; from whqa.config.launcher import slurm_settings\n"
        "root = Path(sys.argv[1]); Slurm(slurm_settings([])).submit(made(root), root / 'runs' / 'x', ['train'], _zero)"
    )
    (tmp_path / "tests_slurm.py").symlink_to(__file__)
    path = os.pathsep.join([str(tmp_path), *sys.path])
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env={**os.environ, "PYTHONPATH": path}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert len((slurm / "queue").read_text().splitlines()) == 3
    (slurm / "deadly").unlink()
    found = submit()
    assert found.before == {}
    assert found.new["segmenter/0"] == "2_0"
    # the first scancel takes the array from this Slurm's queue
    assert (slurm / "cancelled").read_text().split() == ["1_0", "1_1", "1_2"]


def test_what_cannot_be_submitted_is_told_in_one_line(
    slurm: Path, submit: Submit, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"invalid partition specified: nowhere; correct hydra\.launcher"):
        submit("out_of_fold", "hydra.launcher.partition=nowhere")
    with pytest.raises(InputError, match=r"no key 'hydra.launcher.partion'.*did you mean 'hydra.launcher.partition'"):
        submit("out_of_fold", "hydra.launcher.partion=gpu")
    (slurm / "mute").touch()
    with pytest.raises(InputError, match="squeue: slurm_load_jobs error: Unable to contact slurm controller"):
        submit()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--launcher slurm: no sbatch on this machine"):
        submit()


def test_a_job_runs_its_run_and_fails_as_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whqa.stages.slurm, "_TOLD_S", 0.0)
    run = Run("segmenter", "0", tmp_path / "segmenter" / "0", 1.0, words=("a=b",))
    program = "import sys; print(sys.argv[1:]); sys.exit({})"
    for code in (2, 130):
        with pytest.raises(SystemExit) as end:
            RunJob((sys.executable, "-S", "-c", program.format(code)), run)()
        assert end.value.code == code
    # what Lightning ends with after SIGTERM
    with pytest.raises(SystemExit) as end:
        RunJob((sys.executable, "-S", "-c", program.format(0)), run)()
    assert end.value.code == 1
    complete(run)
    RunJob((sys.executable, "-S", "-c", program.format(0)), run)()
    line = "['a=b', 'stage=segmenter', 'fold=0']\n"
    assert (run.directory / "train.log").read_text() == 4 * line


def test_a_job_finds_the_segmenters_of_another_point(tmp_path: Path) -> None:
    source = Run("segmenter", "0", tmp_path / "a" / "segmenter" / "0", 1.0)
    complete(source)
    (source.directory / "slurm.json").write_text("{}")
    run = Run("errormap", "0", tmp_path / "b" / "errormap" / "0", 1.0)
    target = tmp_path / "b" / "segmenter" / "0"
    complete(run)
    shared = Run("errormap", "0", run.directory, 1.0, shares=((source.directory, target),))
    RunJob((sys.executable, "-S", "-c", "pass"), shared)()
    assert (target / "COMPLETED").exists()
    assert not (target / "slurm.json").exists()
    share_run(source.directory, target)


def test_jobs_go_to_the_queue_again_as_they_are(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="pip install 'whqa[slurm]'")
    for job in (RunJob(("x",), Run("segmenter", "0", tmp_path, 1.0)), LastJob(_zero)):
        assert pickle.loads(pickle.dumps(job.checkpoint())).function == job
    with pytest.raises(SystemExit) as end:
        LastJob(_three)()
    assert end.value.code == 3


def test_status_asks_slurm(slurm: Path, submit: Submit, tmp_path: Path) -> None:
    submit()
    folds = '{"cohort": {"name": "m", "structures": ["lv"]}, "plan": "out_of_fold", "seed": 0, '
    folds += '"folds": [["a"], ["b"], ["c"]], "patients": {"a": "a", "b": "b", "c": "c"}, '
    folds += '"modalities": {"a": "ct", "b": "ct", "c": "ct"}}'
    (tmp_path / "runs" / "x" / "folds.json").write_text(folds)
    queue = (slurm / "queue").read_text().splitlines()
    queue[0] = queue[0].replace("PENDING|Priority", "RUNNING|None")
    (slurm / "queue").write_text("".join(f"{line}\n" for line in queue))
    (found,) = status(tmp_path / "runs").values()
    assert len((slurm / "asked").read_text().splitlines()) == 1
    runs = found["runs"]
    assert (runs["segmenter/0"]["state"], runs["segmenter/0"]["job"]) == ("running", "1_0")
    assert (runs["segmenter/1"]["state"], runs["segmenter/1"]["job"]) == ("waiting", "1_1")
    assert runs["segmenter/1"]["why"] == "job 1_1 in Slurm's queue (Priority)"
    assert read_submitted(tmp_path / "runs" / "x" / "segmenter" / "1").task == 1  # type: ignore[union-attr]
    # Slurm does not answer, or does not know the job any more: the files tell
    (slurm / "mute").touch()
    (found,) = status(tmp_path / "runs").values()
    assert found["runs"]["segmenter/0"]["state"] == "waiting"
    assert found["runs"]["segmenter/0"]["job"] is None


def test_what_is_told(slurm: Path, submit: Submit, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    tell(submit(), made(tmp_path), tmp_path / "runs" / "x", console)
    complete(made(tmp_path)[0])
    tell(submit(), made(tmp_path), tmp_path / "runs" / "x", console)
    directory = tmp_path / "runs" / "x"
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "submitted: 3 segmenter run(s), job 1",
        "submitted: 3 errormap run(s), job 2",
        "complete: 0 of 6 runs",
        f"the table will be in {directory}/.slurm/3_0_log.out (job 3)",
        f"see what they do: whqa status {directory}",
        "in Slurm's hands before: 6 run(s)",
        "complete: 1 of 6 runs",
        f"the table will be in {directory}/.slurm/3_0_log.out (job 3)",
        f"see what they do: whqa status {directory}",
    ]
