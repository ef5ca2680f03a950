"""Seconds and memory of the commands that read many runs, on made-up files: `python tests/bench/scale.py`.

An experiment of 200 folds for summarize and compare, a sweep of 1,000 points for status and the table of a sweep.
"""

from __future__ import annotations

import json
import resource
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDS, CASES, POINTS = 200, 400, 1000
_TABLE = """
import sys
from pathlib import Path
from whqa.results.sweep_table import read_point, sweep_points
from whqa.sweep.whole_sweep import write_sweep
sweep = Path(sys.argv[1])
names = sorted(path.parent.name for path in sweep.glob("*/folds.json"))
done = {name: read_point(sweep / name) for name in names}
points, chosen, why = sweep_points(names, {name: {"a": name} for name in names}, done, {})
write_sweep(sweep, {"sweep": "s", "settings": [], "first": names[0], "chosen_by": chosen, "why": why,
                    "points": points, "environment": {}})
print(len(points), "points")
"""


def make_point(template: Path, target: Path) -> None:
    """A point as a sweep leaves it; its files are those of the template."""
    shutil.copytree(template, target, copy_function=lambda one, other: Path(other).hardlink_to(one))


def add_validation(run: Path) -> None:
    """What every error-map network says of held-back training cases."""
    folds = json.loads((run / "folds.json").read_text())
    (run / "folds.json").write_text(json.dumps(folds | {"plan": "out_of_fold"}))
    shutil.rmtree(run / "segmenter" / "0-1")
    n = len(folds["folds"])
    for k in range(n):
        cases = folds["folds"][(k + 1) % n]
        rows = [f"{c},final,{(k + 1) % n},{folds['patients'][c]},9,{0.5 + i / 50}" for i, c in enumerate(cases)]
        text = "case,mask_kind,fold,patient,segmenter,error_dice\n" + "\n".join(rows) + "\n"
        (run / "errormap" / str(k) / "validation.csv").write_text(text)


def timed(name: str, command: list[str]) -> None:
    """Run it and print what it cost."""
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([sys.executable, "-c", _PEAK, *command], capture_output=True, text=True, check=False)
    seconds, used = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    peak = int(done.stderr.rsplit("peak ", 1)[-1]) / 2**20 if "peak " in done.stderr else float("nan")
    said = "" if done.returncode == 0 else f"  exit code {done.returncode}: {done.stderr[-300:]}"
    print(f"{name:46} {seconds:6.1f} s  {used:6.1f} CPU s  {peak:5.2f} GiB{said}", flush=True)


_PEAK = """
import resource, subprocess, sys
code = subprocess.run([sys.executable, *sys.argv[1:]]).returncode
print("peak", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def main() -> None:
    """Make the files, time the commands."""
    write_run = runpy.run_path(str(ROOT / "tests" / "conftest.py"))["_write_run"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        big = [write_run(root / name, n_cases=CASES, n_folds=FOLDS) for name in ("a", "b")]
        small = write_run(root / "small", n_cases=36, n_folds=5)
        add_validation(small)
        for k in range(POINTS):
            make_point(small, root / "sweep" / f"point-{k:04d}")
        whqa = ["-m", "whqa"]
        timed(f"summarize, {FOLDS} folds, {CASES} cases", [*whqa, "summarize", str(big[0])])
        timed(f"compare, two of {FOLDS} folds", [*whqa, "compare", *map(str, big)])
        timed(f"status, {FOLDS} folds", [*whqa, "status", str(big[0])])
        timed(f"status, {POINTS} points", [*whqa, "status", str(root / "sweep")])
        timed(f"status --json, {POINTS} points", [*whqa, "status", str(root / "sweep"), "--json"])
        timed(f"table of a sweep, {POINTS} points", ["-c", _TABLE, str(root / "sweep")])


if __name__ == "__main__":
    main()
