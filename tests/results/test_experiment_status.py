"""What has become of the runs of experiments whose files are written here, a state each."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from whqa.errors import STOPPED, InputError
from whqa.masks.run_state import note_failure, stamp
from whqa.modules.weights import write_weights
from whqa.process import host_name, locked
from whqa.results.experiment_status import SILENT_S, RunStatus, status


def write_folds(directory: Path, plan: str = "out_of_fold", n: int = 3) -> Path:
    """folds.json of an experiment in which nothing has begun."""
    cases = [f"c{k}" for k in range(n)]
    folds: dict[str, Any] = {"cohort": {"name": "made-up", "structures": ["lv"], "cases": n}, "plan": plan, "seed": 0}
    folds |= {
        "patients": {c: c for c in cases},
        "modalities": dict.fromkeys(cases, "ct"),
        "folds": [[c] for c in cases],
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "folds.json").write_text(json.dumps(folds))
    return directory


def write_run(run_dir: Path, saved: int | None = None, **progress: Any) -> Path:
    """A run that has begun: its log, its last checkpoint, what it told last."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "train.log").write_text("Using bfloat16 Automatic Mixed Precision (AMP)\n")
    if saved is not None:
        write_weights(run_dir / "checkpoints" / "last.ckpt", {"global_step": saved, "state_dict": {"w": torch.ones(2)}})
    if progress:
        (run_dir / "progress.json").write_text(json.dumps(progress))
    return run_dir


def write_lock(run_dir: Path, host: str, since: float = 0.0, **more: Any) -> None:
    (run_dir / ".lock").write_text(json.dumps({"host": host, "pid": 4321, "since": since, **more}))


TRAINING = {"phase": "training", "done": 0.25, "step": 100, "of": 400, "speed": 0.001}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return write_folds(tmp_path / "runs" / "demo")


def _one(experiment: Path, name: str = "segmenter/0") -> RunStatus:
    return status(experiment)[str(experiment)]["runs"][name]


def test_nothing_has_begun(experiment: Path) -> None:
    found = status(experiment)[str(experiment)]
    assert (found["plan"], found["folds"], found["error"]) == ("out_of_fold", 3, None)
    assert list(found["runs"]) == [f"{stage}/{k}" for stage in ("segmenter", "errormap") for k in range(3)]
    assert {run["state"] for run in found["runs"].values()} == {"waiting"}
    assert found["runs"]["segmenter/0"]["waits_for"] == []
    assert found["runs"]["errormap/0"]["waits_for"] == ["segmenter/0", "segmenter/1", "segmenter/2"]


def test_an_error_map_network_waits_for_those_of_its_plan_that_are_not_done(tmp_path: Path) -> None:
    experiment = write_folds(tmp_path / "nested", "nested", 4)
    for name in ("0", "0-1", "0-3", "1"):
        stamp(write_run(experiment / "segmenter" / name, 9))
    assert _one(experiment, "errormap/0")["waits_for"] == ["segmenter/0-2"]
    assert _one(experiment, "errormap/1")["waits_for"] == ["segmenter/1-2", "segmenter/1-3"]
    stamp(write_run(experiment / "segmenter" / "0-2", 9))
    assert (_one(experiment, "errormap/0")["state"], _one(experiment, "errormap/0")["waits_for"]) == ("waiting", [])


def test_a_complete_run_is_done_whatever_lies_beside_its_stamp(experiment: Path) -> None:
    run_dir = write_run(experiment / "segmenter" / "0", 400, phase="testing", done=0.5)
    note_failure(run_dir, "long ago")
    write_lock(run_dir, "node7")
    stamp(run_dir)
    found = _one(experiment)
    assert (found["state"], found["done"], found["why"], found["left_s"]) == ("done", 1.0, None, None)


def test_a_stamp_without_the_results_is_not_done(experiment: Path) -> None:
    run_dir = write_run(experiment / "segmenter" / "0")
    (run_dir / "COMPLETED").touch()
    found = _one(experiment)
    assert (found["state"], found["done"]) == ("failed", 0.0)
    assert re.search(r"segmenter/0/cases\.csv: gone since .*; make it again: rm .*COMPLETED, then", found["why"] or "")
    assert _one(experiment, "errormap/0")["waits_for"] == [f"segmenter/{k}" for k in range(3)]
    (run_dir / "cases.csv").write_text("case\n")
    assert _one(experiment)["state"] == "done"
    (run_dir / "features.csv").write_text("case\n")
    stamp(run_dir)
    assert _one(experiment)["state"] == "done"
    (run_dir / "features.csv").unlink()
    assert "segmenter/0/features.csv: gone" in (_one(experiment)["why"] or "")


