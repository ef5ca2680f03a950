"""How numbers and entries of summary.json are shown: digits, signs, intervals."""

from __future__ import annotations

from whqa.contract.entries import Entry

Columns = tuple[tuple[str, str, int], ...]
"""What a table shows: (dotted path of an entry, heading, digits)."""


def show_number(value: float | None, digits: int, signed: bool = False) -> str:
    """A fixed number of digits, or n/a."""
    return "n/a" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def show_share(value: float | None) -> str:
    """A share as a percentage that does not break from its sign."""
    return "n/a" if value is None else f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def show_entry(found: Entry, digits: int, signed: bool = False) -> str:
    """The mean of an entry of summary.json."""
    return show_number(found["mean"], digits, signed)


def show_interval(ci95: list[float] | None, digits: int, signed: bool = False) -> str:
    """An interval such as "0.61 to 0.68"; empty without one."""
    return "" if ci95 is None else " to ".join(show_number(end, digits, signed) for end in ci95)
