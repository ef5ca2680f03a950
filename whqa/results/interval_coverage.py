"""Do the intervals hold what they promise? Measured on the run's own masks, each judged without its fold.

The intervals are those of `whqa.results.conformal`, which `whqa assess` prints: from all kinds of masks, for the
true Acc given QI and for a structure's true Dice given the expected one.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd

from whqa.contract.summary_json import Intervals, MeasuredIntervals
from whqa.metrics.per_case import FloatArray
from whqa.results.conformal import OutOfFold, conformal_interval, held_out_intervals
from whqa.results.summary_entry import mean_entry
from whqa.results.tables import RunTables, view

CONFIDENCE = 0.9


def interval_numbers(tables: RunTables, confidence: float = CONFIDENCE) -> Intervals:
    """The entry "intervals" of summary.json, of the first method.

    Returns:
        {"confidence", "method", "<part>": {"<quantity>": {"n", "coverage", "width"}}} with the parts of
        `RunTables.views`. Quantities are acc_volume, acc_heart and, from a label head, dice_<structure>; n counts the
        masks that the quantity is known of.
    """
    rows = tables.of_first_method.reset_index(drop=True)
    measured = {name: _measured(rows, predicted, name, confidence) for name, predicted in _quantities(tables, rows)}
    found: dict[str, Any] = {"confidence": confidence, "method": tables.methods[0]}
    for part in tables.views:
        kept = rows.index[rows["mask_kind"].isin(set(view(rows, part)["mask_kind"]))]
        found[part] = {name: _numbers(table.loc[table.index.isin(kept)]) for name, table in measured.items()}
    return cast(Intervals, found)


def band(
    rows: pd.DataFrame, region: str, levels: FloatArray, confidence: float = CONFIDENCE
) -> tuple[FloatArray, FloatArray]:
    """Lower and upper ends of the interval for Acc at each level of QI, from all rows of one method; nan for none."""
    known = OutOfFold.of(rows, f"qi_{region}", f"acc_{region}")
    folds = [int(k) for k in np.unique(known.fold)]
    ends = [conformal_interval(known, dict.fromkeys(folds, float(q)), confidence) or (np.nan, np.nan) for q in levels]
    return np.array([low for low, _ in ends]), np.array([high for _, high in ends])


def _quantities(tables: RunTables, rows: pd.DataFrame) -> list[tuple[str, str]]:
    """(truth, prediction) columns."""
    dice = [(f"dice_{key}", f"dice_{key}_predicted") for key in tables.structures]
    return [
        *((f"acc_{region}", f"qi_{region}") for region in ("volume", "heart")),
        *((true, predicted) for true, predicted in dice if predicted in rows and rows[predicted].notna().any()),
    ]


def _measured(rows: pd.DataFrame, predicted: str, true: str, confidence: float) -> pd.DataFrame:
    """Patient, hit and width of every row that has both numbers, with its index."""
    known = rows[rows[predicted].notna() & rows[true].notna()]
    found = held_out_intervals(OutOfFold.of(known, predicted, true), confidence)
    columns = {"patient": known["patient"], "hit": found["hit"], "width": found["high"] - found["low"]}
    return pd.DataFrame(columns, index=known.index)


def _numbers(table: pd.DataFrame) -> MeasuredIntervals:
    reason = "no such mask, or too few patients in the other folds for an interval of this confidence"
    return {
        "n": len(table),
        "coverage": mean_entry(table["hit"], table["patient"], reason),
        "width": mean_entry(table["width"], table["patient"], reason),
    }