def test_a_run_that_holds_its_lock_runs(experiment: Path) -> None:
    run_dir = experiment / "segmenter" / "0"
    with locked(run_dir):
        assert _one(experiment)["state"] == "running"
        assert (_one(experiment)["phase"], _one(experiment)["done"]) == (None, 0.0)
        write_run(run_dir, 50, **TRAINING)
        os.utime(run_dir / "progress.json", (time.time() + 1,) * 2)
        found = _one(experiment)
    assert (found["state"], found["phase"], found["step"], found["of"]) == ("running", "training", 100, 400)
    assert (found["host"], found["pid"]) == (host_name(), os.getpid())
    assert found["done"] == pytest.approx(0.2125)
    assert found["left_s"] == pytest.approx(750 + 1000 * 0.15 / 0.85, abs=0.1)
    assert _one(experiment)["state"] == "stopped"


def test_what_an_earlier_attempt_told_is_no_news_of_this_one(experiment: Path) -> None:
    run_dir = write_run(experiment / "segmenter" / "0", 50, **TRAINING)
    os.utime(run_dir / "progress.json", (time.time() - 60,) * 2)
    with locked(run_dir):
        found = _one(experiment)
    assert (found["state"], found["phase"], found["left_s"]) == ("running", None, None)
    assert found["done"] == pytest.approx(0.2125)


