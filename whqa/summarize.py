"""Folds -> one table, one file of numbers, one page: `whqa summarize runs/<experiment>`.

Reads what the folds left behind, refuses what is missing or doubled, and writes beside them `cases.csv`,
`summary.json` and `summary.html`. Everything is computed from the case tables; no network runs here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whqa.config.run_config import refuse_mixed_settings
from whqa.contract.entries import Entry
from whqa.contract.summary_json import Segmentation, Summary
from whqa.errors import InputError
from whqa.files import as_named, atomic_path, write_json, write_text
from whqa.masks.made_from import refuse_mixed_origins, runs_begun, unknown_origin
from whqa.parallel.beside import Start, process_beside
from whqa.report import style
from whqa.report.numbers import Columns, show_entry, show_interval, show_share
from whqa.report.summary_page import render_page
from whqa.report.terminal import print_columns
from whqa.results.environment import environment
from whqa.results.failure_score import SCORES
from whqa.results.interval_coverage import interval_numbers, measure_intervals
from whqa.results.statistics import method_numbers, segmentation_numbers
from whqa.results.summary_entry import at_path, shown_views
from whqa.results.tables import RunTables, read_run

_COLUMNS: Columns = (
    ("error Dice", "error_dice", 3),
    ("lead", "lead", 3),
    ("AUPRC", "error_auprc", 3),
    ("AURC", "failure.aurc", 3),
    ("seconds", "seconds_per_case", 2),
    ("PCC vol", "volume.pcc", 3),
    ("rho vol", "volume.spearman", 3),
    ("MAE vol", "volume.mae", 4),
    ("const.", "volume.mae_constant", 4),
    ("PCC heart", "heart.pcc", 3),
    ("MAE heart", "heart.mae", 4),
    ("const.", "heart.mae_constant", 4),
)
"""Head, entry and digits; the first is shown with its interval."""


def summarize_beside(run_dir: Path, mixed: bool = False) -> Summary:
    """`summarize` for commands: a process beside draws half of the figures.

    That process imports whatever script is at work, which a command can bear and a user's script may not.
    """
    with process_beside(style.warm_up) as start:
        return summarize(run_dir, mixed=mixed, start=start)


def summarize(run_dir: Path, console: Console | None = None, mixed: bool = False, *, start: Start = partial) -> Summary:
    """Join the folds of `run_dir` and write cases.csv, summary.json and summary.html there.

    Args:
        run_dir: `runs/<experiment>` with folds.json and all folds of both stages completed.
        console: where the table is printed; standard output by default.
        mixed: also put folds of different settings or data together, and say so.
        start: has a part of the figures drawn, see `whqa.parallel.beside`.

    Returns:
        The content of summary.json.

    Raises:
        InputError: a fold is missing, a case is judged twice or nowhere, or a table is damaged.
    """
    run_dir = as_named(run_dir)
    tables = read_run(run_dir, mixed)
    if not mixed:
        refuse_mixed_settings(runs_begun(run_dir))
    differing = _differing(run_dir, tables) if mixed else ""
    for note in filter(None, (unknown_origin(run_dir), differing)):
        print(f"note: {note}", file=sys.stderr)
    cohort = tables.folds["cohort"]
    measured = measure_intervals(tables)
    summary: Summary = {
        "experiment": run_dir.name,
        "cohort": {
            "name": cohort["name"],
            "cases": len(tables.folds["patients"]),
            "folds": len(tables.folds["folds"]),
            "structures": list(tables.structures),
        },
        "plan": tables.folds["plan"],
        "environment": environment(),
        "segmentation": segmentation_numbers(tables.segmented, tables.structures),
        "methods": method_numbers(tables, measured),
        "intervals": interval_numbers(tables, measured),
    }
    if differing:
        summary["mixed"] = differing
    page = render_page(tables, summary, run_dir, start)
    with atomic_path(run_dir / "cases.csv") as temporary:
        # as the folds' tables end their lines: a carriage return within a name is quoted then
        tables.text.to_csv(temporary, index=False, lineterminator="\r\n")
    write_json(run_dir / "summary.json", summary)
    write_text(run_dir / "summary.html", page)
    _print(summary, run_dir, console or Console())
    return summary


def _differing(run_dir: Path, tables: RunTables) -> str:
    """How the folds differ, as the line says that refuses them, without its remedy."""
    found: list[str] = []
    for refuse in (
        partial(refuse_mixed_settings, runs_begun(run_dir)),
        partial(refuse_mixed_origins, run_dir, tables.folds["folds"]),
    ):
        try:
            refuse()
        except InputError as error:
            found.append(str(error).partition("; train again")[0])
    return "; ".join(found)


def _print(summary: Summary, run_dir: Path, console: Console) -> None:
    n_folds = summary["cohort"]["folds"]
    console.print(escape(f"{summary['experiment']}: {n_folds} folds, mean [95 % by patient]"), highlight=False)
    if "mixed" in summary:
        console.print(escape(f"folds that differ were put together: {summary['mixed']}"), soft_wrap=True)
    print_columns(console, _COLUMNS, partial(_table, summary))
    console.print(_strata(summary))
    for line in (_segmentation(summary["segmentation"]), *_correction_and_intervals(summary), _confidences(summary)):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(
        "lead: of the network in error Dice, mask by mask; vol: whole crop; heart: mask's foreground + 10 mm; "
        "const.: MAE of the training mean of Acc",
        style="dim",
    )
    for name in ("cases.csv", "summary.json", "summary.html"):
        console.print(escape(f"{run_dir / name}"), soft_wrap=True, highlight=False)


def _segmentation(numbers: Segmentation) -> str:
    dice, hd95 = numbers["dice"], numbers["hd95_mm"]
    if dice["mean"] is None:
        return f"segmentation: {dice['reason']}"
    return f"segmentation (final masks): Dice {_with_interval(dice, 3)}, HD95 {_with_interval(hd95, 1)} mm"


def _correction_and_intervals(summary: Summary) -> list[str]:
    """A line on the first method's correction and one on its intervals, where there are any."""
    masks, (method, parts) = shown_views(summary["methods"])[0], next(iter(summary["methods"].items()))
    lines, gain = [], parts[masks]["correction"]["gain"]
    if gain["mean"] is not None:
        before, after = (show_entry(parts[masks]["correction"][name], 3) for name in ("dice_before", "dice_after"))
        gained = show_entry(gain, 3, signed=True) + _brackets(gain, 3, signed=True)
        lines.append(f"correction ({escape(method)}, {masks}): mean Dice {before} to {after}, gain {gained}")
    intervals: Mapping[str, Any] = summary["intervals"]
    held = intervals[masks]["acc_volume"]["coverage"]
    if held["mean"] is not None:
        lines.append(
            f"{show_share(summary['intervals']['confidence'])} intervals for Acc ({masks}): "
            f"{show_share(held['mean'])} hold the truth"
        )
    return lines


