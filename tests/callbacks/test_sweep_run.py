"""The W&B run of a sweep: its table, its page, the numbers of the best point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from whqa.callbacks.summary_run import log_sweep
from whqa.callbacks.wandb_run import run_id
from whqa.contract.entries import Entry
from whqa.contract.sweep_json import Sweep, SweepFigure, SweepPoint
from whqa.files import write_text

wandb = pytest.importorskip("wandb")
pytestmark = pytest.mark.usefixtures("offline_wandb")


def _figure(mean: float, difference: float | None) -> SweepFigure:
    nothing: Entry = {"mean": None, "ci95": None, "reason": "it is the first point"}
    apart: Entry = nothing if difference is None else {"mean": difference, "ci95": [difference, difference]}
    return {"mean": mean, "ci95": [mean - 0.125, mean + 0.125], "fold_std": 0.25, "difference": apart}


def _point(name: str, mean: float, difference: float | None) -> SweepPoint:
    figure = _figure(mean, difference)
    return {
        "name": name,
        "settings": {"errormap.head": name},
        "state": "done",
        "why": None,
        "validation": {"error_dice": figure, "segmenter_dice": figure},
        "test": {"error_dice": figure, "error_dice_all": figure, "segmentation_dice": figure},
    }


@pytest.mark.parametrize("chosen", [True, False])
def test_the_run_of_a_sweep_holds_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: bool) -> None:
    found: Sweep = {
        "sweep": "s",
        "settings": ["errormap.head=label,binary"],
        "first": "label",
        "chosen_by": "validation.error_dice" if chosen else None,
        "why": "said",
        "points": [_point("binary", 0.5, 0.25), _point("label", 0.25, None)],
        "environment": {},  # type: ignore[typeddict-item]
    }
    write_text(tmp_path / "s" / "sweep.html", "<html></html>")
    begun: list[dict[str, Any]] = []

    class Run:
        def __init__(self) -> None:
            self.logged: dict[str, Any] = {}
            self.summary: dict[str, Any] = {}

        def log(self, values: dict[str, Any]) -> None:
            self.logged = values

    run = Run()
    monkeypatch.setattr(wandb, "init", lambda **settings: (begun.append(settings), run)[1])
    log_sweep(tmp_path / "s", found, project="p", mode="offline", entity="somebody")
    assert (begun[0]["job_type"], begun[0]["id"], begun[0]["entity"]) == ("sweep", run_id("s", "sweep", ""), "somebody")
    assert begun[0]["config"]["settings"] == ["errormap.head=label,binary"]
    table = run.logged["points"]
    place, column = table.columns.index("point"), table.columns.index("validation.error_dice_difference")
    assert [(row[place], row[column]) for row in table.data] == [("binary", 0.25), ("label", None)]
    if not chosen:
        assert run.summary == {}
        return
    assert run.summary["best"] == "binary"
    assert run.summary["validation/error_dice"] == 0.5
    assert run.summary["validation/error_dice_low"] == 0.375
    assert run.summary["test/error_dice_all/difference"] == 0.25
