"""`make bench`: what costs time, each part beside an alternative in one run. Trust the ratios, not the seconds.

    python tests/bench/bench.py [--only PART ...] [--json FILE]

Tables of one thread count CPU seconds, which other work on the machine changes little; the others are wall time.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from steps import machine

PARTS = (
    *("commands", "steps", "waiting", "beside", "volumes", "tiles", "case_metrics", "assessing"),
    *("preparing", "interpolation", "loading", "parts"),
)


class Keeping(Console):
    """A console that keeps its tables for the JSON file."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.tables: list[dict[str, Any]] = []

    def print(self, *what: Any, **options: Any) -> None:
        """Print, and keep what is a table."""
        super().print(*what, **options)
        self.tables += [_plain(one) for one in what if isinstance(one, Table)]


def _plain(table: Table) -> dict[str, Any]:
    columns = [list(column.cells) for column in table.columns]
    heads = [str(column.header) for column in table.columns]
    rows = [[str(cell) for cell in row] for row in zip(*columns, strict=True)]
    return {"title": str(table.title), "columns": heads, "rows": rows}


def main() -> None:
    """The chosen tables, all of them in some minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, help="the same for machines, with a description of this one")
    words = parser.parse_args()
    console = Keeping(width=max(110, Console().width))
    found: dict[str, Any] = {"machine": machine() | {"cpus": os.cpu_count(), "load": os.getloadavg()}}
    for name in words.only:
        console.tables = []
        importlib.import_module(name).print_table(console)
        found[name] = console.tables
        if words.json:
            # whatever comes later, what is there is there
            words.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
