"""From the words of a sweep to its points: their names, their words, and what cannot be swept."""

from __future__ import annotations

from pathlib import Path

import pytest

from whqa.config.instantiate import config_dir, deciding, of_run
from whqa.config.run_config import refuse_sweep
from whqa.config.words import compose_config, search_path
from whqa.cv import cross_validate
from whqa.errors import InputError
from whqa.sweep.sweep_plan import Point, plan_sweep, segmenter_settings


def _values(points: tuple[Point, ...], key: str) -> list[str]:
    return [point.settings[key] for point in points]


def test_every_combination_is_a_point_with_a_directory_that_says_what_it_is(tmp_path: Path) -> None:
    words = [f"runs_dir={tmp_path}", "experiment=demo", "errormap=default,no_opinion", "errormap.head=label,binary"]
    plan = plan_sweep(words)
    assert plan.directory == tmp_path / "demo,errormap.head=label,binary,errormap=default,no_opinion"
    assert [dict(point.settings) for point in plan.points] == [
        {"errormap": group, "errormap.head": head}
        for group in ("default", "no_opinion")
        for head in ("label", "binary")
    ]
    second = plan.points[1]
    assert second.name == second.config.name == "demo,errormap.head=binary,errormap=default"
    assert second.directory == plan.directory / second.name
    assert Path(second.config.runs_dir) == plan.directory
    assert {Path(point.config.cache_dir) for point in plan.points} == {tmp_path / ".cache"}
    assert [str(point.config.errormap.head) for point in plan.points] == ["label", "binary"] * 2
    assert [point.config.errormap.inputs for point in plan.points[::2]] == [None, ["image", "mask"]]


def test_a_point_is_the_experiment_that_its_words_alone_make(tmp_path: Path) -> None:
    point = plan_sweep([f"runs_dir={tmp_path}", "experiment=demo", "errormap.steps=50,100"]).points[1]
    alone = compose_config(["experiment=demo", "errormap.steps=100"])
    assert deciding(of_run(point.config, "errormap", "0")) == deciding(of_run(alone, "errormap", "0"))
    again = compose_config(point.words)
    assert (again.name, again.runs_dir) == (point.name, str(point.directory.parent))


def test_a_name_of_the_user_s_is_that_of_the_sweep(tmp_path: Path) -> None:
    words = [f"runs_dir={tmp_path}", "experiment=demo", "name=mine", "seed=3", "errormap.steps=50,100"]
    plan = plan_sweep(words)
    assert plan.directory == tmp_path / "mine"
    assert [point.name for point in plan.points] == ["mine,errormap.steps=50", "mine,errormap.steps=100"]
    assert {point.config.seed for point in plan.points} == {3}


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("errormap.steps=50,100", ["50", "100"]),
        ("errormap.steps=choice(100,50)", ["100", "50"]),
        ("errormap.steps=range(50,200,step=50)", ["50", "100", "150"]),
        ("errormap.inputs=[image],[image,mask]", ["[image]", "[image,mask]"]),
        ("+masks.external={},{}", None),
        ("errormap=glob(*)", sorted(path.stem for path in (config_dir() / "errormap").glob("*.yaml"))),
    ],
)
def test_values_are_stated_in_hydra_s_grammar(word: str, values: list[str] | None, tmp_path: Path) -> None:
    words = [f"runs_dir={tmp_path}", "experiment=demo", word]
    if values is None:
        with pytest.raises(InputError, match="two points are the same experiment"):
            plan_sweep(words)
        return
    assert sorted(_values(plan_sweep(words).points, word.split("=")[0])) == sorted(values)


