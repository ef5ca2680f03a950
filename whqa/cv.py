"""Full cross-validation of one experiment: a graph of runs, each its own process, resumed where it stopped.

    whqa cv experiment=demo --jobs 2          (= make cv EXP=demo JOBS=2)

Every run is `python -m whqa.train ...` with its own directory and COMPLETED stamp; a run starts when the runs that it
needs are complete. A failed run is named at the end together with its log; what does not depend on it still runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from whqa.config.instantiate import of_run
from whqa.config.run_name import run_name
from whqa.config.schema import Stage
from whqa.config.words import compose_config
from whqa.errors import InputError
from whqa.masks.plan import chosen_by, steps_from_pair
from whqa.masks.run_state import LOG, last_log_line, note_failure, refuse_damaged
from whqa.masks.sharing import share_run
from whqa.process import cpus
from whqa.stages.devices import VISIBLE, device_groups, least_used
from whqa.stages.forked import ForkedRun, Forks
from whqa.stages.schedule import MOST_BY_DEFAULT, Run, at_work_beside, jobs_by_default, run_environment
from whqa.stages.slurm import Slurm, tell

POLL_S = 0.3
LINE_EVERY_S = 20.0
TRAIN = [sys.executable, "-m", "whqa.train"]


@dataclass
class Graph:
    """The runs of an experiment and what has become of them.

    Attributes:
        runs, command: see `whqa.stages.schedule.Run`; what goes before its words.
        jobs: how many side by side.
        devices: groups of GPUs, of which a run takes one, see `whqa.stages.devices`.
        forks: what starts runs without their imports, where it can; see `whqa.stages.forked`.
        running, taken, failed: by a run's name its process, its GPUs, its exit code.
    """

    runs: list[Run]
    command: list[str]
    jobs: int
    devices: Sequence[str] = ()
    forks: Forks | None = None
    running: dict[str, subprocess.Popen[bytes] | ForkedRun] = field(default_factory=dict)
    taken: dict[str, str] = field(default_factory=dict)
    failed: dict[str, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.beside = at_work_beside(self.runs, self.jobs)

    def ready(self) -> list[Run]:
        """Runs that can start now."""
        complete = {r.name for r in self.runs if r.complete}
        return [r for r in self.runs if self._waiting(r) and r.needs <= complete]

    def of_name(self, name: str) -> Run:
        """One of its runs."""
        return next(run for run in self.runs if run.name == name)

    def blocked(self) -> list[Run]:
        """Runs that cannot start because something they need has failed."""
        return [r for r in self.runs if self._waiting(r)]

    def _waiting(self, run: Run) -> bool:
        return not run.complete and run.name not in self.running and run.name not in self.failed

    def start(self, run: Run) -> None:
        """Start one run in its own process; what it prints goes to train.log in its directory."""
        for source, target in run.shares:
            share_run(source, target)
        run.directory.mkdir(parents=True, exist_ok=True)
        env = run_environment(self.beside.get(run.name, self.jobs))
        if self.devices:
            of_others = [self.taken[name] for name in self.running]
            self.taken[run.name] = env[VISIBLE] = least_used(self.devices, of_others)
        words, log_path = [*run.words, f"stage={run.stage}", f"fold={run.fold}"], run.directory / LOG
        forked = self.forks.start(words, log_path, env) if self.forks else None
        if forked:
            self.running[run.name] = forked
            return
        with log_path.open("ab") as log:
            self.running[run.name] = subprocess.Popen(
                [*self.command, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    def reap(self) -> None:
        """Take note of the processes that have ended."""
        for name, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[name]
            run = self.of_name(name)
            if not run.complete:
                self.failed[name] = code
            if code < 0 and -code not in (signal.SIGINT, signal.SIGTERM):
                # it had no time to say so itself
                note_failure(run.directory, f"ended by signal {-code} ({signal.strsignal(-code)})")

    def stop(self) -> None:
        """End all processes; they resume from their last checkpoint the next time."""
        for process in self.running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=10)


def _work_of(options: Any, stage: str, needs: frozenset[str]) -> float:
    """Millions of voxels that a training sees, for the estimate of the time left."""
    # a segmenter that waits for another one starts from it
    shortened = stage == Stage.segmenter and needs
    steps = steps_from_pair(options.steps, options.steps_per_epoch) if shortened else options.steps
    return float(steps * options.batch_size * prod(options.patch)) / 1e6


def plan_runs(cfg: Any, experiment_dir: Path, plan: Any, words: Sequence[str] = ()) -> list[Run]:
    """The graph of an experiment: all segmenters of its mask plan, then the error-map networks.

    Where only masks of other programs are judged (`masks.kinds`), no segmenter is needed.
    """
    own = chosen_by(cfg.masks).needs_segmenters
    graph = [(*name.split("/"), needs) for name, needs in plan.graph(own, cfg.segmenter.from_pairs).items()]
    return [
        Run(stage, fold, experiment_dir / stage / fold, _work_of(cfg[stage], stage, needs), needs, tuple(words))
        for stage, fold, needs in graph
    ]


def runs_of(
    cfg: Any, experiment_dir: Path, words: Sequence[str], jobs: int | None, trained_here: bool = True
) -> list[Run]:
    """The graph of an experiment whose data are prepared and whose directory, if there is one, is of these settings.

    Args:
        cfg: that `words` give.
        experiment_dir: runs/<experiment>.
        words: settings.
        jobs: cases to prepare at once; None for as many as there are CPUs, within memory.
        trained_here: this machine must have the devices of the trainer.

    Raises:
        InputError: the settings or the data are wrong, or the directory holds something else.
    """
    # seconds of torch, which a wrong word never costs
    from whqa.config.run_config import refuse_other_settings
    from whqa.masks.made_from import refuse_other_masks
    from whqa.stages.foreseen import refuse_bare_folds
    from whqa.stages.from_config import refuse_unmakeable
    from whqa.study import import_external, make_study, masks_now

    refuse_unmakeable(cfg, trained_here)
    cases_at_once = jobs or min(MOST_BY_DEFAULT, cpus())
    study = make_study(cfg, experiment_dir, cases_at_once)
    runs = plan_runs(cfg, experiment_dir, study.plan, words)
    refuse_damaged(run.directory for run in runs)
    for run in runs:  # complete ones would be taken as they are
        refuse_other_settings(of_run(cfg, run.stage, run.fold), run.directory)
    imported = import_external(cfg, study, cases_at_once)
    refuse_bare_folds(cfg, study, imported)
    masks = masks_now(study, imported)
    refuse_other_masks([run.directory for run in runs], masks)
    return runs


def cross_validate(
    overrides: Sequence[str],
    jobs: int | None = None,
    console: Console | None = None,
    slurm: Slurm | None = None,
    work: Callable[[Graph, Console], None] | None = None,
) -> int:
    """Run what is missing of an experiment's cross-validation, then summarise it.

    Args:
        overrides: Hydra overrides, e.g. ["experiment=demo"].
        jobs: runs side by side; None leaves it to `whqa.stages.schedule`.
        slurm: where to submit what is missing, the summary too, in place of running it here.
        work: does what is missing of the graph; `work_through` by default.

    Returns:
        0, or 1 where a run failed (each is named with its log).

    Raises:
        InputError: the configuration or the data are wrong.
    """
    console = console or Console(stderr=True)
    chosen = [o for o in overrides if o.split("=", 1)[0] in ("stage", "fold", "fit", "sweep")]
    if chosen:
        use = "`whqa sweep ...` for several values" if chosen[0].startswith("sweep") else "`whqa train` for one of them"
        raise InputError(f"{chosen[0]}: cross-validation runs all stages and folds of one experiment; use {use}")
    cfg = compose_config(overrides)
    # seconds of torch, which a wrong word never costs
    from whqa.callbacks.summary_run import log_summary
    from whqa.config.run_config import refuse_sweep
    from whqa.summarize import summarize_beside

    tracked = tracking(cfg)
    experiment_dir = Path(cfg.runs_dir) / run_name(cfg.name, overrides)
    refuse_sweep(experiment_dir)
    runs = runs_of(cfg, experiment_dir, overrides, jobs, trained_here=not slurm and work is None)
    if slurm and not all(run.complete for run in runs):
        last = partial(cross_validate, list(overrides), jobs, work=take_note)
        tell(slurm.submit(runs, experiment_dir, TRAIN, last), runs, experiment_dir, console)
        return 0
    graph = graph_of(runs, cfg, jobs)
    (work or work_through)(graph, console)
    if graph.failed or graph.blocked():
        name_failures(graph, console)
        return 1
    summary = summarize_beside(experiment_dir)
    if tracked:
        log_summary(experiment_dir, summary, **tracked)
    return 0


def graph_of(runs: list[Run], cfg: Any, jobs: int | None) -> Graph:
    """The graph for this machine: `jobs` runs side by side, or as many as suit it; each on GPUs of its own."""
    devices, accelerator = device_groups(cfg.trainer), cfg.trainer.get("accelerator")
    several = sum(not run.complete for run in runs) > 1
    forks = Forks(TRAIN) if several and accelerator == "cpu" else None
    return Graph(runs, TRAIN, jobs or jobs_by_default(runs, accelerator, len(devices)), devices, forks)


def take_note(graph: Graph, console: Console) -> None:
    """Of what became of runs that others ran."""
    graph.failed |= {run.name: None for run in graph.runs if not run.complete and last_log_line(run.directory)}


def tracking(cfg: Any) -> dict[str, Any]:
    """W&B's options, with the mode that works here, asked once for all runs; empty without W&B."""
    from whqa.callbacks.mirror import usable_mode
    from whqa.config.wandb_settings import wandb_defaults, wandb_options

    tracked = dict(wandb_options(cfg) or {})
    if tracked:
        tracked["mode"] = os.environ["WANDB_MODE"] = usable_mode(tracked.get("mode") or wandb_defaults()["mode"])
    return tracked


