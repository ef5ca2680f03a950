"""The order in which masks of a run are worth a look: the worst judged first."""

from __future__ import annotations

import pandas as pd

from whqa.masks.plan import is_delivered
from whqa.results.tables import RunTables


def worst_first(tables: RunTables) -> pd.DataFrame:
    """The first method's rows of delivered masks (of all, where none is delivered), worst judged first.

    With mean_dice and mean_dice_predicted, `gap` = |QI - Acc| over the volume and `place`, 1 being the lowest QI.
    """
    rows = tables.judged[tables.judged["method"] == tables.methods[0]]
    delivered = rows["mask_kind"].map(is_delivered)
    rows = rows[delivered] if delivered.any() else rows
    keys = tables.structures
    expected = rows.reindex(columns=[f"dice_{key}_predicted" for key in keys]).astype(float)
    rows = rows.assign(
        mean_dice=rows[[f"dice_{key}" for key in keys]].mean(axis=1),
        mean_dice_predicted=expected.where(rows[[f"dice_{key}" for key in keys]].notna().to_numpy()).mean(axis=1),
        gap=(rows["qi_volume"] - rows["acc_volume"]).abs(),
        place=rows["qi_volume"].rank(method="first").astype(int),
    )
    return rows.sort_values(["gap", "case", "mask_kind"], ascending=[False, True, True])


def report_name(case: str, kind: str) -> str:
    """The folder below reports/ that belongs to a mask."""
    return case if kind == "final" else f"{case}-{kind}"
