"""`whqa sweep`: every combination of several values as a whole cross-validation, then one table.

    whqa sweep experiment=demo errormap.head=binary,label segmenter.learning_rate=5e-3,1e-2 --jobs 2

The same command continues where it stopped. A point that fails is told at the end; the others go on.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from whqa.callbacks.summary_run import log_summary, log_sweep
from whqa.contract.sweep_json import Sweep
from whqa.cv import TRAIN, Graph, graph_of, take_note, tracking, work_through
from whqa.errors import InputError
from whqa.files import write_json, write_rows, write_text
from whqa.masks.run_state import LOG, last_log_line
from whqa.masks.sharing import share_run
from whqa.report.sweep_page import render_sweep, sweep_rows
from whqa.results.environment import environment
from whqa.results.sweep_table import PointRows, read_point, sweep_points
from whqa.stages.schedule import Run
from whqa.stages.slurm import Slurm, tell
from whqa.summarize import summarize
from whqa.sweep.shared_graph import shared_graph
from whqa.sweep.sweep_plan import SweepPlan
from whqa.sweep.sweep_text import print_sweep

_SUMMARISED = ("cases.csv", "summary.json", "summary.html")


def cross_validate_all(
    plan: SweepPlan,
    jobs: int | None = None,
    console: Console | None = None,
    output: Console | None = None,
    slurm: Slurm | None = None,
    work: Callable[[Graph, Console], None] | None = None,
) -> int:
    """Run what is missing of a sweep, summarise its points, write and print their table.

    Args:
        plan: see `whqa.sweep.sweep_plan.plan_sweep`.
        jobs: runs side by side; None leaves it to `whqa.stages.schedule`.
        console: where progress is told; standard error by default.
        output: where the table is printed; standard output by default.
        slurm, work: see `whqa.cv.cross_validate`.

    Returns:
        0, or 1 where a point failed.

    Raises:
        InputError: the data are wrong, or a point's directory holds something else.
    """
    console = console or Console(stderr=True)
    config = plan.points[0].config
    tracked = tracking(config)
    runs = shared_graph(plan.points, jobs, trained_here=not slurm and work is None)
    if slurm and not all(run.complete for run in runs):
        last = partial(cross_validate_all, plan, jobs, work=take_note)
        tell(slurm.submit(runs, plan.directory, TRAIN, last), runs, plan.directory, console)
        return 0
    graph = graph_of(runs, config, jobs)
    changed = {run.of for run in graph.runs if not run.complete}
    (work or work_through)(graph, console)
    why = _failures(graph)
    for point in plan.points:
        if point.name not in why:
            _share_all(graph, point.name)
            if point.name in changed or not all((point.directory / name).is_file() for name in _SUMMARISED):
                _summarise(point.directory, why, tracked)
    found = _table(plan, why)
    write_sweep(plan.directory, found)
    print_sweep(found, plan.directory, output or Console())
    if tracked:
        log_sweep(plan.directory, found, **tracked)
    return 1 if why else 0


def write_sweep(directory: Path, found: Sweep) -> None:
    """sweep.csv, sweep.json and sweep.html."""
    rows = sweep_rows(found)
    write_rows(directory / "sweep.csv", list(rows[0]), rows)
    write_text(directory / "sweep.html", render_sweep(found))
    write_json(directory / "sweep.json", found)


def _table(plan: SweepPlan, why: dict[str, str]) -> Sweep:
    done: dict[str, PointRows] = {}
    for point in plan.points:
        if point.name not in why:
            try:
                done[point.name] = read_point(point.directory)
            except InputError as error:
                why[point.name] = str(error)
    settings = {point.name: dict(point.settings) for point in plan.points}
    points, chosen_by, reason = sweep_points([point.name for point in plan.points], settings, done, why)
    return {
        "sweep": plan.directory.name,
        "settings": list(plan.words),
        "first": plan.points[0].name,
        "chosen_by": chosen_by,
        "why": reason,
        "points": points,
        "environment": environment(),
    }


def _summarise(directory: Path, why: dict[str, str], tracked: Mapping[str, Any]) -> None:
    try:
        summary = summarize(directory, Console(file=io.StringIO()))
    except InputError as error:
        why[directory.name] = str(error)
        return
    if tracked:
        log_summary(directory, summary, **tracked)


def _share_all(graph: Graph, point: str) -> None:
    """Also where the error-map networks were complete before."""
    for run in graph.runs:
        for source, target in run.shares if run.of == point else ():
            share_run(source, target)


def _failures(graph: Graph) -> dict[str, str]:
    """Point -> why it is not finished: its own failed run, or another point's that it waits for."""
    runs = {run.name: run for run in graph.runs}
    why: dict[str, str] = {}
    for name in sorted(graph.failed):
        run = runs[name]
        why.setdefault(run.of, f"{run.stage}/{run.fold}: {_last_words(run)}")
    for run in graph.blocked():
        lacking = sorted(run.needs & graph.failed.keys()) or sorted(run.needs)
        why.setdefault(run.of, f"{run.stage}/{run.fold} waits for {', '.join(lacking)}")
    return why


def _last_words(run: Run) -> str:
    return f"{last_log_line(run.directory) or 'no output'}; log: {run.directory / LOG}"
