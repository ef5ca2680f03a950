"""CSV tables as text, column by column: of many small files pandas takes longer to begin than to read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pandas as pd

from whqa.files import reading


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes:
        header: all names of the file.
        columns: name -> its fields, of those that were asked for and are there.
        n: number of rows.
    """

    header: tuple[str, ...]
    columns: dict[str, list[str]]
    n: int

    def where(self, column: str, value: str) -> TextTable:
        """The rows that have this value."""
        kept = [i for i, field in enumerate(self.columns[column]) if field == value]
        return TextTable(self.header, {k: [v[i] for i in kept] for k, v in self.columns.items()}, len(kept))


def read_text_table(path: Path, what: str, remedy: str, wanted: Callable[[str], bool] = lambda name: True) -> TextTable:
    """Read a CSV file.

    Args:
        path: of the file.
        what, remedy: see `whqa.files.reading`.
        wanted: which columns; the others are not kept.

    Raises:
        InputError: the file is missing, torn or no CSV.
    """
    with reading(path, what, remedy), path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        header = tuple(next(reader, ()))
        if not header:
            raise ValueError("it is empty")
        rows = list(filter(None, reader))
        if torn := next((row for row in rows if len(row) != len(header)), None):
            raise ValueError(f"the row {','.join(torn)[:20]}... has {len(torn)} fields, not {len(header)}")
        columns = {name: [row[i] for row in rows] for i, name in enumerate(header) if wanted(name)}
        return TextTable(header, columns, len(rows))


def joined_text(tables: Iterable[TextTable]) -> pd.DataFrame:
    """All rows, one table below the other; a field of a column that a table lacks is empty."""
    tables = list(tables)
    names = dict.fromkeys(name for table in tables for name in table.columns)
    return pd.DataFrame(
        {
            name: list(chain.from_iterable(table.columns.get(name) or [""] * table.n for table in tables))
            for name in names
        },
        dtype="str",
    )
