"""The summary run of an experiment in W&B: its numbers, its settings, and when it is logged."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import whqa.summarize
from whqa.callbacks import summary_run
from whqa.callbacks.summary_run import headline_numbers, log_summary
from whqa.callbacks.wandb_run import run_id
from whqa.cli.commands import main
from whqa.files import write_text

wandb = pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("offline_wandb")


class _Run:
    """Remembers what is logged."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}
        self.logged: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)


def test_the_summary_run_holds_all_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished_study: tuple[Path, dict[str, Any]]
) -> None:
    directory, summary = finished_study
    run = _Run()

    def begin(**settings: Any) -> _Run:
        run.settings = settings
        return run

    monkeypatch.setattr(wandb, "init", begin)
    log_summary(directory, summary, project="p", mode="offline", entity="somebody")
    assert run.settings["group"] == "demo"
    assert run.settings["job_type"] == "summary"
    assert run.settings["id"] == run_id("demo", "summary", "")
    assert (run.settings["project"], run.settings["entity"]) == ("p", "somebody")
    entry = summary["methods"]["errormap"]["final"]["error_dice"]
    assert run.summary["final/errormap/error_dice"] == entry["mean"]
    assert run.summary["final/errormap/error_dice_low"] == entry["ci95"][0]
    assert run.summary["final/errormap/error_dice_high"] == entry["ci95"][1]
    assert run.summary["all/boundary/heart/pcc"] == summary["methods"]["boundary"]["all"]["heart"]["pcc"]["mean"]
    assert run.summary["segmentation/dice"] == summary["segmentation"]["dice"]["mean"]
    assert "final/constant/heart/pcc" not in run.summary
    assert all(math.isfinite(v) for v in run.summary.values())
    (media,) = run.logged
    assert {"cases", "page", "risk_coverage/final", "qi_accuracy/all_heart"} <= set(media)
    assert len(media["cases"].data) == len(pd.read_csv(directory / "cases.csv"))


def test_folds_that_differ_are_logged_where_they_were_put_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_run: Callable[..., Path]
) -> None:
    directory, run = write_run(tmp_path / "demo", n_cases=8), _Run()
    for path in directory.glob("*/1/made_from.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"cases": {c: {**k, "label": "x"} for c, k in record["cases"].items()}}))
    with Path("/dev/null").open("w") as nowhere:
        summary = whqa.summarize.summarize(directory, Console(file=nowhere), mixed=True)
    assert "mixed" in summary
    monkeypatch.setattr(wandb, "init", lambda **settings: run)
    log_summary(directory, summary, project="p", mode="offline", entity="somebody")
    assert run.summary["final/errormap/error_dice"] == summary["methods"]["errormap"]["final"]["error_dice"]["mean"]
    assert len(run.logged) == 1


def test_headline_numbers_of_a_small_summary() -> None:
    both = {"final": {"n": 3, "heart": {"acc": {"mean": 0.5, "std": None}, "pcc": {"mean": None, "ci95": None}}}}
    dice = {"mean": 0.25, "ci95": [0.125, 0.5], "per_structure": {"lv": {"mean": 1.0, "ci95": None, "reason": "few"}}}
    assert headline_numbers({"segmentation": {"dice": dice}, "methods": {"m": both}}) == {
        "segmentation/dice": 0.25,
        "segmentation/dice_low": 0.125,
        "segmentation/dice_high": 0.5,
        "segmentation/dice/per_structure/lv": 1.0,
        "final/m/n": 3.0,
        "final/m/heart/acc": 0.5,
    }


@pytest.fixture(scope="module")
def finished_study(
    tmp_path_factory: pytest.TempPathFactory, write_run: Callable[..., Path]
) -> tuple[Path, dict[str, Any]]:
    directory = write_run(tmp_path_factory.mktemp("runs") / "demo", n_cases=8)
    with Path("/dev/null").open("w") as nowhere:
        return directory, whqa.summarize.summarize(directory, Console(file=nowhere))


def test_summarize_logs_when_asked_with_the_settings_of_the_runs(
    tmp_path: Path, finished_study: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []
    shutil.copy(finished_study[0] / "folds.json", tmp_path)
    monkeypatch.setattr(whqa.summarize, "summarize_beside", lambda directory, mixed: {})
    monkeypatch.setattr(summary_run, "log_summary", lambda directory, summary, **options: asked.append(options))
    for words, expected in (([], []), (["--wandb"], [{"project": "whqa", "mode": "offline"}])):
        with pytest.raises(SystemExit) as end:
            main(["summarize", str(tmp_path), *words])
        assert (end.value.code, asked) == (0, expected)
    saved = "stage: errormap\nfold: 0\nerrormap: {a: 1}\ndata: {a: 1}\npreprocess: {a: 1}\nnetwork: {a: 1}\n"
    saved += "logger:\n  wandb:\n    _target_: x\n    project: hearts\n    mode: online\n    entity: lab\n"
    write_text(tmp_path / "errormap" / "0" / "config.yaml", saved)
    with pytest.raises(SystemExit):
        main(["summarize", str(tmp_path), "--wandb"])
    assert asked[-1] == {"project": "hearts", "entity": "lab", "mode": "offline"}
