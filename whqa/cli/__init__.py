"""The command line: thin wrappers around the functions that do the work."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script, see `whqa.cli.commands`, whose imports Ctrl-C may meet as well."""
    try:
        from whqa.cli.commands import main as command

        command(argv)
    except KeyboardInterrupt:
        print("whqa: stopped", file=sys.stderr)
        sys.exit(130)
