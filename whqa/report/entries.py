"""One entry of summary.json: how it is made from a column of a case table, and how it is shown."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from whqa.report import bootstrap

Columns = tuple[tuple[str, str, int], ...]
"""What a table shows: (dotted path of an entry, heading, digits)."""


def entry(value: float, ci95: tuple[float, float] | None, reason: str) -> dict[str, Any]:
    """{"mean", "ci95"}, with null and a reason for what is not defined."""
    if not math.isfinite(value):
        return {"mean": None, "ci95": None, "reason": reason}
    if ci95 is None:
        return {"mean": float(value), "ci95": None, "reason": "too few patients with a defined value for an interval"}
    return {"mean": float(value), "ci95": [ci95[0], ci95[1]]}


def mean_entry(values: pd.Series, patients: pd.Series, reason: str) -> dict[str, Any]:
    """Mean over the rows that have a value; `n` says how many where some have none."""
    defined = values.notna()
    if not defined.any():
        return entry(math.nan, None, reason)
    x = values[defined].to_numpy(float)
    found = entry(float(x.mean()), bootstrap.mean_ci95(x, list(patients[defined])), reason)
    return found if defined.all() else {**found, "n": int(defined.sum())}


def at_path(numbers: dict[str, Any], path: str) -> Any:
    """The entry at a dotted path such as "volume.pcc"."""
    for key in path.split("."):
        numbers = numbers[key]
    return numbers


def show_number(value: float | None, digits: int, signed: bool = False) -> str:
    """A fixed number of digits, or n/a."""
    return "n/a" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def show_share(value: float | None) -> str:
    """A share as a percentage that does not break from its sign."""
    return "n/a" if value is None else f"{100 * value:.0f}\N{NO-BREAK SPACE}%"


def show_entry(found: dict[str, Any], digits: int, signed: bool = False) -> str:
    """The mean of an entry of summary.json."""
    return show_number(found["mean"], digits, signed)


def show_interval(ci95: list[float] | None, digits: int, signed: bool = False) -> str:
    """An interval such as "0.61 to 0.68"; empty without one."""
    return "" if ci95 is None else " to ".join(show_number(end, digits, signed) for end in ci95)
