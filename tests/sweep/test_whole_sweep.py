"""A sweep from its graph to its table, with stub commands in place of trainings."""

from __future__ import annotations

import csv
import io
import json
import signal
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import whqa.cv
import whqa.sweep.whole_sweep as room
from whqa.cli.commands import main
from whqa.cv import Graph, plan_runs
from whqa.masks.plan import MaskPlan
from whqa.results.experiment_status import status
from whqa.stages.schedule import Run
from whqa.sweep import shared_graph
from whqa.sweep.sweep_plan import Point, SweepPlan, plan_sweep
from whqa.sweep.whole_sweep import cross_validate_all

# Takes a finished run's files from a point that lies ready: `stub.py READY FAILING ... runs_dir='...' stage=... fold=`
STUB = """
import pathlib, shutil, sys
ready, failing, words = sys.argv[1], sys.argv[2].split(), dict(w.split("=", 1) for w in sys.argv[3:])
name, root = words["name"].strip("'"), words["runs_dir"].strip("'")
run = f"{words['stage']}/{words['fold']}"
with open(f"{ready}/order", "a") as f:
    f.write(f"{name}/{run}\\n")
if f"{name}/{run}" in failing:
    print("whqa train: no such luck", file=sys.stderr)
    sys.exit(2)
shutil.copytree(f"{ready}/{name}/{run}", f"{root}/{name}/{run}", dirs_exist_ok=True)
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, undrawn: None) -> None:
    monkeypatch.setattr(whqa.cv, "POLL_S", 0.02)


@pytest.fixture
def plan(tmp_path: Path, write_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> SweepPlan:
    """Two heads, the second of which finds more in the validation; what their trainings leave lies in ready/."""
    found = plan_sweep([f"runs_dir={tmp_path / 'runs'}", "experiment=demo", "name=s", "errormap.head=label,binary"])
    (tmp_path / "stub.py").write_text(textwrap.dedent(STUB))
    for point in found.points:
        _finished(write_run(tmp_path / "ready" / point.name, kinds=("final",)), point)

    def without_data(point: Point, jobs: int | None, trained_here: bool) -> list[Run]:
        runs = plan_runs(point.config, point.directory, MaskPlan("out_of_fold", 3), point.words)
        point.directory.mkdir(parents=True, exist_ok=True)
        (point.directory / "folds.json").write_text((tmp_path / "ready" / point.name / "folds.json").read_text())
        return runs

    monkeypatch.setattr(shared_graph, "_runs", without_data)
    return found


def _finished(run: Path, point: Point) -> None:
    for pair in run.glob("segmenter/*-*"):
        (pair / "cases.csv").unlink()
        pair.rmdir()
    folds = json.loads((run / "folds.json").read_text())
    (run / "folds.json").write_text(json.dumps(folds | {"plan": "out_of_fold"}))
    better = 0.1 * (point.settings["errormap.head"] == "binary")
    for k in range(3):
        cases = folds["folds"][(k + 1) % 3]
        rows = [
            f"{case},final,{(k + 1) % 3},{folds['patients'][case]},9,{0.5 + better + i / 50}"
            for i, case in enumerate(cases)
        ]
        text = "case,mask_kind,fold,patient,segmenter,error_dice\n" + "\n".join(rows) + "\n"
        (run / "errormap" / str(k) / "validation.csv").write_text(text)


@pytest.fixture
def run_it(tmp_path: Path, plan: SweepPlan, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    def run(failing: str = "", width: int = 200) -> tuple[int, str]:
        command = [sys.executable, "-S", str(tmp_path / "stub.py"), str(tmp_path / "ready"), failing]
        monkeypatch.setattr(whqa.cv, "TRAIN", command)
        output = Console(file=io.StringIO(), width=width)
        code = cross_validate_all(plan, 2, Console(file=io.StringIO()), output)
        return code, output.file.getvalue()  # type: ignore[attr-defined]

    return run


def _order(root: Path) -> list[str]:
    return (root / "ready" / "order").read_text().split()


def test_every_point_is_a_whole_experiment_and_one_table_compares_them(
    run_it: Callable[..., tuple[int, str]],
    plan: SweepPlan,
    tmp_path: Path,
    unlike_contract: Callable[[Any, str], list[str]],
) -> None:
    code, text = run_it()
    assert code == 0
    first, second = plan.points
    # the segmenters once
    trained = [f"{first.name}/segmenter/{k}" for k in range(3)]
    assert sorted(_order(tmp_path)) == sorted(
        [*trained, *(f"{point.name}/errormap/{k}" for point in plan.points for k in range(3))]
    )
    for point in plan.points:
        summary = json.loads((point.directory / "summary.json").read_text())
        assert summary["experiment"] == point.name
        assert summary["segmentation"]["dice"]["mean"] is not None
    found = json.loads((plan.directory / "sweep.json").read_text())
    assert unlike_contract(found, "sweep.schema.json") == []
    assert (found["first"], found["chosen_by"]) == (first.name, "validation.error_dice")
    assert [point["name"] for point in found["points"]] == [second.name, first.name]
    assert found["points"][0]["validation"]["error_dice"]["difference"]["mean"] == pytest.approx(0.1)
    with (plan.directory / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["place"], row["point"], row["errormap.head"]) for row in rows] == [
        ("1", second.name, "binary"),
        ("2", first.name, "label"),
    ]
    assert float(rows[0]["validation.error_dice_difference"]) == pytest.approx(0.1)
    assert rows[1]["validation.error_dice_difference"] == ""
    assert float(rows[1]["test.error_dice"]) == pytest.approx(found["points"][1]["test"]["error_dice"]["mean"])
    page = (plan.directory / "sweep.html").read_text()
    assert page.index("errormap.head=binary</a>") < page.index("errormap.head=label</a>")
    assert "s%2Cerrormap.head%3Dbinary/summary.html" in page
    assert "+0.100" in text
    assert "validation: " in text
    # one value of all: the segmenters are the same
    assert "segmentation Dice" not in text
    assert str(plan.directory / "sweep.html") in text
    assert {Path(name).name for name in status(plan.directory)} == {point.name for point in plan.points}


def test_the_same_command_runs_what_is_missing(
    run_it: Callable[..., tuple[int, str]], plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = plan.points
    code, text = run_it(f"{second.name}/errormap/1")
    assert code == 1
    assert f"failed: {second.name}: errormap/1: whqa train: no such luck; log: " in text
    assert "the same command runs again what is missing" in text
    found = json.loads((plan.directory / "sweep.json").read_text())
    assert [(point["name"], point["state"]) for point in found["points"]] == [
        (first.name, "done"),
        (second.name, "failed"),
    ]
    assert "no such luck" in (plan.directory / "sweep.html").read_text()
    (tmp_path / "ready" / "order").unlink()
    summarised: list[Path] = []
    summarize = room.summarize
    monkeypatch.setattr(room, "summarize", lambda path, console: (summarised.append(path), summarize(path, console))[1])
    assert run_it()[0] == 0
    assert _order(tmp_path) == [f"{second.name}/errormap/1"]
    assert summarised == [second.directory]
    before = (plan.directory / "sweep.csv").read_bytes()
    assert run_it()[0] == 0
    assert summarised == [second.directory]
    assert (plan.directory / "sweep.csv").read_bytes() == before


def test_points_that_wait_for_a_failed_segmenter_of_another_one_say_so(
    run_it: Callable[..., tuple[int, str]], plan: SweepPlan
) -> None:
    first, second = plan.points
    code, text = run_it(f"{first.name}/segmenter/2")
    assert code == 1
    assert f"failed: {first.name}: segmenter/2: whqa train: no such luck" in text
    assert f"failed: {second.name}: errormap/0 waits for {first.name}/segmenter/2" in text
    found = json.loads((plan.directory / "sweep.json").read_text())
    assert (found["chosen_by"], found["why"]) == (None, "no point is finished")


def test_a_segmenter_that_was_removed_is_shared_again(
    run_it: Callable[..., tuple[int, str]], plan: SweepPlan, tmp_path: Path
) -> None:
    assert run_it()[0] == 0
    (tmp_path / "ready" / "order").unlink()
    for path in (plan.points[0].directory / "segmenter" / "1").iterdir():
        path.unlink()
    assert run_it()[0] == 0
    assert not (tmp_path / "ready" / "order").exists()
    assert (plan.points[0].directory / "segmenter" / "1" / "COMPLETED").exists()


def test_ctrl_c_ends_in_one_line(
    plan: SweepPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(graph: Graph, console: Console) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(room, "work_through", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["sweep", *plan.words, "--jobs", "1"])
    assert end.value.code == 130
    assert capsys.readouterr().err == "whqa sweep: stopped; the same command continues from the last checkpoint\n"


def test_runs_of_a_graph_of_several_experiments_have_names_of_their_own(tmp_path: Path) -> None:
    run = Run("segmenter", "0", tmp_path, 1.0)
    assert (run.name, replace(run, of="a").name) == ("segmenter/0", "a/segmenter/0")