@pytest.mark.parametrize("path", sorted((config_dir() / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_file_makes_points_that_can_be_compared(path: Path, tmp_path: Path) -> None:
    plan = plan_sweep([f"runs_dir={tmp_path}", "experiment=demo", f"sweep={path.stem}"])
    assert plan.directory == tmp_path / f"demo,sweep={path.stem}"
    assert len(plan.points) > 1
    assert len({str(deciding(of_run(point.config, "errormap", "0"))) for point in plan.points}) == len(plan.points)


def test_the_command_line_goes_over_a_sweep_file(tmp_path: Path) -> None:
    words = [f"runs_dir={tmp_path}", "experiment=demo", "sweep=head", "errormap.head=binary", "errormap.steps=50,100"]
    assert [dict(point.settings) for point in plan_sweep(words).points] == [
        {"errormap.steps": "50"},
        {"errormap.steps": "100"},
    ]


def test_a_sweep_file_of_one_s_own(tmp_path: Path) -> None:
    (tmp_path / "mine" / "sweep").mkdir(parents=True)
    text = "# @package _global_\nhydra: {sweeper: {params: {errormap.steps: '50,100', errormap.warmup: 0.2}}}\n"
    (tmp_path / "mine" / "sweep" / "long.yaml").write_text(text)
    words = [search_path(tmp_path / "mine"), f"runs_dir={tmp_path}", "experiment=demo", "sweep=long"]
    points = plan_sweep(words).points
    assert [(point.config.errormap.steps, point.config.errormap.warmup) for point in points] == [(50, 0.2), (100, 0.2)]


def test_segmenters_are_alike_where_only_the_error_map_stage_differs(tmp_path: Path) -> None:
    def distinct(*words: str) -> int:
        points = plan_sweep(
            [f"runs_dir={tmp_path}", "experiment=demo", "segmenter.validation_fraction=0.2", *words]
        ).points
        return len({segmenter_settings(point) for point in points})

    assert distinct("errormap.head=label,binary") == 1
    assert distinct("masks=out_of_fold,nested") == 1
    assert distinct("segmenter.learning_rate=0.01,0.02", "errormap.head=label,binary") == 2


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (["errormap.head=binary"], "no setting has several values"),
        (["stage=segmenter,errormap"], r"stage=segmenter,errormap: every point is a whole cross-validation"),
        (["fold=0,1", "seed=1"], "fold=0,1: every point is a whole cross-validation"),
        (["seed=0,1"], "seed: points are compared on the same cases, folds and voxels"),
        (["folds=3,4"], "folds: points are compared on the same"),
        (["data.n=6,9"], r"data\.n: points are compared on the same"),
        (["preprocess.crop_mm=null,[9,9,9]"], r"preprocess\.crop_mm: points are compared"),
        (["errormap.head=binary,binary"], "errormap.head: two points are the same experiment"),
        (["trainer.precision=32-true,bf16-mixed"], "trainer.precision: two points are the same experiment"),
        (["errormap.steps=50,100", "errormap.validation_fraction=0"], r"set errormap\.validation_fraction=0\.2"),
        (["errormap.validation_fraction=0,0.2"], r"errormap\.validation_fraction=0 holds no training case back"),
        (["segmenter.learning_rate=0.01,0.02"], r"set segmenter\.validation_fraction=0\.2"),
        (["errormap.learning_rate=interval(0.001,0.1)"], "a grid has no point of an interval"),
        (["errormap.steps=50,100", "hydra/sweeper=optuna"], "whqa train -m"),
        (["errormap.steps=50,x"], "errormap.steps"),
        (["errormap.stepz=50,100"], "errormap.steps"),
        (["sweep=heat"], "head"),
    ],
)
def test_what_cannot_be_swept_is_refused_with_a_remedy(words: list[str], cause: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=cause):
        plan_sweep(["experiment=demo", f"runs_dir={tmp_path}", *words])
    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_error_map_stage_need_no_validation_of_the_segmenters(tmp_path: Path) -> None:
    words = ["experiment=demo", f"runs_dir={tmp_path}", "segmenter.validation_fraction=0", "errormap.steps=50,100"]
    assert len(plan_sweep(words).points) == 2


def test_an_experiment_is_not_taken_for_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "folds.json").touch()
    with pytest.raises(InputError, match="mine: holds an experiment, not a sweep"):
        plan_sweep(["experiment=demo", f"runs_dir={tmp_path}", "name=mine", "errormap.steps=50,100"])


def test_a_sweep_is_not_taken_for_an_experiment(tmp_path: Path) -> None:
    (tmp_path / "mine" / "errormap.steps=50").mkdir(parents=True)
    (tmp_path / "mine" / "errormap.steps=50" / "folds.json").touch()
    with pytest.raises(InputError, match="mine: holds a sweep, not an experiment; choose"):
        cross_validate(["experiment=demo", f"runs_dir={tmp_path}", "name=mine"])
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["errormap.steps=50"]
    refuse_sweep(tmp_path / "mine" / "errormap.steps=50")
