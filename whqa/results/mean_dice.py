"""The mean Dice of a mask over its structures: as measured, as expected, and before and after correction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from whqa.metrics.segmentation import paired_mean_dice


def mean_dice(rows: pd.DataFrame, structures: Sequence[str]) -> pd.Series:
    """Of each row's mask, over the structures that have a Dice; nan where none has.

    Args:
        rows: of a case table.
        structures: keys in index order.
    """
    return _columns(rows, structures).mean(axis=1)


def mean_dice_predicted(rows: pd.DataFrame, structures: Sequence[str]) -> pd.Series:
    """What a label head expects it to be, as `expected_mean_dice` for a new mask; nan without a prediction.

    Over all structures that have an expected Dice: which of them the reference has is not known of a new mask.
    """
    return _columns(rows, structures, "_predicted").mean(axis=1)


def worst_dice_predicted(rows: pd.DataFrame, structures: Sequence[str]) -> pd.Series:
    """The lowest Dice that a label head expects of a structure; nan without a prediction."""
    return _columns(rows, structures, "_predicted").min(axis=1)


def before_and_after(rows: pd.DataFrame, structures: Sequence[str]) -> tuple[pd.Series, pd.Series]:
    """Mean Dice of each row's mask before and after correction, see `paired_mean_dice`; nan without a correction."""
    before, after = (_columns(rows, structures, suffix) for suffix in ("", "_corrected"))
    corrected = after.notna().any(axis=1)
    first, second = (
        pd.Series(mean, index=rows.index).where(corrected)
        for mean in paired_mean_dice(before.to_numpy(float), after.to_numpy(float))
    )
    return first, second


def expected_mean_dice(structures: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Mean over the structures that have an expected Dice, None where none has.

    Args:
        structures: the part of that name of quality.json.
    """
    expected = [s["dice_expected"] for s in structures.values() if s["dice_expected"] is not None]
    return float(np.mean(expected)) if expected else None


def _columns(rows: pd.DataFrame, structures: Sequence[str], suffix: str = "") -> pd.DataFrame:
    return rows.reindex(columns=[f"dice_{key}{suffix}" for key in structures]).astype(float)
