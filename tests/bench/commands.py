"""What it costs to start a command: CPU seconds of wrong words, of every `--help` and of `info`, beside bare Python."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table
from timing import REPEATS

WHQA = ("-m", "whqa")
ROWS = {
    "python -c pass": ("-c", "pass"),
    "whqa --help": (*WHQA, "--help"),
    "whqa assess --help": (*WHQA, "assess", "--help"),
    "whqa cv --help": (*WHQA, "cv", "--help"),
    "whqa cv experiment=dmo": (*WHQA, "cv", "experiment=dmo"),
    "whqa train experiment=demo fodl=1": (*WHQA, "train", "experiment=demo", "fodl=1"),
    "whqa assess, no such file": (*WHQA, "assess", "a.nii.gz", "b.nii.gz", "--model", "run", "-o", "out"),
    "whqa info": (*WHQA, "info"),
    "python -c 'import torch'": ("-c", "import torch"),
}


def cpu_seconds(words: tuple[str, ...]) -> float:
    """Of a process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *words], env=environment, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def print_table(console: Console) -> None:
    """A row a command, in turn."""
    times: dict[str, list[float]] = {name: [] for name in ROWS}
    for _ in range(REPEATS):
        for name, words in ROWS.items():
            times[name].append(cpu_seconds(words))
    table = Table("command", "CPU s", "range", title=f"start of a command, medians of {REPEATS}")
    for name, values in times.items():
        table.add_row(name, f"{statistics.median(values):.2f}", f"{min(values):.2f}-{max(values):.2f}")
    console.print(table)


if __name__ == "__main__":
    print_table(Console())
