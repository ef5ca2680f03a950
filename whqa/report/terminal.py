"""Tables for people in a terminal of any width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_Column = TypeVar("_Column")
_UNLIMITED = 100_000


def print_columns(console: Console, columns: Sequence[_Column], table_of: Callable[[Sequence[_Column]], Table]) -> None:
    """One table where all columns fit, else several, each with as many as do: no cell is cut within a number.

    Args:
        console: of the width that counts.
        columns: what `table_of` makes columns of, beside those that every table carries.
        table_of: a table with these columns; what must stay whole is `no_wrap`.
    """
    rest = list(columns)
    while rest:
        n = next((n for n in range(len(rest), 1, -1) if _fits(console, table_of(rest[:n]))), 1)
        console.print(table_of(rest[:n]))
        rest = rest[n:]


def _fits(console: Console, table: Table) -> bool:
    return Measurement.get(console, console.options.update(max_width=_UNLIMITED), table).maximum <= console.width
