"""What tests of summaries ask of a run's tables and of the summary itself."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

STRUCTURES = ("lv", "rv", "myo")


def all_rows(run: Path) -> pd.DataFrame:
    tables = [pd.read_csv(run / "errormap" / str(k) / "cases.csv", dtype={"case": str}) for k in range(3)]
    return pd.concat(tables)


def edit_table(path: Path, change) -> None:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    change(table).to_csv(path, index=False)


def walk(node, path="summary"):
    """Every null has a reason beside it, every interval is two ordered numbers, every number is finite."""
    if isinstance(node, dict):
        if any(v is None for v in node.values()):
            assert any(key.endswith("reason") and value for key, value in node.items()), path
        if node.get("ci95") is not None:
            low, high = node["ci95"]
            assert low <= high, path
        for key, value in node.items():
            walk(value, f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            walk(value, path)
    elif isinstance(node, float):
        assert math.isfinite(node), path
