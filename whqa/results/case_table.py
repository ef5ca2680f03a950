"""The case tables of some folds, as judging a new mask needs them: the error-map network's rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from whqa.files import ONLY_EMPTY_IS_MISSING, reading
from whqa.masks.run_state import made_again
from whqa.metrics.verdict_row import NETWORK
from whqa.results.mean_dice import mean_dice, mean_dice_predicted


def case_table(run_dir: Path, folds: Sequence[int], structures: Sequence[str]) -> pd.DataFrame:
    """Rows of the error-map network in the case tables of these folds, with `mean_dice` and `mean_dice_predicted`.

    Args:
        run_dir: runs/<experiment>; the other folds need not be complete.
        folds: which.
        structures: keys in index order.

    Raises:
        InputError: a table is missing or damaged.
    """
    tables = [_network_rows(run_dir / "errormap" / str(k) / "cases.csv") for k in folds]
    table = pd.concat(tables, ignore_index=True)
    table["mean_dice"] = mean_dice(table, structures)
    table["mean_dice_predicted"] = mean_dice_predicted(table, structures)
    return table


def _network_rows(path: Path) -> pd.DataFrame:
    numbers = ("acc_volume", "qi_volume", "acc_heart", "qi_heart")
    with reading(path, "a case table", made_again(path.parent)):
        text = {"case": str, "patient": str, "mask_kind": str}
        table = pd.read_csv(path, dtype=text, **ONLY_EMPTY_IS_MISSING)
        table = table[table["method"] == NETWORK].assign(fold=lambda t: t["fold"].astype(int))
        dice = [c for c in table if str(c).startswith("dice_")]
        if table.empty or table[["case", "patient", "mask_kind"]].isna().any(axis=None):
            raise ValueError("no row of the network, or one without its case")
        return table.astype(dict.fromkeys([*numbers, *dice], float))
