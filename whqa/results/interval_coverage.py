"""Do the intervals hold what they promise? Measured on the run's own masks, each judged without its fold.

The intervals are those of `whqa.results.conformal`, which `whqa assess` prints: from all kinds of masks, for the
true Acc given QI and for a structure's true Dice given the expected one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from whqa.contract.summary_json import Intervals
from whqa.metrics.arrays import FloatArray
from whqa.results.conformal import OutOfFold, belt_of, held_out_intervals
from whqa.results.strata import interval_entries
from whqa.results.tables import RunTables, view

CONFIDENCE = 0.9


def measure_intervals(tables: RunTables, confidence: float = CONFIDENCE) -> dict[str, pd.DataFrame]:
    """The intervals of the first method's masks, and whether they hold the truth.

    Returns:
        Quantity -> columns `hit` (1, 0, or nan where no interval could be given) and `width` of the rows of
        `RunTables.judged` that have both numbers, by their index. Quantities are acc_volume, acc_heart and, from a
        label head, dice_<structure>.
    """
    rows = tables.of_first_method
    return {name: _measured(rows, predicted, name, confidence) for name, predicted in _quantities(tables, rows)}


def interval_numbers(
    tables: RunTables, measured: Mapping[str, pd.DataFrame], confidence: float = CONFIDENCE
) -> Intervals:
    """The entry "intervals" of summary.json, of the first method; `measured` is of `measure_intervals`.

    Returns:
        {"confidence", "method", "<part>": {"<quantity>": {"n", "coverage", "width"}}} with the parts of
        `RunTables.views`; n counts the masks that the quantity is known of.
    """
    found: dict[str, Any] = {"confidence": confidence, "method": tables.methods[0]}
    for part in tables.views:
        rows = view(tables.of_first_method, part)
        found[part] = {name: interval_entries(rows, table) for name, table in measured.items()}
    return cast(Intervals, found)


def band(
    rows: pd.DataFrame, region: str, levels: FloatArray, confidence: float = CONFIDENCE
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper ends of the interval for Acc at each level of QI, from all rows of one method; nan for none."""
    known = OutOfFold.of(rows, f"qi_{region}", f"acc_{region}")
    belt = belt_of(known, confidence)
    if belt is None:
        return np.full(len(levels), np.nan), np.full(len(levels), np.nan)
    return belt.intervals(levels)


def _quantities(tables: RunTables, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(truth, prediction) columns."""
    dice = [(f"dice_{key}", f"dice_{key}_predicted") for key in tables.structures]
    return [
        *((f"acc_{region}", f"qi_{region}") for region in ("volume", "heart")),
        *((true, predicted) for true, predicted in dice if predicted in rows and rows[predicted].notna().any()),
    ]


def _measured(rows: pd.DataFrame, predicted: str, true: str, confidence: float) -> pd.DataFrame:
    known = rows[rows[predicted].notna() & rows[true].notna()]
    found = held_out_intervals(OutOfFold.of(known, predicted, true), confidence)
    return pd.DataFrame({"hit": found["hit"], "width": found["high"] - found["low"]}, index=known.index)
