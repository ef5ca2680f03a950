"""One entry of summary.json, made from a column of a case table, and the way to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from whqa.contract.entries import Entry
from whqa.metrics.arrays import FloatArray
from whqa.results import bootstrap

Interval = Callable[[FloatArray, Sequence[str]], tuple[float, float] | None]
NO_MAP = "the method predicts no error map"


def entry_of(value: float, ci95: tuple[float, float] | None, reason: str) -> Entry:
    """{"mean", "ci95"}, with null and a reason for what is not defined."""
    if not math.isfinite(value):
        return {"mean": None, "ci95": None, "reason": reason}
    if ci95 is None:
        return {"mean": float(value), "ci95": None, "reason": "too few patients with a defined value for an interval"}
    return {"mean": float(value), "ci95": [ci95[0], ci95[1]]}


def mean_entry(values: pd.Series, patients: pd.Series, reason: str) -> Entry:
    """Mean over the rows that have a value; `n` says how many where some have none."""
    return _mean_entry(values, patients, reason, bootstrap.mean_ci95)


def share_entry(values: pd.Series, patients: pd.Series, reason: str) -> Entry:
    """`mean_entry` of a share of the rows, each 0 or 1."""
    return _mean_entry(values, patients, reason, bootstrap.share_ci95)


def _mean_entry(values: pd.Series, patients: pd.Series, reason: str, interval: Interval) -> Entry:
    defined = values.notna()
    if not defined.any():
        return entry_of(math.nan, None, reason)
    x = values[defined].to_numpy(float)
    found = entry_of(float(x.mean()), interval(x, patients[defined].tolist()), reason)
    return found if defined.all() else {**found, "n": int(defined.sum())}


def at_path(numbers: Mapping[str, Any], path: str) -> Any:
    """The entry at a dotted path such as "volume.pcc"."""
    for key in path.split("."):
        numbers = numbers[key]
    return numbers


def view_title(masks: str) -> str:
    """What a part of the tables is about, for people."""
    titles = {
        "final": "final masks",
        "augmented": "masks of augmented images",
        "mixed": "masks with some of the segmenter's errors",
        "corrupted": "masks with faults",
        "novel": "masks with faults never seen in training",
        "all": "all mask kinds",
    }
    return titles.get(masks, f"masks of {masks}")


def shown_views(methods: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Parts of the tables of summary.json that hold a mask; without "all" where that is one program's masks again."""
    names = [masks for masks in next(iter(methods.values())) if any(parts[masks]["n"] for parts in methods.values())]
    return names[:1] if len(names) == 2 and "final" not in names else names
