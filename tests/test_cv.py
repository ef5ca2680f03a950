"""The graph of a cross-validation, driven with stub commands in place of trainings."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from rich.console import Console

import whqa.cv
from whqa.config.words import compose_config
from whqa.cv import Graph, _Display, cross_validate, name_failures, plan_runs, work_through
from whqa.errors import InputError
from whqa.masks.plan import MaskPlan
from whqa.masks.run_state import noted_failure
from whqa.process import sigterm_interrupts, sleep_while_waiting
from whqa.stages.schedule import Run, run_environment

# Writes down when it began, does as told, leaves the stamp: `stub.py ROOT FAILING stage=... fold=...`
STUB = """
import os, sys, time, pathlib
root, failing, stage, fold = sys.argv[1], sys.argv[2].split(), sys.argv[3].split("=")[1], sys.argv[4].split("=")[1]
name = f"{stage}/{fold}"
with open(f"{root}/order", "a") as f:
    f.write(name + "\\n")
print("working on", name, flush=True)
if name in failing:
    print(f"whqa train: {name}: no such luck", file=sys.stderr)
    sys.exit(2)
if f"{name}!" in failing:
    sys.exit(0)
if f"{name}+" in failing:
    pathlib.Path(root, stage, fold, "COMPLETED").touch()
    sys.exit(2)
if f"{name}*" in failing:
    pathlib.Path(root, "pid").write_text(str(os.getpid()))
    time.sleep(60)
pathlib.Path(root, stage, fold, "COMPLETED").touch()
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whqa.cv, "POLL_S", 0.02)


@pytest.fixture
def graph(tmp_path: Path) -> Callable[..., Graph]:
    (tmp_path / "stub.py").write_text(textwrap.dedent(STUB))

    def make(plan: MaskPlan | None = None, failing: str = "", jobs: int = 2) -> Graph:
        cfg = compose_config(["experiment=demo"])
        runs = plan_runs(cfg, tmp_path, plan or MaskPlan("out_of_fold", 3))
        return Graph(runs, [sys.executable, "-S", str(tmp_path / "stub.py"), str(tmp_path), failing], jobs)

    return make


def _console() -> Console:
    return Console(file=io.StringIO(), width=1000)


def _order(root: Path) -> list[str]:
    return (root / "order").read_text().split()


@pytest.mark.parametrize(("plan", "n", "runs"), [("out_of_fold", 3, 6), ("nested", 3, 9), ("nested", 5, 20)])
def test_an_error_map_network_waits_for_the_segmenters_of_its_plan(
    graph: Callable[..., Graph], plan: str, n: int, runs: int
) -> None:
    made = MaskPlan(plan, n)
    nodes = {r.name: r for r in graph(made).runs}
    assert len(nodes) == runs
    for fold in range(n):
        assert nodes[f"errormap/{fold}"].needs == {f"segmenter/{s}" for s in made.needed_by(fold)}
    assert all(not r.needs for r in nodes.values() if r.stage == "segmenter")
    assert {r.directory.parent.name for r in nodes.values()} == {"segmenter", "errormap"}


@pytest.mark.parametrize("kinds", ["[nnunet]", "[nnunet,other]"])
def test_other_programs_masks_alone_need_no_segmenter(tmp_path: Path, kinds: str) -> None:
    programs = [f"+masks.external.{name}.root=/p" for name in ("nnunet", "other")]
    runs = plan_runs(compose_config([*programs, f"masks.kinds={kinds}"]), tmp_path, MaskPlan("nested", 3))
    assert [(r.name, r.needs) for r in runs] == [(f"errormap/{k}", frozenset()) for k in range(3)]
    both = plan_runs(compose_config([*programs, "masks.kinds=[nnunet,final]"]), tmp_path, MaskPlan("nested", 3))
    assert len(both) == 9


def test_runs_start_after_what_they_need(graph: Callable[..., Graph], tmp_path: Path) -> None:
    made = graph(MaskPlan("nested", 3))
    work_through(made, _console())
    order = _order(tmp_path)
    assert sorted(order) == sorted(r.name for r in made.runs)
    for run in made.runs:
        assert all(order.index(need) < order.index(run.name) for need in run.needs)
    assert not made.failed
    assert not made.blocked()
    assert "working on errormap/0" in (tmp_path / "errormap" / "0" / "train.log").read_text()


def test_a_run_that_another_process_completed_has_not_failed(graph: Callable[..., Graph]) -> None:
    made = graph(failing="segmenter/1+")
    work_through(made, _console())
    assert not made.failed
    assert not made.blocked()


def test_no_more_jobs_than_asked_for(graph: Callable[..., Graph], monkeypatch: pytest.MonkeyPatch) -> None:
    most = []
    made = graph(jobs=2)
    started = Graph.start

    def start(self: Graph, run: Run) -> None:
        started(self, run)
        most.append(len(self.running))

    monkeypatch.setattr(Graph, "start", start)
    work_through(made, _console())
    assert max(most) == 2


