"""A real sweep of two points, small enough for every run of the tests; and one of its points again, killed."""

from __future__ import annotations

import io
import json
import os
import random
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from whqa.cv import Graph
from whqa.sweep.sweep_plan import SweepPlan, plan_sweep
from whqa.sweep.whole_sweep import cross_validate_all

Tiny = Callable[[Path], list[str]]
Read = Callable[[Path], list[dict[str, str]]]
Table = Callable[[Path], dict[str, Any]]

KILLED_HERE = Path(__file__).with_name("killed_here.py")
train_here = runpy.run_path(str(KILLED_HERE))["train_here"]
KILLS = 3
# Of files, in the first minute or less of a cross-validation; it makes more than twice as many.
CHANGES = 100
FEWER = ("folds=2", "data.n=4", "masks.kinds=[final]", "segmenter.steps=12", "errormap.steps=12", "errormap.overlays=0")


def small(words: list[str]) -> list[str]:
    """The tiny study with fewer cases, folds, steps and masks."""
    keys = {word.split("=")[0] for word in FEWER}
    return [*(word for word in words if word.split("=")[0] not in keys), *FEWER]


@dataclass(frozen=True)
class Swept:
    """A finished sweep, which runs were trained for it, and what was printed."""

    plan: SweepPlan
    trained: list[str]
    text: str


def sweep(words: list[str], drawn: bool) -> Swept:
    """Run what is missing of it in this process."""
    plan, trained, output = plan_sweep(words), [], io.StringIO()

    def work(graph: Graph, console: Console) -> None:
        trained.extend(run.name for run in graph.runs if not run.complete)
        train_here(graph, console)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", sys.argv)
        if not drawn:
            patch.setattr("whqa.report.style.png", lambda figure: b"")
        try:
            code = cross_validate_all(plan, 1, Console(file=io.StringIO()), Console(file=output, width=200), work=work)
        finally:
            # the trainer sets it for the whole process
            torch.use_deterministic_algorithms(False)
    assert code == 0
    return Swept(plan, trained, output.getvalue())


def media_of(run: Any) -> set[str]:
    """Keys of tables, pages and pictures."""
    return {key.removesuffix("/_type") for row in run.rows for key in row if key.endswith("/_type")}


@pytest.fixture(scope="module")
def root(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the phantoms, below which the sweep lies."""
    root = tmp_path_factory.mktemp("swept")
    shutil.copytree(phantoms, root, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def words(root: Path, tiny: Tiny) -> list[str]:
    """Of the sweep."""
    return [*small(tiny(root)), "errormap.head=label,binary"]


@pytest.fixture(scope="module")
def swept(words: list[str]) -> Swept:
    return sweep(words, drawn=False)


def test_a_real_sweep_trains_segmenters_once_and_sorts_its_table_by_validation(
    swept: Swept, root: Path, rows_of: Read
) -> None:
    first, second = (point.name for point in swept.plan.points)
    assert swept.trained == [
        *(f"{first}/segmenter/{k}" for k in range(2)),
        *(f"{name}/errormap/{k}" for name in (first, second) for k in range(2)),
    ]
    found = json.loads((swept.plan.directory / "sweep.json").read_text())
    assert found["chosen_by"] == "validation.error_dice"
    rows = rows_of(swept.plan.directory / "sweep.csv")
    assert {row["point"] for row in rows} == {first, second}
    validation = [float(row["validation.error_dice"]) for row in rows]
    assert validation == sorted(validation, reverse=True)
    for row in rows:
        experiment = swept.plan.directory / row["point"]
        summary = json.loads((experiment / "summary.json").read_text())
        final = summary["methods"]["errormap"]["final"]["error_dice"]["mean"]
        assert float(row["test.error_dice"]) == pytest.approx(final)
        told = [r for k in range(2) for r in rows_of(experiment / "errormap" / str(k) / "validation.csv")]
        mean = sum(float(r["error_dice"]) for r in told) / len(told)
        assert float(row["validation.error_dice"]) == pytest.approx(mean)
    assert "test numbers sort nothing" in " ".join(swept.text.split())


def test_a_finished_sweep_trains_nothing_and_its_w_b_runs_read_back(
    swept: Swept, words: list[str], offline_wandb: None, offline_run: Callable[[Path], Any], rows_of: Read
) -> None:
    table = (swept.plan.directory / "sweep.csv").read_bytes()
    best, other = (row["point"] for row in rows_of(swept.plan.directory / "sweep.csv"))
    # a page that is gone is written again, and its summary run with it
    (swept.plan.directory / other / "summary.html").unlink()
    again = sweep([*words, "logger=wandb"], drawn=True)
    assert again.trained == []
    assert (swept.plan.directory / "sweep.csv").read_bytes() == table
    ran = offline_run(swept.plan.directory)
    assert (ran.begun.job_type, ran.ends) == ("sweep", [0])
    assert "errormap.head=label,binary" in ran.config["settings"]
    assert media_of(ran) == {"points", "page"}
    (points,) = swept.plan.directory.glob("wandb/offline-run-*/files/media/table/points_*.table.json")
    logged = json.loads(points.read_text())
    assert [row[logged["columns"].index("point")] for row in logged["data"]] == [best, other]
    assert ran.summary["best"] == best
    assert ran.summary["validation/error_dice"] == pytest.approx(
        float(rows_of(swept.plan.directory / "sweep.csv")[0]["validation.error_dice"])
    )
    of_point = offline_run(swept.plan.directory / other)
    assert (of_point.begun.job_type, of_point.begun.run_group) == ("summary", other)
    pictures = {"risk_coverage/final", "qi_accuracy/final_volume", "qi_accuracy/final_heart"}
    assert {"cases", "page", *pictures} <= media_of(of_point)
    told = json.loads((swept.plan.directory / other / "summary.json").read_text())
    mean = told["methods"]["errormap"]["final"]["error_dice"]["mean"]
    assert of_point.summary["final/errormap/error_dice"] == pytest.approx(mean)


def test_a_cross_validation_that_is_killed_thrice_ends_with_the_table_of_the_undisturbed_one(
    swept: Swept, phantoms: Path, tmp_path: Path, tiny: Tiny, table_of: Table, rows_of: Read
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    draw = random.Random(0)
    moments = ",".join(str(draw.randrange(1, CHANGES)) for _ in range(KILLS))
    done = subprocess.run(
        [sys.executable, str(KILLED_HERE), moments, *small(tiny(tmp_path)), "errormap.head=label"],
        # as many threads as here, or the last digits differ
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    ends = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("ended: ")]
    assert ends == [-signal.SIGKILL] * KILLS + [0], done.stderr
    (killed,), undisturbed = (tmp_path / "runs").glob("tiny*"), swept.plan.points[0].directory
    assert table_of(killed) | {"experiment": ""} == table_of(undisturbed) | {"experiment": ""}
    one, other = (rows_of(path / "cases.csv") for path in (killed, undisturbed))
    assert [row | {"seconds": ""} for row in one] == [row | {"seconds": ""} for row in other]
    logs = sorted(undisturbed.glob("*/*/metrics.csv"))
    assert len(logs) == 4
    for path in logs:
        assert path.read_bytes() == (killed / path.relative_to(undisturbed)).read_bytes()