def _table(summary: Summary, columns: Columns) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for label in ("masks", "method"):
        table.add_column(label, no_wrap=True)
    for label, _, _ in columns:
        table.add_column("\n".join(label.split(" ")), justify="right", no_wrap=True)
    for masks in shown_views(summary["methods"]):
        for method, halves in summary["methods"].items():
            table.add_row(masks, escape(method), *(_cell(halves[masks], column) for column in columns))
        table.add_section()
    return table


def _strata(summary: Summary) -> Table:
    """The first method on all masks, by their true quality."""
    method, parts = next(iter(summary["methods"].items()))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(f"strata ({escape(method)}, all)", no_wrap=True)
    for label in ("n", "bias heart", "MAE heart", "coverage", "error Dice", "correction"):
        table.add_column(label, justify="right", min_width=len(max(label.split(), key=len)))
    for name, found in parts["all"]["strata"].items():
        if found["n"]:
            gain = show_entry(found["correction"], 3, signed=True)
            held = show_share(found["coverage"]["mean"])
            bias, mae, dice = show_entry(found["bias"], 3, signed=True), found["mae"], found["error_dice"]
            table.add_row(name, str(found["n"]), bias, show_entry(mae, 3), held, show_entry(dice, 3), gain)
    return table


def _confidences(summary: Summary) -> str:
    """What AURC ranks the masks of each method by."""
    scores = {method: parts["all"]["failure"]["score"] for method, parts in summary["methods"].items()}
    return "AURC by: " + ", ".join(f"{escape(method)} {SCORES[name]}" for method, name in scores.items() if name)


def _cell(numbers: Mapping[str, Any], column: tuple[str, str, int]) -> str:
    _, path, digits = column
    entry = at_path(numbers, path)
    return _with_interval(entry, digits) if column == _COLUMNS[0] else show_entry(entry, digits)


def _with_interval(entry: Entry, digits: int) -> str:
    return show_entry(entry, digits) + _brackets(entry, digits)


def _brackets(entry: Entry, digits: int, signed: bool = False) -> str:
    shown = show_interval(entry["ci95"], digits, signed)
    return escape(f" [{shown}]") if shown else ""
