"""Where `whqa assess` spends its CPU time on a phantom of 160^3 with its report, and what a batch gains by processes.

    python tests/bench/assessing.py [RUN]

RUN is a trained run, `runs/demo` by default; without one there is no table. Stages are timed by their functions, in a
process of one thread; a stage's time is without that of the stages within it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RUN, SPACING, CASES, REPEATS = Path("runs/demo"), 1.05, 4, 3
# What a row is called: module, class (or ""), function.
STAGES = {
    "load the run": ("whqa.assessment.model", "", "load_run"),
    "read and check": ("whqa.assessment.pipeline", "", "read_inputs"),
    "to the run's grid": ("whqa.assessment.pipeline", "", "to_run_grid"),
    "opinions (3 segmenters)": ("whqa.modules.segmenter", "SegmenterModule", "log_p"),
    "inputs and evidence": ("whqa.modules.errormap", "ErrorMapModule", "inputs"),
    "error maps (3 networks)": ("whqa.modules.errormap", "ErrorMapModule", "raw"),
    "calibration": ("whqa.judges.calibration", "Calibration", "predict"),
    "rest of the judgement": ("whqa.assessment.pipeline", "", "judge_mask"),
    "likeness": ("whqa.assessment.pipeline", "", "likeness_to"),
    "correction": ("whqa.assessment.pipeline", "", "corrected_mask"),
    "back to the scan's grid": ("whqa.assessment.pipeline", "", "from_run_grid"),
    "intervals, verdict": ("whqa.assessment.pipeline", "", "quality_record"),
    "write .nii.gz": ("whqa.assessment.writing", "", "write_volume"),
    "report: pictures": ("whqa.report.assessment_page", "", "draw"),
    "report: viewer": ("whqa.report.assessment_page", "", "viewer_of"),
    "report: rest": ("whqa.assessment.writing", "", "write_assessment"),
}


class Clock:
    """CPU seconds of functions, without those of others that they call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def watch(self, name: str, module: str, kind: str, function: str) -> None:
        """Put a clock round a function."""
        home = importlib.import_module(module)
        home = getattr(home, kind) if kind else home
        work = getattr(home, function)

        def timed(*args: Any, **options: Any) -> Any:
            started = time.process_time()
            self._inner.append(0.0)
            try:
                return work(*args, **options)
            finally:
                spent = time.process_time() - started
                self.seconds[name] += spent - self._inner.pop()
                if self._inner:
                    self._inner[-1] += spent

        setattr(home, function, timed)


def stages(image: str, mask: str, run: str, out: str) -> None:
    """One assessment in this process, its stages as lines of "name, tab, seconds"."""
    started, clock = time.process_time(), Clock()
    for module in ("whqa.assessment.writing", "whqa.report.assessment_page"):
        importlib.import_module(module)
    for name, place in STAGES.items():
        clock.watch(name, *place)
    clock.seconds["imports"] = time.process_time() - started
    from whqa.cli.commands import main
    from whqa.parallel import beside

    # what a process beside this one would draw is drawn here
    beside.cpus = lambda: 1
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        main(["assess", image, mask, "--model", run, "-o", out])
    for name, seconds in clock.seconds.items():
        print(f"{name}\t{seconds}")


def whqa(*words: object) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "whqa", *map(str, words)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - started, spent


def spread(values: list[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}-{max(values):.2f}]"


def stage_table(image: Path, mask: Path, run: Path, out: Path) -> Table:
    """Medians over children."""
    environment, found = {**os.environ, "OMP_NUM_THREADS": "1"}, defaultdict[str, list[float]](list)
    for _ in range(REPEATS):
        command = [sys.executable, __file__, "--stages", *map(str, (image, mask, run, out))]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        rows = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
        for name, seconds in [*rows, ["sum", str(sum(float(s) for _, s in rows))]]:
            found[name].append(float(seconds))
    table = Table("whqa assess, 160^3 with report", "CPU s", title=f"one thread, medians of {REPEATS} and range")
    for name, values in found.items():
        table.add_row(name, spread(values))
    return table


def print_table(console: Console, run: Path = RUN) -> None:
    """Stages of one case, then one case and a batch as commands."""
    if not (run / "folds.json").is_file():
        console.print(f"whqa assess: no run {run}; `make demo` trains one")
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        whqa("data", "phantom", "--cases", CASES, "--seed", 100, "--spacing", SPACING, "--faults", 3, "--out", root)
        for kind in ("image", "mask"):
            (root / f"{kind}s").mkdir()
            for path in root.glob(f"*_{kind}.nii.gz"):
                path.rename(root / f"{kind}s" / path.name)
        image, mask = (sorted((root / f"{kind}s").iterdir())[0] for kind in ("image", "mask"))
        console.print(stage_table(image, mask, run, root / "one"))
        table = Table("whqa assess, 160^3 with report", "wall s", "CPU s", title="as commands")
        times = [whqa("assess", image, mask, "--model", run, "-o", root / "one") for _ in range(REPEATS)]
        table.add_row("one case", *(spread(list(t)) for t in zip(*times, strict=True)))
        for jobs in ("1", "2"):
            words = ("assess", root / "images", root / "masks", "--model", run, "-o", root / jobs, "--jobs", jobs)
            table.add_row(f"{CASES} cases, --jobs {jobs}", *(f"{t:.1f}" for t in whqa(*words)))
        console.print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--stages"]:
        stages(*sys.argv[2:])
    else:
        print_table(Console(width=110), Path(sys.argv[1]) if len(sys.argv) > 1 else RUN)
