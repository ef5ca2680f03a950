"""What has become of the runs of experiments, as tables for people."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from whqa.results.experiment_status import RUN_STATES, ExperimentStatus, RunStatus, State, status

WATCH_S = 3.0
_COLUMNS = ("run", "state", "done", "left", "host", "")
_COLOURS: dict[State, str] = {"running": "green", "failed": "red", "stopped": "yellow"}
_NAMED = 5


def watch(directory: Path, console: Console) -> None:
    """Draw the tables again and again until all runs are done; not on a terminal, once they are.

    Raises:
        InputError: see `whqa.results.experiment_status.status`.
    """
    found = status(directory)
    with Live(status_tables(found), console=console, auto_refresh=False) as live:
        live.refresh()
        while not all(_is_done(one) for one in found.values()):
            time.sleep(WATCH_S)
            found = status(directory)
            live.update(status_tables(found), refresh=True)


def status_tables(found: Mapping[str, ExperimentStatus]) -> RenderableType:
    """A line and a table of each experiment; of one among several that is done, the line alone."""
    parts: list[RenderableType] = []
    for name, one in found.items():
        parts.append(Text(_headline(name, one)))
        if one["runs"] and not (len(found) > 1 and _is_done(one)):
            parts.append(_table(one["runs"]))
    return Group(*parts)


def _is_done(one: ExperimentStatus) -> bool:
    return one["error"] is None and all(run["state"] == "done" for run in one["runs"].values())


def _headline(name: str, one: ExperimentStatus) -> str:
    if one["error"] is not None:
        return one["error"]
    counts = Counter(run["state"] for run in one["runs"].values())
    line = f"{name} ({one['plan']}, {one['folds']} folds): "
    line += ", ".join(f"{counts[state]} {state}" for state in RUN_STATES if counts[state])
    at_work = any(run["state"] == "running" or run["job"] for run in one["runs"].values())
    stands_still = not at_work and not _is_done(one)
    return line + ("; nothing runs, the same `whqa cv ...` or `whqa sweep ...` continues" if stands_still else "")


def _table(runs: Mapping[str, RunStatus]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for head in _COLUMNS:
        table.add_column(
            head, justify="right" if head in ("done", "left") else "left", no_wrap=head != "", overflow="fold"
        )
    for name, run in runs.items():
        left = "" if run["left_s"] is None else str(timedelta(seconds=round(run["left_s"])))
        host = run["host"] or "" if run["state"] in ("running", "stopped") else ""
        done = "" if run["state"] == "waiting" and not run["done"] else f"{100 * run['done']:.0f} %"
        state = Text(run["state"], style=_COLOURS.get(run["state"], ""))
        table.add_row(name, state, done, left, Text(host), Text(_what(run, runs)))
    return table


def _what(run: RunStatus, runs: Mapping[str, RunStatus]) -> str:
    """The last column: what a run does, why it does nothing, what it waits for."""
    if run["state"] == "running":
        if run["phase"] is None:
            return "begins"
        unit = "step" if run["phase"] == "training" else "volume"
        return run["phase"] + ("" if run["step"] is None else f", {unit} {run['step']} of {run['of']}")
    if run["state"] == "failed":
        return f"{run['why']}" + (f"; log: {run['log']}" if run["log"] else "")
    if run["state"] == "stopped":
        again = "begins afresh" if run["resumes_from"] is None else f"resumes from step {run['resumes_from']}"
        return f"{run['why']}; if it is gone, it {again}" if run["why"] else again
    if run["state"] == "waiting":
        told = f", {run['why']}" if run["why"] else ""
        return (f"for masks of {_makers(run['waits_for'], runs)}" if run["waits_for"] else "for its turn") + told
    return ""


def _makers(names: list[str], runs: Mapping[str, RunStatus]) -> str:
    """Those that failed first, as nothing goes on without them."""
    failed = [name for name in names if runs[name]["state"] == "failed"]
    listed = [f"{name} (failed)" for name in failed] + [name for name in names if name not in failed]
    more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return ", ".join(listed[:_NAMED]) + more
