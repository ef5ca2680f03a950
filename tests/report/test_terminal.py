"""Tables in terminals of every width: no number is cut, no column is lost."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console
from rich.table import Table

from whqa.report.terminal import print_columns

NUMBERS = [f"{i}.{i}{i}{i}" for i in range(1, 8)]


def _table(columns: Sequence[str]) -> Table:
    table = Table("name")
    for column in columns:
        table.add_column(f"head {column}", no_wrap=True)
    table.add_row("first", *columns)
    return table


@pytest.mark.parametrize("width", [24, 40, 80, 200])
def test_every_column_is_there_once_and_whole(width: int) -> None:
    output = io.StringIO()
    print_columns(Console(file=output, width=width), NUMBERS, _table)
    text = output.getvalue()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert [text.count(f"head {number}") for number in NUMBERS] == [1] * len(NUMBERS)
    assert (text.count("first") == 1) == (width == 200)


def test_a_column_that_fits_nowhere_is_printed_all_the_same() -> None:
    output = io.StringIO()
    print_columns(Console(file=output, width=8), ["12345678901234567890"], _table)
    assert output.getvalue()