def test_a_run_whose_process_is_gone_does_not_run(experiment: Path) -> None:
    """Killed outright, it could tell nobody; its process number may be another's by now."""
    run_dir = write_run(experiment / "segmenter" / "0", 50, **TRAINING)
    program = (
        "import os, sys, pathlib, signal\nfrom whqa.process import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(run_dir)], timeout=300, check=False).returncode == -9
    found = _one(experiment)
    assert (found["state"], found["resumes_from"], found["why"]) == ("stopped", 50, None)
    assert (found["left_s"], found["phase"]) == (None, None)
    lock = json.loads((run_dir / ".lock").read_text())
    (run_dir / ".lock").write_text(json.dumps({**lock, "pid": os.getpid()}))
    assert _one(experiment)["state"] == "stopped"


@pytest.mark.parametrize(("age", "state"), [(0.0, "running"), (SILENT_S / 2, "running"), (SILENT_S * 2, "stopped")])
def test_a_run_of_another_machine_lives_by_its_signs(age: float, state: str, experiment: Path) -> None:
    run_dir = write_run(experiment / "segmenter" / "0", 50, **TRAINING)
    write_lock(run_dir, "node7", since=time.time() - 10 * SILENT_S)
    for path in run_dir.iterdir():
        os.utime(path, (time.time() - age,) * 2)
    found = _one(experiment)
    assert (found["state"], found["host"], found["pid"]) == (state, "node7", 4321)
    assert (found["why"] is None) == (state == "running")
    if state == "stopped":
        assert found["why"] == "no sign of life from node7 for 30 min"
        assert found["resumes_from"] == 50


def test_a_run_of_another_machine_that_let_its_lock_go_does_not_run(experiment: Path) -> None:
    run_dir = write_run(experiment / "segmenter" / "0", **TRAINING)
    write_lock(run_dir, "node7", since=time.time(), ended=True)
    found = _one(experiment)
    assert (found["state"], found["resumes_from"], found["why"]) == ("stopped", None, None)


def test_a_failed_run_says_why(experiment: Path) -> None:
    run_dir = write_run(experiment / "segmenter" / "1", 50, **TRAINING)
    write_lock(run_dir, host_name(), ended=True)
    note_failure(run_dir, "training diverged: loss is nan at step 100")
    found = _one(experiment, "segmenter/1")
    assert (found["state"], found["why"]) == ("failed", "training diverged: loss is nan at step 100")
    assert (found["log"], found["resumes_from"]) == (str(run_dir / "train.log"), 50)
    assert "segmenter/1" in _one(experiment, "errormap/0")["waits_for"]
    (run_dir / "train.log").unlink()
    assert _one(experiment, "segmenter/1")["log"] is None
    with locked(run_dir):
        assert _one(experiment, "segmenter/1")["state"] == "running"


@pytest.mark.parametrize("lock", [None, ""], ids=["before-it-locked", "older-version"])
def test_a_run_that_could_not_note_its_failure_has_its_log(lock: str | None, experiment: Path) -> None:
    run_dir = write_run(experiment / "segmenter" / "0")
    with (run_dir / "train.log").open("a") as log:
        log.write("whqa train: data: no such folder\n")
    if lock is not None:
        (run_dir / ".lock").write_text(lock)
    assert (_one(experiment)["state"], _one(experiment)["why"]) == ("failed", "data: no such folder")
    write_lock(run_dir, host_name())
    assert _one(experiment)["state"] == "stopped", "the log is an earlier attempt's; this one would have noted it"


def test_a_run_that_was_interrupted_has_not_failed(experiment: Path) -> None:
    run_dir = write_run(experiment / "segmenter" / "0", 12)
    (run_dir / ".lock").touch()
    (run_dir / "train.log").write_text(f"whqa train: {STOPPED}\n")
    assert (_one(experiment)["state"], _one(experiment)["resumes_from"]) == ("stopped", 12)


def test_a_run_that_was_stopped_before_its_first_checkpoint(experiment: Path) -> None:
    write_lock(write_run(experiment / "segmenter" / "0"), host_name(), ended=True)
    assert (_one(experiment)["state"], _one(experiment)["resumes_from"]) == ("stopped", None)


@pytest.mark.parametrize("name", ["progress.json", ".lock", "train.log", "checkpoints/last.ckpt", "config.yaml"])
@pytest.mark.parametrize("content", [b"", b"\xff\x00{", b"[1, 2]"])
def test_torn_files_of_a_run_cost_what_they_tell_and_no_more(name: str, content: bytes, experiment: Path) -> None:
    run_dir = write_run(experiment / "segmenter" / "0", 50, **TRAINING)
    write_lock(run_dir, host_name(), ended=True)
    (run_dir / name).write_bytes(content)
    found = _one(experiment)
    assert found["state"] == "stopped"
    assert found["resumes_from"] == (None if name.endswith("last.ckpt") else 50)


@pytest.mark.parametrize("kinds", [["nnunet"], ["nnunet", "reference"], ["nnunet", "final"], None])
def test_masks_of_other_programs_alone_need_no_segmenter(kinds: list[str] | None, experiment: Path) -> None:
    run_dir = write_run(experiment / "errormap" / "1")
    masks = {"kinds": kinds, "external": {"nnunet": {"root": "/p"}}}
    (run_dir / "config.yaml").write_text(yaml.safe_dump({"masks": masks}))
    found = status(experiment)[str(experiment)]["runs"]
    if kinds and "final" not in kinds:
        assert list(found) == ["errormap/0", "errormap/1", "errormap/2"]
        assert (found["errormap/0"]["state"], found["errormap/0"]["waits_for"]) == ("waiting", [])
    else:
        assert len(found) == 6


def test_every_experiment_below_a_folder(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name in ("b", "a", "sweep/lr=1"):
        write_folds(runs / name)
    (runs / ".cache").mkdir()
    (runs / "notes.txt").touch()
    (write_folds(runs / "torn") / "folds.json").write_text("{")
    found = status(runs)
    assert list(found) == [str(runs / name) for name in ("a", "b", "sweep/lr=1", "torn")]
    assert [len(one["runs"]) for one in found.values()] == [6, 6, 6, 0]
    error = found[str(runs / "torn")]["error"]
    assert error is not None
    assert error.startswith(f"{runs / 'torn' / 'folds.json'}: not readable as")


def test_a_run_that_cannot_be_looked_at_does_not_hide_the_other_experiments(tmp_path: Path) -> None:
    write_folds(tmp_path / "a")
    (write_folds(tmp_path / "b") / "segmenter" / "0" / ".lock").mkdir(parents=True)
    found = status(tmp_path)
    assert found[str(tmp_path / "a")]["error"] is None
    assert found[str(tmp_path / "b")]["error"] == f"{tmp_path / 'b' / 'segmenter' / '0' / '.lock'}: Is a directory"


@pytest.mark.parametrize(
    ("content", "cause"),
    [("{", "not readable as"), ('{"folds": 3}', "not readable as"), (None, "'sideways': must be one of")],
)
def test_damaged_folds_of_the_experiment_that_is_asked_for(content: str | None, cause: str, tmp_path: Path) -> None:
    experiment = write_folds(tmp_path / "demo", plan="sideways")
    if content is not None:
        (experiment / "folds.json").write_text(content)
    with pytest.raises(InputError, match=cause) as refused:
        status(experiment)
    assert str(refused.value).startswith(f"{experiment / 'folds.json'}: ")


def test_no_experiment_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such directory; `whqa cv experiment=...` makes one in runs"):
        status(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no experiment and no folder of experiments; `whqa cv experiment=...`"):
        status(tmp_path)
