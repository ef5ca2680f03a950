"""Tables of text read as pandas reads them, torn ones refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from whqa.errors import InputError
from whqa.results.text_table import joined_text, read_text_table

TEXT = 'a,b,c\n1,"x, ""y""",\n\n2,é,0.50\n'


def test_reads_what_pandas_reads(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(TEXT, "utf-8")
    table = read_text_table(path, "CSV", "make it again")
    pd.testing.assert_frame_equal(joined_text([table]), pd.read_csv(path, dtype=str, keep_default_na=False))
    few = read_text_table(path, "CSV", "make it again", lambda name: name == "b")
    assert (few.header, few.columns, few.n) == (("a", "b", "c"), {"b": ['x, "y"', "é"]}, 2)
    assert joined_text([few, table.where("a", "2")]).to_dict("list") == {
        "b": ['x, "y"', "é", "é"],
        "a": ["", "", "2"],
        "c": ["", "", "0.50"],
    }


@pytest.mark.parametrize("torn", ["", "a,b\n1\n", "a,b\n1,2,3\n", 'a,b\n1,"2'])
def test_a_torn_table_is_refused(tmp_path: Path, torn: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(torn)
    with pytest.raises(InputError, match=r"t\.csv: not readable as CSV \(.+\); make it again"):
        read_text_table(path, "CSV", "make it again")
