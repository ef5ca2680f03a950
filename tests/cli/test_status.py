"""`whqa status`: the table, JSON and watching, over written directories."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console

import whqa.cli.status_text
from whqa.cli.commands import main
from whqa.cli.status_text import status_tables, watch
from whqa.results.experiment_status import ExperimentStatus, RunStatus, State, status

HEAVY = ("torch", "pytorch_lightning", "torchmetrics", "pandas", "matplotlib", "monai", "sklearn", "hydra")


def run(state: State, **told: Any) -> RunStatus:
    empty: dict[str, Any] = dict.fromkeys(RunStatus.__annotations__)
    return {**empty, "state": state, "done": 0.0, "waits_for": [], **told}  # type: ignore[typeddict-item, return-value]


RUNS = {
    "segmenter/0": run("done", done=1.0, host="node1"),
    "segmenter/1": run("running", done=0.42, phase="training", step=9, of=20, left_s=3725.4, host="node7"),
    "segmenter/2": run("running", done=0.9, phase="testing", step=2, of=3),
    "segmenter/3": run("running", host="node7"),
    "segmenter/4": run("failed", done=0.1, why="loss is [bold] nan", log="runs/x/train.log", resumes_from=3),
    "segmenter/5": run("stopped", done=0.2, resumes_from=150, host="node2"),
    "segmenter/6": run("stopped", why="no sign of life from node9 for 30 min", host="node9"),
    "errormap/0": run("waiting", waits_for=["segmenter/1", "segmenter/4"]),
    "errormap/1": run("waiting", waits_for=[f"segmenter/{k}" for k in (1, 2, 3, 5, 6, 1, 2)]),
    "errormap/2": run("waiting"),
}


def experiment(**runs: RunStatus) -> ExperimentStatus:
    return {"plan": "nested", "folds": 3, "runs": runs, "error": None}


def shown(found: dict[str, ExperimentStatus], width: int = 200) -> list[str]:
    output = io.StringIO()
    Console(file=output, width=width).print(status_tables(found))
    return [" ".join(line.split()) for line in output.getvalue().splitlines() if line.strip()]


def write(experiment_dir: Path, done: bool = False) -> Path:
    """An experiment of two folds."""
    cases = ["a", "b"]
    folds = {
        "cohort": {"name": "made-up", "structures": ["lv"]},
        "plan": "out_of_fold",
        "seed": 0,
        "folds": [["a"], ["b"]],
    }
    experiment_dir.mkdir(parents=True)
    more = {"patients": {c: c for c in cases}, "modalities": dict.fromkeys(cases, "ct")}
    (experiment_dir / "folds.json").write_text(json.dumps(folds | more))
    for name in ("segmenter/0", "segmenter/1", "errormap/0", "errormap/1") if done else ():
        complete(experiment_dir / name)
    return experiment_dir


def complete(run_dir: Path) -> None:
    run_dir.mkdir(parents=True)
    (run_dir / "cases.csv").touch()
    (run_dir / "COMPLETED").touch()


def answer(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["status", *words])
    return int(end.value.code or 0)


def test_every_state_has_its_line() -> None:
    lines = shown({"runs/x": experiment(**RUNS)})
    assert {one["state"] for one in RUNS.values()} == set(get_args(State))
    assert lines[0] == "runs/x (nested, 3 folds): 1 done, 3 running, 1 failed, 2 stopped, 3 waiting"
    assert lines[1] == "run state done left host"
    assert lines[3:] == [
        "segmenter/0 done 100 %",
        "segmenter/1 running 42 % 1:02:05 node7 training, step 9 of 20",
        "segmenter/2 running 90 % testing, volume 2 of 3",
        "segmenter/3 running 0 % node7 begins",
        "segmenter/4 failed 10 % loss is [bold] nan; log: runs/x/train.log",
        "segmenter/5 stopped 20 % node2 resumes from step 150",
        "segmenter/6 stopped 0 % node9 no sign of life from node9 for 30 min; if it is gone, it begins afresh",
        "errormap/0 waiting for masks of segmenter/4 (failed), segmenter/1",
        "errormap/1 waiting for masks of segmenter/1, segmenter/2, segmenter/3, segmenter/5, segmenter/6 and 2 more",
        "errormap/2 waiting for its turn",
    ]


def test_what_is_done_among_several_takes_one_line() -> None:
    done, other = experiment(a=run("done")), experiment(b=run("waiting"))
    torn: ExperimentStatus = {"plan": None, "folds": None, "runs": {}, "error": "runs/t/folds.json: torn"}
    lines = shown({"runs/x": done, "runs/y": other, "runs/t": torn})
    assert lines[0] == "runs/x (nested, 3 folds): 1 done"
    assert (
        lines[1]
        == "runs/y (nested, 3 folds): 1 waiting; nothing runs, the same `whqa cv ...` or `whqa sweep ...` continues"
    )
    assert lines[-1] == "runs/t/folds.json: torn"
    assert len(shown({"runs/x": done})) == 4


def test_a_narrow_terminal_cuts_nothing_off() -> None:
    text = "".join("".join(shown({"runs/x": experiment(**RUNS)}, width=60)).split())
    assert "log:runs/x/train.log" in text.replace("\n", "")
    assert "segmenter/4" in text


def test_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "runs" / "x")
    assert answer(str(path), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found == status(path)
    assert set(found[str(path)]["runs"]["errormap/0"]) == set(RunStatus.__annotations__)


def test_without_a_directory_it_is_all_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert answer() == 2
    assert capsys.readouterr().err.startswith("whqa status: runs: no such directory; `whqa cv experiment=...` makes")
    write(tmp_path / "runs" / "x")
    write(tmp_path / "runs" / "y", done=True)
    assert answer() == 0
    text = capsys.readouterr().out
    assert "runs/x (out_of_fold, 2 folds): 4 waiting" in text
    assert "runs/y (out_of_fold, 2 folds): 4 done" in text


def test_watching_ends_when_all_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, slept = write(tmp_path / "x"), []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        name = ("segmenter/0", "segmenter/1", "errormap/0", "errormap/1")[len(slept) - 1]
        complete(path / name)

    monkeypatch.setattr(whqa.cli.status_text.time, "sleep", sleep)
    output = io.StringIO()
    watch(path, Console(file=output, width=200))
    assert slept == [whqa.cli.status_text.WATCH_S] * 4
    assert output.getvalue().count("4 done") == 1, "not on a terminal: once"
    assert "waiting" not in output.getvalue()


def test_watching_a_terminal_draws_every_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x")
    states: Iterator[str] = iter(("segmenter/0", "segmenter/1", "errormap/0", "errormap/1"))

    def sleep(seconds: float) -> None:
        complete(path / next(states))

    monkeypatch.setattr(whqa.cli.status_text.time, "sleep", sleep)
    output = io.StringIO()
    watch(path, Console(file=output, width=200, height=30, force_terminal=True))
    for text in ("4 waiting", "1 done, 3 waiting", "2 done, 2 waiting", "3 done, 1 waiting", "4 done"):
        assert text in output.getvalue()


def test_an_interrupt_ends_watching_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(whqa.cli.status_text.time, "sleep", interrupted)
    assert answer(str(write(tmp_path / "x")), "--watch") == 130
    assert capsys.readouterr().err == ""


def test_watching_is_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(str(tmp_path), "--watch", "--json") == 2
    assert "not allowed with argument" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_it_answers_without_the_heavy_imports(words: list[str], tmp_path: Path) -> None:
    run_dir = write(tmp_path / "runs" / "x") / "errormap" / "0"
    run_dir.mkdir(parents=True)
    (run_dir / "config.yaml").write_text("masks: {kinds: null, external: {}}")
    (run_dir / "checkpoints").mkdir()
    (run_dir / "checkpoints" / "last.ckpt").touch()
    program = (
        "import sys\nfrom whqa.cli import main\ntry:\n    main(sys.argv[1:])\nfinally:\n"
        f"    print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", program, "status", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "errormap/0" in done.stdout
