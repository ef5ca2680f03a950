"""One method's numbers apart by how good the masks truly are: what holds on average may fail on perfect or bad masks.

A mask's stratum is a fact about the mask, unknown when it is judged: bias and coverage within a stratum say how a judge
treats such masks, not what to expect at a given QI. For that see `whqa.results.reliability`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from whqa.contract.by_quality import Change, CorrectionInStratum, RegionInStratum, Stratum
from whqa.contract.entries import Entry, MeasuredIntervals
from whqa.quality import LOWEST_DICE
from whqa.results.breakdown import NO_CORRECTION, structure_gain
from whqa.results.mean_dice import before_and_after, mean_dice
from whqa.results.summary_entry import NO_MAP, mean_entry, share_entry

REFERENCE_STRATUM, BAD_STRATUM = "reference", "bad"
STRATA = (REFERENCE_STRATUM, *LOWEST_DICE, BAD_STRATUM)

NO_MASK = "no such mask"
NO_VOXELS = f"{NO_MASK}, or a table of an older run, which lacks `voxels`"
NO_MEASURED_INTERVAL = "no such mask, or too few patients in the other folds; only the first method has intervals"


def stratum_of(rows: pd.DataFrame, structures: Sequence[str]) -> pd.Series:
    """The name of each row's stratum; "" for a mask with errors that has no Dice.

    Args:
        rows: of a case table.
        structures: keys in index order.
    """
    dice = mean_dice(rows, structures)
    conditions = [rows["error_voxels"] == 0, dice.isna(), *(dice >= lowest for lowest in LOWEST_DICE.values())]
    names = np.select(conditions, [REFERENCE_STRATUM, "", *LOWEST_DICE], BAD_STRATUM)
    return pd.Series(names, index=rows.index)


def strata_numbers(
    rows: pd.DataFrame, structures: Sequence[str], intervals: Mapping[str, pd.DataFrame]
) -> dict[str, Stratum]:
    """The entry "strata" of one method on one part of the masks.

    Args:
        rows: of `whqa.results.tables.view`, one method.
        structures: keys in index order.
        intervals: of `whqa.results.interval_coverage.measure_intervals`; empty for any but the first method.
    """
    stratum = stratum_of(rows, structures)
    return {name: _stratum(rows[stratum == name], structures, intervals) for name in STRATA}


def false_alarm_rate(rows: pd.DataFrame) -> pd.Series:
    """Share of each mask's right voxels that are called wrong; nan in tables of older runs and where none is right."""
    if "voxels" not in rows:
        return pd.Series(np.nan, index=rows.index)
    right = rows["voxels"] - rows["error_voxels"]
    return (rows["predicted_voxels"] - rows["hit_voxels"]) / right.where(right > 0)


def interval_entries(rows: pd.DataFrame, measured: pd.DataFrame | None) -> MeasuredIntervals:
    """How the intervals of these rows held; `measured` is of `measure_intervals`, for one quantity."""
    if measured is None:
        measured = pd.DataFrame({"hit": [], "width": []}, dtype=float)
    found = measured.loc[measured.index.intersection(rows.index, sort=False)]
    patients = rows.loc[found.index, "patient"]
    return {
        "n": len(found),
        "coverage": share_entry(found["hit"], patients, NO_MEASURED_INTERVAL),
        "width": mean_entry(found["width"], patients, NO_MEASURED_INTERVAL),
    }


def _stratum(rows: pd.DataFrame, structures: Sequence[str], intervals: Mapping[str, pd.DataFrame]) -> Stratum:
    dice = {key: intervals.get(f"dice_{key}") for key in structures}
    return {
        "n": len(rows),
        **_region(rows, "heart", intervals),
        "volume": _region(rows, "volume", intervals),
        "dice": {key: interval_entries(rows, measured) for key, measured in dice.items() if measured is not None},
        "error_dice": mean_entry(rows["error_dice"], rows["patient"], NO_MAP if len(rows) else NO_MASK),
        "false_alarm": mean_entry(
            false_alarm_rate(rows), rows["patient"], NO_MAP if len(rows) and "voxels" in rows else NO_VOXELS
        ),
        "correction": _correction(rows, structures),
    }


def _region(rows: pd.DataFrame, region: str, intervals: Mapping[str, pd.DataFrame]) -> RegionInStratum:
    gap = rows[f"qi_{region}"] - rows[f"acc_{region}"]
    held = interval_entries(rows, intervals.get(f"acc_{region}"))
    return {
        "bias": mean_entry(gap, rows["patient"], NO_MASK),
        "mae": mean_entry(gap.abs(), rows["patient"], NO_MASK),
        "coverage": held["coverage"],
        "width": held["width"],
    }


def _correction(rows: pd.DataFrame, structures: Sequence[str]) -> CorrectionInStratum:
    before, after = before_and_after(rows, structures)
    change = _change(after - before, rows["patient"])
    if change["mean"] is None:
        return {**change, "per_structure": {}}
    each = {key: _change(structure_gain(rows, key), rows["patient"]) for key in structures}
    return {**change, "per_structure": each}


def _change(gain: pd.Series, patients: pd.Series) -> Change:
    found: Entry = mean_entry(gain, patients, NO_CORRECTION if len(gain) else NO_MASK)
    return {**found, "worst": None if found["mean"] is None else float(gain.min())}
