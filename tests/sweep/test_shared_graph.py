"""Who trains the segmenters that several points need, and who waits for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from whqa.cv import Graph, plan_runs
from whqa.errors import InputError
from whqa.masks.plan import MaskPlan
from whqa.stages import from_config
from whqa.stages.schedule import Run
from whqa.sweep import shared_graph as room
from whqa.sweep.shared_graph import shared_graph
from whqa.sweep.sweep_plan import Point, plan_sweep


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Run]]:
    """The graph of a sweep of the demo with these words, without any data."""

    def without_data(point: Point, jobs: int | None, trained_here: bool) -> list[Run]:
        plan = MaskPlan(point.config.masks.plan, point.config.folds)
        return plan_runs(point.config, point.directory, plan, point.words)

    def make(*words: str) -> list[Run]:
        always = [
            f"runs_dir={tmp_path}",
            "experiment=demo",
            "masks=out_of_fold",
            "name=s",
            "segmenter.validation_fraction=0.2",
        ]
        return shared_graph(plan_sweep([*always, *words]).points, 2)

    monkeypatch.setattr(room, "_runs", without_data)
    return make


def _of(runs: list[Run], stage: str) -> list[Run]:
    return [run for run in runs if run.stage == stage]


def test_settings_of_the_error_map_stage_train_the_segmenters_once(graph: Callable[..., list[Run]]) -> None:
    runs = graph("errormap.head=label,binary", "errormap.steps=50,100")
    assert [run.of for run in _of(runs, "segmenter")] == ["s,errormap.head=label,errormap.steps=50"] * 3
    assert len(_of(runs, "errormap")) == 4 * 3
    assert len({run.name for run in runs}) == len(runs)
    trained = {run.name: run for run in _of(runs, "segmenter")}
    for run in _of(runs, "errormap"):
        assert run.needs == set(trained)
        own = run.directory.parents[1] / "segmenter"
        first = run.of == "s,errormap.head=label,errormap.steps=50"
        assert run.shares == (() if first else tuple((t.directory, own / t.fold) for t in trained.values()))
        assert f"name='{run.of}'" in run.words


def test_settings_of_the_segmenters_train_them_for_each_value(graph: Callable[..., list[Run]]) -> None:
    runs = graph("segmenter.learning_rate=0.01,0.02", "errormap.head=label,binary")
    assert {run.of for run in _of(runs, "segmenter")} == {
        "s,errormap.head=label,segmenter.learning_rate=0.01",
        "s,errormap.head=label,segmenter.learning_rate=0.02",
    }
    for run in _of(runs, "errormap"):
        rate = run.of.rpartition("=")[2]
        assert {need.split("/")[0] for need in run.needs} == {f"s,errormap.head=label,segmenter.learning_rate={rate}"}


def test_plans_share_those_segmenters_that_make_the_same_masks(graph: Callable[..., list[Run]]) -> None:
    runs = graph("masks=out_of_fold,nested,in_sample")
    by_plan = {
        name: [r.fold for r in _of(runs, "segmenter") if r.of == f"s,masks={name}"]
        for name in ("out_of_fold", "nested", "in_sample")
    }
    assert by_plan == {"out_of_fold": ["0", "1", "2"], "nested": ["0-1", "0-2", "1-2"], "in_sample": ["0", "1", "2"]}
    nested = next(run for run in _of(runs, "errormap") if run.of == "s,masks=nested" and run.fold == "0")
    assert nested.needs == {
        "s,masks=out_of_fold/segmenter/0",
        "s,masks=nested/segmenter/0-1",
        "s,masks=nested/segmenter/0-2",
    }
    assert [target.name for _, target in nested.shares] == ["0"]


@pytest.mark.parametrize("state", ["COMPLETED", "checkpoints"])
def test_whoever_has_a_segmenter_already_shares_it(graph: Callable[..., list[Run]], tmp_path: Path, state: str) -> None:
    there = tmp_path / "s" / "s,errormap.head=binary" / "segmenter" / "1"
    (there / state).mkdir(parents=True) if state == "checkpoints" else there.mkdir(parents=True)
    if state == "COMPLETED":
        (there / state).touch()
    runs = graph("errormap.head=label,binary")
    assert {run.fold: run.of.rpartition("=")[2] for run in _of(runs, "segmenter")} == {
        "0": "label",
        "1": "binary",
        "2": "label",
    }


def test_a_run_finds_what_is_shared_when_it_starts(
    graph: Callable[..., list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = graph("errormap.head=label,binary")
    for run in _of(runs, "segmenter"):
        run.directory.mkdir(parents=True)
        (run.directory / "masks.json").write_text(run.fold)
        (run.directory / "COMPLETED").touch()
    started: list[list[str]] = []
    monkeypatch.setattr("subprocess.Popen", lambda command, **options: started.append(command))
    made = Graph(runs, ["train"], 2)
    run = next(r for r in made.ready() if r.of.endswith("binary"))
    made.start(run)
    own = run.directory.parents[1] / "segmenter"
    assert [(own / fold / "masks.json").read_text() for fold in "012"] == ["0", "1", "2"]
    assert all((own / fold / "COMPLETED").exists() for fold in "012")
    assert started == [["train", *run.words, "stage=errormap", f"fold={run.fold}"]]


def test_all_points_are_looked_at_before_the_first_leaves_a_file(
    graph: Callable[..., list[Run]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(config: Any, trained_here: bool) -> None:
        if config.errormap.steps == 100:
            raise InputError("no")

    begun: list[str] = []
    monkeypatch.setattr(from_config, "refuse_unmakeable", refused)
    monkeypatch.setattr(room, "_runs", lambda point, *_: begun.append(point.name))
    with pytest.raises(InputError, match="no"):
        graph("errormap.steps=50,100")
    assert begun == []
