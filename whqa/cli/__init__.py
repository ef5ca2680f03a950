"""The command line: thin wrappers around the functions that do the work."""

from whqa.cli.commands import main

__all__ = ["main"]
