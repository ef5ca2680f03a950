"""Segmenters of the nested plan that start from those of pairs: what waits for what, what they start from, who may."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from whqa.config.words import compose_config
from whqa.cv import plan_runs
from whqa.errors import InputError
from whqa.masks.plan import MaskPlan, steps_from_pair
from whqa.masks.store import mask_path
from whqa.stages.from_config import refuse_unmakeable
from whqa.stages.pair_start import network_weights

Train = Callable[..., int]
Tiny = Callable[[Path], list[str]]
FROM_PAIRS = ("masks=nested", "segmenter.from_pairs=true", "segmenter.validation_fraction=0")


@pytest.mark.parametrize("n", [3, 5])
def test_single_segmenters_wait_for_a_pair_that_has_not_seen_their_fold(n: int) -> None:
    plan = MaskPlan("nested", n)
    graph, before = plan.graph(from_pairs=True), plan.graph()
    assert graph.keys() == before.keys()
    held_out = {job.name: set(job.held_out) for job in plan.segmenters}
    for name, needs in graph.items():
        stage, fold = name.split("/")
        if stage == "errormap" or "-" in fold:
            assert needs == before[name]
        else:
            (pair,) = needs
            assert int(fold) in held_out[pair.removeprefix("segmenter/")]
            assert not before[name]


@pytest.mark.parametrize(
    ("steps", "of_an_epoch", "expected"), [(5000, 100, 1700), (275, 25, 100), (24, 12, 12), (12, 12, 12)]
)
def test_a_third_of_the_steps_in_whole_epochs(steps: int, of_an_epoch: int, expected: int) -> None:
    assert steps_from_pair(steps, of_an_epoch) == expected


def test_the_estimate_of_the_time_left_knows_that_they_are_shorter(tmp_path: Path) -> None:
    plan = MaskPlan("nested", 3)
    cfg = compose_config(["experiment=demo", *FROM_PAIRS])
    work = {run.name: run.work for run in plan_runs(cfg, tmp_path, plan)}
    assert work["segmenter/0"] / work["segmenter/0-1"] == pytest.approx(100 / 275)
    off = {run.name: run.work for run in plan_runs(compose_config(["experiment=demo", "masks=nested"]), tmp_path, plan)}
    assert off["segmenter/0"] == off["segmenter/0-1"] == work["segmenter/0-1"]
    assert off["errormap/0"] == work["errormap/0"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("masks=out_of_fold", "segmenter.validation_fraction=0"), "trains no segmenters of pairs; use masks=nested"),
        (("masks=nested", "segmenter.validation_fraction=0.2"), r"set segmenter\.validation_fraction=0"),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], line: str) -> None:
    cfg = compose_config(["experiment=demo", "segmenter.from_pairs=true", *words])
    with pytest.raises(InputError, match=line):
        refuse_unmakeable(cfg)
    refuse_unmakeable(compose_config(["experiment=demo", *FROM_PAIRS]))


def test_a_segmenter_starts_from_the_pair_and_keeps_whose_masks_it_follows(
    tmp_path: Path, phantoms: Path, train: Train, tiny: Tiny, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(phantoms, tmp_path, dirs_exist_ok=True)
    # a rate at which nothing moves: what it ends with is what it has started from
    still = ("segmenter.learning_rate=1e-12", "segmenter.weight_decay=0", "segmenter.freeze_norm=0")
    short = ("segmenter.steps=12", "segmenter.steps_per_epoch=4", "segmenter.validate_every=9")
    words = (*tiny(tmp_path), *FROM_PAIRS, *still, *short, "stage=segmenter")
    runs = tmp_path / "runs" / "tiny" / "segmenter"

    assert train(*words, "fold=0") == 2
    assert "that of the pair 0-1, which has not finished" in capsys.readouterr().err

    assert train(*words, "fold=0-1") == 0
    assert train(*words, "fold=0") == 0
    pair, single = network_weights(runs / "0-1"), network_weights(runs / "0")
    assert all(torch.allclose(pair[name].float(), values.float(), atol=1e-6) for name, values in single.items())
    with (runs / "0" / "metrics.csv").open(newline="") as file:
        assert max(int(row["step"]) for row in csv.DictReader(file)) < 4
    record = json.loads((runs / "0" / "made_from.json").read_text())
    assert record["masks"] == {"0-1": json.loads((runs / "0-1" / "masks.json").read_text())}
    assert json.loads((runs / "0-1" / "made_from.json").read_text())["masks"] == {}

    # another pair's segmenter: what came of the former does not go with it
    digests = record["masks"]["0-1"] | {next(iter(record["masks"]["0-1"])): "0" * 64}
    (runs / "0" / "made_from.json").write_text(json.dumps(record | {"masks": {"0-1": digests}}))
    (runs / "0" / "COMPLETED").unlink()
    assert train(*words, "fold=0") == 2
    assert "other masks than there are now (masks of 0-1" in capsys.readouterr().err

    (runs / "0" / "made_from.json").unlink()
    case = json.loads((runs.parent / "folds.json").read_text())["folds"][0][0]
    path = mask_path(runs / "0-1", case, "final")
    with np.load(path) as arrays:
        changed = dict(arrays) | {"unseen": np.array(False)}
    np.savez(path, **changed)
    assert train(*words, "fold=0") == 2
    assert f"segmenter '0-1' was trained on case {case}" in capsys.readouterr().err