def work_through(graph: Graph, console: Console) -> None:
    """Run all runs that can run, `graph.jobs` at a time; an interrupt ends them."""
    try:
        with _Display(graph, console) as display:
            while graph.running or graph.ready():
                for run in graph.ready()[: graph.jobs - len(graph.running)]:
                    graph.start(run)
                time.sleep(POLL_S)
                graph.reap()
                display.update()
    except KeyboardInterrupt:
        graph.stop()
        raise
    finally:
        if graph.forks:
            graph.forks.close()
    # another process that had them in hand may have ended them
    graph.failed = {name: code for name, code in graph.failed.items() if not graph.of_name(name).complete}
    _say_time(graph.runs, console)


def _say_time(runs: Sequence[Run], console: Console) -> None:
    from whqa.callbacks.phases import time_spent

    if line := time_spent(run.directory for run in runs):
        console.print(line, highlight=False)


def name_failures(graph: Graph, console: Console) -> None:
    """Say which runs failed, why, where their logs are, and which runs still wait for them."""
    for name, code in sorted(graph.failed.items()):
        directory = graph.of_name(name).directory
        last = last_log_line(directory) or "no output"
        ended = "" if code is None else f" (exit code {code})"
        console.print(f"failed: {name}{ended}: {last}\n        log: {directory / LOG}", highlight=False)
    for run in graph.blocked():
        missing = sorted(run.needs & graph.failed.keys()) or sorted(run.needs)
        console.print(f"not run: {run.name} waits for {', '.join(missing)}", highlight=False)
    console.print("the same command runs again what is missing", highlight=False)


