"""The points of a sweep: from words with several values to experiments with directories of their own.

runs/<sweep>/<point>/...      an experiment like any other
runs/<sweep>/{sweep.csv, sweep.json, sweep.html}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from whqa.config.instantiate import deciding, of_run
from whqa.config.run_name import run_name
from whqa.config.schema import Stage
from whqa.config.words import compose_config, sweep_choices
from whqa.errors import InputError
from whqa.masks.plan import chosen_by

_PARTS = ("stage", "fold")
# What points must share for their numbers to be of the same cases, folds and voxels.
_SHARED = ("data.", "seed", "folds", "preprocess.spacing", "preprocess.crop_mm", "preprocess.centre")
_FRACTION = 0.2


@dataclass(frozen=True)
class Point:
    """One combination of values.

    Attributes:
        name: of its directory.
        settings: key -> value, of those that vary.
        directory: of its experiment.
        words: of a run of it.
        config: that these give.
    """

    name: str
    settings: Mapping[str, str]
    directory: Path
    words: tuple[str, ...]
    config: DictConfig


@dataclass(frozen=True)
class SweepPlan:
    """A sweep's directory, the words that it was asked for with, its points in their order."""

    directory: Path
    words: tuple[str, ...]
    points: tuple[Point, ...]


def plan_sweep(words: Sequence[str]) -> SweepPlan:
    """The sweep of a command line, with Hydra's grammar: `a,b`, `choice(a,b)`, `range(1,4)`, `glob(*)`, `sweep=FILE`.

    Raises:
        InputError: nothing varies, a value is wrong, or the points could not be compared.
    """
    parts = [word for word in words if word.split("=", 1)[0] in _PARTS]
    if parts:
        raise InputError(f"{parts[0]}: every point is a whole cross-validation; use `whqa train -m` for one stage")
    choices = sweep_choices(words)
    fixed = [one[0] for one in choices if len(one) == 1]
    varied = [one for one in choices if len(one) > 1]
    if not varied:
        raise InputError(
            "no setting has several values; give one a list, such as errormap.head=binary,label, or name a file of "
            "conf/sweep, such as sweep=head"
        )
    base = compose_config([*fixed, *(one[0] for one in varied)])
    directory = Path(base.runs_dir) / _sweep_name(base.name, words)
    if (directory / "folds.json").exists():
        raise InputError(f"{directory}: holds an experiment, not a sweep; choose another name=...")
    points = tuple(_point(directory, base, fixed, list(chosen)) for chosen in product(*varied))
    _refuse_same(points, varied)
    _refuse_incomparable(points)
    return SweepPlan(directory, tuple(words), points)


def segmenter_settings(point: Point) -> str:
    """What decides the result of the point's segmenters, but for the fold that is left out; equal where they are."""
    return json.dumps(deciding(of_run(point.config, Stage.segmenter, "0")), sort_keys=True, default=str)


def _sweep_name(name: str, words: Sequence[str]) -> str:
    file = next((word.partition("=")[2] for word in words if word.startswith("sweep=")), "")
    named = any(word.startswith("name=") for word in words)
    return run_name(name, words) + (f",sweep={file}" if file and not named else "")


def _point(directory: Path, base: DictConfig, fixed: Sequence[str], chosen: Sequence[str]) -> Point:
    named = any(word.startswith("name=") for word in fixed)
    name = run_name(base.name, [*([] if named else fixed), *chosen])
    others = [w for w in fixed if w.split("=", 1)[0] not in ("name", "runs_dir", "cache_dir")]
    places = {"name": name, "runs_dir": str(directory), "cache_dir": str(base.cache_dir)}
    words = (*others, *chosen, *(f"{key}={_quoted(value)}" for key, value in places.items()))
    settings = {key.lstrip("+~"): value for key, _, value in (word.partition("=") for word in chosen)}
    return Point(name, settings, directory / name, words, compose_config(words))


def _quoted(value: str) -> str:
    """For Hydra, to which a comma or an equals sign says something else."""
    return "'" + value.replace("'", "\\'") + "'"


def _refuse_same(points: Sequence[Point], varied: Sequence[Sequence[str]]) -> None:
    if len({point.name for point in points}) < len(points):
        keys = ", ".join(dict.fromkeys(one[0].split("=", 1)[0] for one in varied))
        raise InputError(
            f"{keys}: two points are the same experiment; give each value once, and vary what an experiment is, not "
            "how or where it runs"
        )


def _refuse_incomparable(points: Sequence[Point]) -> None:
    of_points = [deciding(of_run(point.config, Stage.errormap, "0")) for point in points]
    first = of_points[0]
    for other in of_points[1:]:
        keys = sorted(key for key in first.keys() | other.keys() if first.get(key) != other.get(key))
        shared = next((key for key in keys if key.startswith(_SHARED)), None)
        if shared is not None:
            raise InputError(
                f"{shared}: points are compared on the same cases, folds and voxels, so it cannot vary within a sweep; "
                "start a sweep for each value"
            )
    for point in points:
        _refuse_unvalidated(point, Stage.errormap)
    if any(map(has_segmenters, points)) and len({segmenter_settings(point) for point in points}) > 1:
        for point in points:
            _refuse_unvalidated(point, Stage.segmenter)


def has_segmenters(point: Point) -> bool:
    """Whether the point trains any."""
    masks: Any = point.config.masks
    return chosen_by(masks).needs_segmenters


def _refuse_unvalidated(point: Point, stage: Stage) -> None:
    if not point.config[stage].validation_fraction:
        raise InputError(
            f"{stage}.validation_fraction=0 holds no training case back, by which alone the settings of a sweep may be "
            f"chosen; set {stage}.validation_fraction={_FRACTION}"
        )
