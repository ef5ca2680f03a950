"""The table of a sweep as people see it in a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whqa.contract.sweep_json import Sweep, SweepPoint
from whqa.report.numbers import Columns, show_interval, show_number
from whqa.results.summary_entry import at_path

_COLUMNS: Columns = (
    ("validation.error_dice", "validation:\nerror Dice", 3),
    ("validation.segmenter_dice", "validation:\nsegmenter Dice", 3),
    ("test.error_dice", "test:\nerror Dice", 3),
    ("test.error_dice_all", "test, all kinds:\nerror Dice", 3),
    ("test.segmentation_dice", "test:\nsegmentation Dice", 3),
)
_ALWAYS = ("validation.error_dice", "validation.segmenter_dice", "test.error_dice")
_WIDE = 120


def print_sweep(found: Sweep, directory: Path, console: Console) -> None:
    """The finished points, the best first, then why the others are not, then the files."""
    done = [point for point in found["points"] if point["state"] == "done"]
    if done:
        console.print(_table(found, console.width >= _WIDE))
        console.print(
            f"best first: {found['why']}" if found["chosen_by"] else found["why"], style="dim", soft_wrap=True
        )
        console.print(
            "mean ± standard deviation of the folds; difference to the first point [95 % by patient]; test numbers "
            "sort nothing",
            style="dim",
            soft_wrap=True,
        )
    for point in found["points"]:
        if point["state"] == "failed":
            console.print(escape(f"failed: {point['name']}: {point['why']}"), highlight=False, soft_wrap=True)
    if len(done) < len(found["points"]):
        console.print("the same command runs again what is missing", highlight=False)
    for name in ("sweep.csv", "sweep.json", "sweep.html"):
        console.print(escape(f"{directory / name}"), soft_wrap=True, highlight=False)


def _table(found: Sweep, wide: bool) -> Table:
    done = [point for point in found["points"] if point["state"] == "done"]
    columns = [column for column in _COLUMNS if (wide or column[0] in _ALWAYS) and _tells(column[0], found, done)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("point", overflow="fold")
    for _, head, _ in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for point in done:
        title = "\n".join(f"{key}={value}" for key, value in point["settings"].items())
        mark = " (first)" if point["name"] == found["first"] else ""
        table.add_row(escape(title) + mark, *(_cell(at_path(point, path), digits) for path, _, digits in columns))
    return table


def _tells(path: str, found: Sweep, done: Sequence[SweepPoint]) -> bool:
    """What is the same of all points, as of those that share their segmenters, fills a terminal for nothing."""
    return path == found["chosen_by"] or len({at_path(point, path)["mean"] for point in done}) > 1 or len(done) == 1


def _cell(figure: Mapping[str, Any], digits: int) -> str:
    if figure["mean"] is None:
        return "n/a"
    spread = "" if figure["fold_std"] is None else f" ± {show_number(figure['fold_std'], digits)}"
    difference = figure["difference"]
    interval = show_interval(difference["ci95"], digits, signed=True)
    shown = "" if difference["mean"] is None else "\n" + show_number(difference["mean"], digits, signed=True)
    return show_number(figure["mean"], digits) + spread + shown + (escape(f"\n[{interval}]") if interval else "")
