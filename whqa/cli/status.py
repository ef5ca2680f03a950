"""`whqa status`: every run of an experiment, or of all, as a table that can be watched, or as JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_status_command(parser: argparse.ArgumentParser) -> None:
    """Words of `whqa status`."""
    parser.add_argument(
        "directory", type=Path, nargs="?", default=Path("runs"), metavar="DIR", help="runs/<experiment>, or all (runs)"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--watch", action="store_true", help="draw it again every few seconds until all is done")
    how.add_argument("--json", action="store_true", help="for machines")
    parser.epilog = "Example: whqa status runs/demo --watch"
    parser.set_defaults(run=_status)


def _status(options: argparse.Namespace, overrides: list[str]) -> int:
    from rich.console import Console

    from whqa.cli.status_text import status_tables, watch
    from whqa.results.experiment_status import status

    console = Console()
    if options.json:
        print(json.dumps(status(options.directory), indent=2))
    elif options.watch:
        try:
            watch(options.directory, console)
        except KeyboardInterrupt:
            # the way to leave it
            return 130
    else:
        console.print(status_tables(status(options.directory)))
    return 0