class _Display:
    """A bar with the time left on a terminal, a line now and then elsewhere."""

    def __init__(self, graph: Graph, console: Console) -> None:
        self.graph, self.console = graph, console
        self.total = sum(r.work for r in graph.runs)
        self.begun = time.monotonic()
        self.at_begin = self._done()
        self.last_line = -LINE_EVERY_S
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Display:
        self.bars.start()
        self.overall = self.bars.add_task(f"{len(self.graph.runs)} runs", total=self.total)
        self.update()
        return self

    def __exit__(self, *args: object) -> None:
        self.update()
        self.bars.stop()

    def update(self) -> None:
        self.bars.update(self.overall, completed=self._done())
        for run in self.graph.runs:
            if run.name in self.graph.running and run.name not in self.tasks:
                self.tasks[run.name] = self.bars.add_task(run.name, total=run.work)
            if run.name in self.tasks:
                self.bars.update(self.tasks[run.name], completed=run.done * run.work)
        if not self.console.is_terminal and time.monotonic() - self.last_line > LINE_EVERY_S:
            self.last_line = time.monotonic()
            self.console.print(self._line(), highlight=False)

    def _done(self) -> float:
        return sum(r.done * r.work for r in self.graph.runs)

    def _line(self) -> str:
        done, elapsed = self._done(), time.monotonic() - self.begun
        speed = (done - self.at_begin) / elapsed if elapsed > 0 else 0.0
        left = timedelta(seconds=round((self.total - done) / speed)) if speed > 0 else "--:--:--"
        complete = sum(r.complete for r in self.graph.runs)
        now = ", ".join(sorted(self.graph.running)) or "nothing"
        return f"{100 * done / self.total:3.0f} %  {complete}/{len(self.graph.runs)} runs  left {left}  running {now}"
