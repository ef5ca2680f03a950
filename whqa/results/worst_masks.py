"""The order in which masks of a run are worth a look: the worst judged first."""

from __future__ import annotations

import pandas as pd

from whqa.masks.plan import is_delivered
from whqa.results.mean_dice import mean_dice, mean_dice_predicted
from whqa.results.tables import RunTables


def worst_first(tables: RunTables) -> pd.DataFrame:
    """The first method's rows of delivered masks (of all, where none is delivered), worst judged first.

    With mean_dice and mean_dice_predicted, `gap` = |QI - Acc| over the volume and `place`, 1 being the lowest QI.
    """
    rows = tables.of_first_method
    delivered = rows["mask_kind"].map(is_delivered)
    rows = rows[delivered] if delivered.any() else rows
    rows = rows.assign(
        mean_dice=mean_dice(rows, tables.structures),
        mean_dice_predicted=mean_dice_predicted(rows, tables.structures),
        gap=(rows["qi_volume"] - rows["acc_volume"]).abs(),
        place=rows["qi_volume"].rank(method="first").astype(int),
    )
    return rows.sort_values(["gap", "case", "mask_kind"], ascending=[False, True, True])


def report_name(case: str, kind: str) -> str:
    """The folder below reports/ that belongs to a mask."""
    return case if kind == "final" else f"{case}-{kind}"