def test_complete_runs_are_left_alone(graph: Callable[..., Graph], tmp_path: Path) -> None:
    for name in ("segmenter/0", "segmenter/2", "errormap/1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "COMPLETED").touch()
    work_through(graph(), _console())
    assert sorted(_order(tmp_path)) == ["errormap/0", "errormap/2", "segmenter/1"]
    again = graph()
    work_through(again, _console())
    assert len(_order(tmp_path)) == 3


def test_a_failed_run_is_named_with_its_log_and_the_others_run(graph: Callable[..., Graph], tmp_path: Path) -> None:
    made = graph(MaskPlan("nested", 3), failing="segmenter/0-1")
    console = _console()
    work_through(made, console)
    assert made.failed == {"segmenter/0-1": 2}
    assert {r.name for r in made.blocked()} == {"errormap/0", "errormap/1"}
    assert (tmp_path / "errormap" / "2" / "COMPLETED").exists()
    name_failures(made, console)
    text = console.file.getvalue()
    assert "failed: segmenter/0-1 (exit code 2): whqa train: segmenter/0-1: no such luck" in text
    assert f"log: {tmp_path / 'segmenter' / '0-1' / 'train.log'}" in text
    assert "not run: errormap/0 waits for segmenter/0-1" in text
    assert "errormap/2" not in text


def test_a_run_that_ends_without_its_stamp_has_failed(graph: Callable[..., Graph]) -> None:
    made = graph(failing="segmenter/1!")
    work_through(made, _console())
    assert made.failed == {"segmenter/1": 0}


def test_a_run_that_is_killed_cannot_say_so_itself(graph: Callable[..., Graph], tmp_path: Path) -> None:
    made = graph(failing="segmenter/0*", jobs=1)
    (run,) = (r for r in made.runs if r.name == "segmenter/0")
    made.start(run)
    made.running[run.name].kill()
    made.running[run.name].wait()
    made.reap()
    assert made.failed == {"segmenter/0": -signal.SIGKILL}
    assert noted_failure(run.directory) == "ended by signal 9 (Killed)"


def test_logs_of_several_attempts_follow_each_other(graph: Callable[..., Graph], tmp_path: Path) -> None:
    work_through(graph(failing="segmenter/1"), _console())
    work_through(graph(), _console())
    assert (tmp_path / "segmenter" / "1" / "train.log").read_text().count("working on") == 2
    assert (tmp_path / "errormap" / "1" / "COMPLETED").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_children(graph: Callable[..., Graph], tmp_path: Path, number: int) -> None:
    made = graph(failing="segmenter/0*", jobs=1)
    before = signal.getsignal(signal.SIGTERM)

    def send() -> None:
        while not (tmp_path / "pid").exists():
            time.sleep(0.02)
        time.sleep(0.05)
        os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts():
        work_through(made, _console())
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert signal.getsignal(signal.SIGTERM) == before
    assert _order(tmp_path) == ["segmenter/0"]


_INTERRUPTED = """
import os, signal, sys
from whqa.process import sigterm_interrupts, sleep_while_waiting
try:
    with sigterm_interrupts():
        exec("import os; os.kill(os.getpid(), signal.SIGINT)")
except KeyboardInterrupt:
    os.kill(os.getpid(), signal.SIGINT)
    print("last words", flush=True)
    sys.exit(130)
"""


def test_a_second_ctrl_c_does_not_cut_the_last_words_nor_the_exit_code(tmp_path: Path) -> None:
    """As a module: there CPython ends itself by SIGINT after an interrupt within exec()."""
    (tmp_path / "interrupted.py").write_text(_INTERRUPTED)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        env=os.environ | {"PYTHONPATH": path},
        # pytest may itself have been started to ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "last words\n", "")


def test_a_process_that_shall_ignore_sigterm_goes_on_to(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with sigterm_interrupts():
            os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_progress_counts_complete_and_running_runs(tmp_path: Path) -> None:
    run = Run("segmenter", "0", tmp_path / "segmenter" / "0", work=100)
    run.directory.mkdir(parents=True)
    assert run.done == 0.0
    (run.directory / "progress.json").write_text(json.dumps({"phase": "training", "done": 0.5}))
    assert 0 < run.done < 0.5
    (run.directory / "progress.json").write_text("{")
    assert run.done == 0.0
    (run.directory / "COMPLETED").touch()
    assert run.done == 1.0


def test_runs_share_the_cores_unless_the_user_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert run_environment(2)["OMP_NUM_THREADS"] == "4"
    assert run_environment(16)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run_environment(2)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("settled", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_waiting_threads_sleep_unless_the_user_has_settled_it(monkeypatch: pytest.MonkeyPatch, settled: str) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    sleep_while_waiting()
    assert run_environment(1)["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    monkeypatch.setenv(settled, "active")
    sleep_while_waiting()
    assert {"OMP_WAIT_POLICY": "active"}.get(settled) == os.environ.get("OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    ("plan", "jobs", "alone"),
    [
        (MaskPlan("out_of_fold", 3), 2, {"segmenter/2", "errormap/2"}),
        (MaskPlan("out_of_fold", 4), 3, {"segmenter/3", "errormap/3"}),
        (MaskPlan("out_of_fold", 3), 3, set()),
        (MaskPlan("out_of_fold", 2), 1, {"segmenter/0", "segmenter/1", "errormap/0", "errormap/1"}),
    ],
)
def test_a_run_that_is_alone_takes_all_cores(
    graph: Callable[..., Graph], tmp_path: Path, plan: MaskPlan, jobs: int, alone: set[str]
) -> None:
    made = graph(plan, jobs=jobs)
    assert made.beside.keys() == {run.name for run in made.runs}
    assert {name for name, beside in made.beside.items() if beside == 1} == alone
    assert max(made.beside.values()) == jobs
    # what had been done before a start must not change with how many threads a run computes
    (tmp_path / "segmenter" / "0").mkdir(parents=True)
    (tmp_path / "segmenter" / "0" / "COMPLETED").touch()
    assert graph(plan, jobs=jobs).beside == made.beside


def test_a_run_is_started_with_the_threads_of_its_place_in_the_graph(
    graph: Callable[..., Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    threads = []

    def start(command: list[str], env: dict[str, str], **options: object) -> object:
        threads.append(env["OMP_NUM_THREADS"])
        return object()

    monkeypatch.setattr(subprocess, "Popen", start)
    made = graph(jobs=2)
    for run in made.runs:
        made.start(run)
    assert threads == ["3", "3", "6", "3", "3", "6"]


def test_all_runs_of_a_finished_study_are_skipped_and_the_summary_made(
    tmp_path: Path, phantoms: Path, tiny: Callable[[Path], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with a failure the exit code is 1 and no summary is made."""
    summarized: list[Path] = []
    monkeypatch.setattr("whqa.summarize.summarize_beside", summarized.append)
    words = tiny(tmp_path)
    words[words.index(f"data_dir={tmp_path / 'data'}")] = f"data_dir={phantoms / 'data'}"
    monkeypatch.setattr(Graph, "start", lambda self, run: self.failed.update({run.name: 1}))
    console = _console()
    assert cross_validate(words, 1, console) == 1
    assert "failed: segmenter/0" in console.file.getvalue()
    assert summarized == []
    for stage in ("segmenter", "errormap"):
        for fold in "012":
            directory = tmp_path / "runs" / "tiny" / stage / fold
            directory.mkdir(parents=True)
            config = compose_config([*words, f"stage={stage}", f"fold={fold}"])
            OmegaConf.save(config, directory / "config.yaml", resolve=True)
            (directory / "COMPLETED").touch()
    assert cross_validate(words, 1, _console()) == 0
    assert summarized == [tmp_path / "runs" / "tiny"]


def test_complete_runs_of_other_settings_are_not_taken_for_ones_of_these(
    tmp_path: Path, phantoms: Path, tiny: Callable[[Path], list[str]]
) -> None:
    words = [*(w for w in tiny(tmp_path) if not w.startswith("data_dir=")), f"data_dir={phantoms / 'data'}"]
    run_dir = tmp_path / "runs" / "tiny" / "segmenter" / "1"
    run_dir.mkdir(parents=True)
    (run_dir / "COMPLETED").touch()
    trained = compose_config([*words, "fold=1", "segmenter.weight_decay=0.5", "errormap.steps=12"])
    OmegaConf.save(trained, run_dir / "config.yaml", resolve=True)
    with pytest.raises(InputError, match=r"segmenter/1: holds a run with other settings \(segmenter.weight_decay\)"):
        cross_validate(words, 1, _console())


@pytest.mark.parametrize(
    ("word", "command"),
    [("stage=errormap", "train"), ("fold=0", "train"), ("fit=false", "train"), ("sweep=learning_rate", "sweep")],
)
def test_a_part_of_the_graph_or_several_are_not_a_cross_validation(word: str, command: str) -> None:
    with pytest.raises(InputError, match=f"whqa {command}"):
        cross_validate(["experiment=demo", word], 1, _console())


def test_more_than_a_day_is_told_as_days(tmp_path: Path) -> None:
    runs = [SimpleNamespace(name=str(i), work=1.0, done=0.0, complete=False) for i in range(3)]
    display = _Display(SimpleNamespace(runs=runs, running={"0"}), Console(file=io.StringIO()))
    runs[0].done = 0.1
    display.begun -= 3600
    # a tenth of one of three in an hour
    assert re.search(r" left 1 day, (4:59:5\d|5:00:00)  running 0$", display._line())
