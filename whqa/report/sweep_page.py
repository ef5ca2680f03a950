"""sweep.html and the rows of sweep.csv, made from sweep.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from whqa.contract.sweep_json import Sweep, SweepPoint
from whqa.report.html import render
from whqa.report.numbers import Columns, show_interval, show_number
from whqa.report.summary_tables import Cell
from whqa.results.summary_entry import at_path

SWEEP_COLUMNS: Columns = (
    ("validation.error_dice", "validation: error Dice", 4),
    ("validation.segmenter_dice", "validation: segmenter Dice", 4),
    ("test.error_dice", "test: error Dice", 4),
    ("test.error_dice_all", "test: error Dice, all kinds", 4),
    ("test.segmentation_dice", "test: segmentation Dice", 4),
)
"""(Dotted path of a figure of a point, heading, digits)."""


def point_title(point: SweepPoint) -> str:
    """The settings that make a point what it is."""
    return " ".join(f"{key}={value}" for key, value in point["settings"].items())


def sweep_rows(found: Sweep) -> list[dict[str, Any]]:
    """A flat row a point: its place, its settings, then every number of every figure, None where there is none."""
    return [_flat(place, point) for place, point in enumerate(found["points"], start=1)]


def render_sweep(found: Sweep) -> str:
    """The page as HTML; everything that comes from files is escaped."""
    done = [point for point in found["points"] if point["state"] == "done"]
    return render(
        "sweep.html.j2",
        sweep=found,
        columns=[(path, head, path.startswith("test.")) for path, head, _ in SWEEP_COLUMNS],
        rows=[_row(point, found) for point in done],
        failed=[point for point in found["points"] if point["state"] == "failed"],
        title_of=point_title,
    )


def _row(point: SweepPoint, found: Sweep) -> dict[str, Any]:
    figures = [(at_path(point, path), path, digits) for path, _, digits in SWEEP_COLUMNS]
    return {
        "title": point_title(point),
        "link": quote(point["name"], safe="") + "/summary.html",
        "first": point["name"] == found["first"],
        "cells": [_cell(figure, digits, path == found["chosen_by"]) for figure, path, digits in figures],
    }


def _cell(figure: Mapping[str, Any], digits: int, decides: bool) -> dict[str, Any]:
    spread = "" if figure["fold_std"] is None else f" ± {show_number(figure['fold_std'], digits)}"
    mean = Cell(
        show_number(figure["mean"], digits) + (spread if figure["mean"] is not None else ""),
        show_interval(figure["ci95"], digits),
        figure.get("reason", "") if figure["mean"] is None else "",
        decides,
    )
    difference = figure["difference"]
    apart = "" if difference["mean"] is None else show_number(difference["mean"], digits, signed=True)
    return {"mean": mean, "difference": apart, "between": show_interval(difference["ci95"], digits, signed=True)}


def _flat(place: int, point: SweepPoint) -> dict[str, Any]:
    row: dict[str, Any] = {"place": place, "point": point["name"], **point["settings"]}
    row |= {"state": point["state"], "why": point["why"]}
    for path, _, _ in SWEEP_COLUMNS:
        figure = at_path(point, path) if point["state"] == "done" else {}
        difference = figure.get("difference", {})
        numbers = {"": figure, "_difference": difference}
        for what, entry in numbers.items():
            low, high = entry.get("ci95") or (None, None)
            row |= {f"{path}{what}": entry.get("mean"), f"{path}{what}_low": low, f"{path}{what}_high": high}
        row[f"{path}_fold_std"] = figure.get("fold_std")
    return row
