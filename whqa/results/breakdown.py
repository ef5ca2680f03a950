"""One method's rows taken apart: by mask kind, by structure, and before against after correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from whqa.contract.entries import Entry
from whqa.contract.summary_json import Breakdown, CorrectionNumbers, KindNumbers, StructureNumbers
from whqa.masks.plan import MASK_KINDS
from whqa.results.mean_dice import before_and_after, mean_dice
from whqa.results.summary_entry import NO_MAP, mean_entry
from whqa.results.tables import in_order

NO_EXPECTATION = "the method expects no Dice"
NO_CORRECTION = "the method predicts no labels, so that it corrects nothing"
_NOWHERE = "no judged mask and no reference has this structure"


def breakdown(rows: pd.DataFrame, structures: Sequence[str]) -> Breakdown:
    """The entries "correction", "by_structure" and "by_kind" of one method on one half of the masks.

    Args:
        rows: of `whqa.results.tables.view`, one method.
        structures: keys in index order.
    """
    return {
        "correction": correction_numbers(rows, structures),
        "expected_dice_mae": expected_dice_mae(rows, structures),
        "by_structure": {key: _structure_numbers(rows, key) for key in structures},
        "by_kind": {
            kind: _kind_numbers(rows[rows["mask_kind"] == kind], structures)
            for kind in in_order(rows["mask_kind"].unique(), MASK_KINDS)
        },
    }


def correction_numbers(rows: pd.DataFrame, structures: Sequence[str]) -> CorrectionNumbers:
    """Mean Dice of the masks before and after correction, what each gains, and the share of masks that it helps.

    See `whqa.metrics.segmentation.paired_mean_dice` for the definition.

    Returns:
        {"dice_before", "dice_after", "gain"}: entries over the masks that were corrected; where there are any also
        "improved_share" and "worsened_share" (a mean Dice that rises or falls at all).
    """
    before, after = before_and_after(rows, structures)
    gain = after - before
    found: CorrectionNumbers = {
        "dice_before": mean_entry(before, rows["patient"], NO_CORRECTION),
        "dice_after": mean_entry(after, rows["patient"], NO_CORRECTION),
        "gain": mean_entry(gain, rows["patient"], NO_CORRECTION),
    }
    known = gain.dropna()
    if len(known):
        found["improved_share"], found["worsened_share"] = float((known > 0).mean()), float((known < 0).mean())
    return found


def measured_correction(cases: pd.DataFrame, structures: Sequence[str]) -> dict[str, Any] | None:
    """What a new mask's correction may gain: `correction_numbers` of a run's final masks, of all where none is final.

    Args:
        cases: one method's rows on masks of unseen cases.
        structures: keys in index order.

    Returns:
        {"n", "final", "dice_before", "dice_after", "gain", "ci95" of the gain, "improved_share"}; None where no mask
        was corrected. `final`: whether these are final masks.
    """
    final = cases[cases["mask_kind"] == "final"]
    rows = cases if final.empty else final
    found = correction_numbers(rows, structures)
    if found["gain"]["mean"] is None:
        return None
    return {
        "n": found["gain"].get("n", len(rows)),
        "final": not final.empty,
        "dice_before": found["dice_before"]["mean"],
        "dice_after": found["dice_after"]["mean"],
        "gain": found["gain"]["mean"],
        "ci95": found["gain"]["ci95"],
        "improved_share": found["improved_share"],
    }


def structure_gain(rows: pd.DataFrame, key: str) -> pd.Series:
    """Dice of a structure after correction minus before; nan where it has none before or after."""
    return _corrected(rows, key) - rows[f"dice_{key}"]


def expected_dice_gap(rows: pd.DataFrame, key: str) -> pd.Series:
    """|expected Dice - Dice| of a structure; nan where one of them is not known.

    Who expects nothing of a structure that mask lacks calls the mask right: 1, in rows that expect something of others.
    """
    expected = rows.get(f"dice_{key}_predicted", pd.Series(float("nan"), index=rows.index)).astype(float)
    of_any = rows.filter(regex=r"^dice_.*_predicted$").notna().any(axis=1)
    return (expected.where(expected.notna() | ~of_any, 1.0) - rows[f"dice_{key}"]).abs()


def expected_dice_mae(rows: pd.DataFrame, structures: Sequence[str]) -> Entry:
    """Mean over masks of the mean of `expected_dice_gap` over structures."""
    gaps = pd.concat([expected_dice_gap(rows, key) for key in structures], axis=1)
    return mean_entry(gaps.mean(axis=1), rows["patient"], NO_EXPECTATION)


def _structure_numbers(rows: pd.DataFrame, key: str) -> StructureNumbers:
    before, after = rows[f"dice_{key}"], _corrected(rows, key)
    nowhere = _NOWHERE if len(rows) and before.isna().all() else None
    error_dice = rows.get(f"error_dice_{key}", pd.Series(float("nan"), index=rows.index)).astype(float)
    absent = "no judged mask was measured within this structure; tables of older runs lack the column"
    absent = absent if len(rows) == 0 or rows["error_dice"].notna().any() else NO_MAP
    return {
        "error_dice": mean_entry(error_dice, rows["patient"], nowhere or absent),
        "dice_before": mean_entry(before.where(after.notna()), rows["patient"], nowhere or NO_CORRECTION),
        "dice_after": mean_entry(after.where(before.notna()), rows["patient"], nowhere or NO_CORRECTION),
        "gain": mean_entry(structure_gain(rows, key), rows["patient"], nowhere or NO_CORRECTION),
        "expected_dice_mae": mean_entry(expected_dice_gap(rows, key), rows["patient"], nowhere or NO_EXPECTATION),
    }


def _corrected(rows: pd.DataFrame, key: str) -> pd.Series:
    return rows.get(f"dice_{key}_corrected", pd.Series(float("nan"), index=rows.index)).astype(float)


def _kind_numbers(rows: pd.DataFrame, structures: Sequence[str]) -> KindNumbers:
    dice = mean_dice(rows, structures)
    gap = (rows["qi_volume"] - rows["acc_volume"]).abs()
    return {
        "n": len(rows),
        "dice": mean_entry(dice, rows["patient"], "no mask of this kind has a Dice"),
        "error_dice": mean_entry(rows["error_dice"], rows["patient"], NO_MAP),
        "mae_volume": mean_entry(gap, rows["patient"], "QI or Acc is missing"),
        "correction": correction_numbers(rows, structures),
    }
