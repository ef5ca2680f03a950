"""Case tables -> the numbers of summary.json: every entry has a `mean`, an interval by patient, or null and a reason.

Point estimates come from `whqa.metrics`, intervals from `whqa.results.bootstrap`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from whqa.contract.entries import Entry, Spread
from whqa.contract.summary_json import (
    MethodNumbers,
    PerStructure,
    PlaceNumbers,
    QualityAgainstAccuracy,
    Segmentation,
    SizeNumbers,
)
from whqa.judges.constant import REGIONS
from whqa.metrics import correlation
from whqa.metrics.arrays import FloatArray
from whqa.metrics.error_places import PLACE_COLUMNS
from whqa.metrics.error_sizes import SIZE_COLUMNS, SIZES
from whqa.results import bootstrap
from whqa.results.breakdown import breakdown
from whqa.results.failure_score import ChosenScore, choose_score, failure_numbers, no_failure_numbers
from whqa.results.reliability import reliability
from whqa.results.strata import strata_numbers
from whqa.results.summary_entry import NO_MAP, entry_of, mean_entry, view_title
from whqa.results.tables import RunTables, view

Statistic = Callable[[npt.NDArray, npt.NDArray], float]
Resampled = Callable[..., FloatArray]


def method_numbers(tables: RunTables, intervals: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, MethodNumbers]]:
    """The entry "methods" of summary.json; a method has the parts of `RunTables.views`.

    Args:
        tables: of the run.
        intervals: of the first method, from `whqa.results.interval_coverage.measure_intervals`.
    """
    methods: dict[str, dict[str, MethodNumbers]] = {method: {} for method in tables.methods}
    views = {masks: view(tables.judged, masks) for masks in tables.views}
    for i, (method, parts) in enumerate(methods.items()):
        chosen = choose_score(tables.judged[tables.judged["method"] == method], tables.structures)
        for masks, rows in views.items():
            of_method = rows[rows["method"] == method]
            if of_method.empty:
                parts[masks] = _nothing(of_method, tables.structures, masks)
            else:
                measured = {} if i else intervals
                numbers = _method_numbers(of_method, tables.structures, chosen, measured)
                first = rows[rows["method"] == tables.methods[0]]
                parts[masks] = {**numbers, "lead": paired_lead(first, of_method)} if i else numbers
    return methods


def paired_lead(first: pd.DataFrame, second: pd.DataFrame, column: str = "error_dice") -> Entry:
    """How much higher a column of `first` is than of `second`, mask by mask, over masks that both have a value of."""
    key = ["case", "mask_kind"]
    both = first[[*key, "patient", column]].merge(second[[*key, column]], on=key, suffixes=("", "_second"))
    reason = "no mask that both have judged" if both.empty else f"one of the two has no {column} of any such mask"
    return mean_entry(both[column] - both[f"{column}_second"], both["patient"], reason)


def segmentation_numbers(segmented: pd.DataFrame, structures: tuple[str, ...]) -> Segmentation:
    """Dice and HD95 of the final masks, over structures and for each."""
    final = segmented[segmented["mask_kind"] == "final"]

    def measured(prefix: str) -> PerStructure:
        names = {key: f"{prefix}{key}" for key in structures}
        columns = final.reindex(columns=list(names.values()))

        def entry(values: pd.Series, what: str) -> Entry:
            reason = f"no final mask has a value of {what}" if len(segmented) else "no segmenter was trained"
            return mean_entry(values, final["patient"], reason)

        each = {key: entry(columns[name], name) for key, name in names.items()}
        return {**entry(columns.mean(axis=1), f"{prefix}*"), "per_structure": each}

    return {"dice": measured("dice_"), "hd95_mm": measured("hd95_")}


def _method_numbers(
    rows: pd.DataFrame, structures: tuple[str, ...], chosen: ChosenScore, intervals: Mapping[str, pd.DataFrame]
) -> MethodNumbers:
    """K: one method on one part of the masks."""
    hits, predicted, true = (rows[c].to_numpy(float) for c in ("hit_voxels", "predicted_voxels", "error_voxels"))
    has_map = bool(rows["error_dice"].notna().any())
    pooled = bootstrap.resampled_pooled_dice(hits, predicted, true, np.ones((1, len(rows))))
    seconds = rows["seconds"] if "seconds" in rows else pd.Series(np.nan, index=rows.index)
    found: MethodNumbers = {
        "n": len(rows),
        "error_dice": {
            **mean_entry(rows["error_dice"], rows["patient"], NO_MAP),
            "pooled": float(pooled[0]) if has_map else None,
        },
        "error_auprc": mean_entry(
            rows["error_auprc"], rows["patient"], "no judged mask has an error" if has_map else NO_MAP
        ),
        "lead": entry_of(math.nan, None, "it is the first method"),
        "volume": quality_numbers(rows, "volume", "qi_volume"),
        "heart": quality_numbers(rows, "heart", "qi_heart"),
        "failure": failure_numbers(rows, structures, chosen),
        "places": place_numbers(rows),
        "strata": strata_numbers(rows, structures, intervals),
        "reliability": reliability(rows),
        "seconds_per_case": mean_entry(seconds, rows["patient"], "no time was recorded"),
        **breakdown(rows, structures),
    }
    soft = {r: f"qi_soft_{r}" for r in REGIONS if f"qi_soft_{r}" in rows and rows[f"qi_soft_{r}"].notna().all()}
    if "volume" in soft:
        found["volume_soft"] = quality_numbers(rows, "volume", soft["volume"])
    if "heart" in soft:
        found["heart_soft"] = quality_numbers(rows, "heart", soft["heart"])
    return found


def _nothing(rows: pd.DataFrame, structures: tuple[str, ...], masks: str) -> MethodNumbers:
    """K where a method judged no such mask; `rows` is empty."""
    reason = f"the method judged no {view_title(masks)}"
    null = entry_of(math.nan, None, reason)
    quality: QualityAgainstAccuracy = {
        "acc": {"mean": None, "std": None, "reason": reason},
        "pcc": null,
        "spearman": null,
        "mae": null,
        "mae_constant": null,
    }
    return {
        "n": 0,
        "error_dice": {**null, "pooled": None},
        "error_auprc": null,
        "lead": null,
        "volume": quality,
        "heart": quality,
        "failure": no_failure_numbers(reason),
        "places": {
            "recall": null,
            "false_per_mask": null,
            "by_size": {size: {"share": null, "voxel_recall": null, "recall": null} for size in SIZES},
        },
        "strata": strata_numbers(rows, structures, {}),
        "reliability": reliability(rows),
        "seconds_per_case": null,
        **breakdown(rows, structures),
    }


def place_numbers(rows: pd.DataFrame) -> PlaceNumbers:
    """The entry "places" of one method on one part of the masks."""
    true, found, false = (rows.get(column, pd.Series(np.nan, rows.index)) for column in PLACE_COLUMNS)
    older = None if set(PLACE_COLUMNS) <= set(rows) else "a table of an older run, which lacks `true_places`"
    nowhere = "no judged mask has a wrong place of 1 ml" if true.notna().any() else NO_MAP
    return {
        "recall": mean_entry(found / true.where(true > 0), rows["patient"], older or nowhere),
        "false_per_mask": mean_entry(false, rows["patient"], older or NO_MAP),
        "by_size": {size: _size_numbers(rows, size) for size in SIZES},
    }


def _size_numbers(rows: pd.DataFrame, size: str) -> SizeNumbers:
    names = (f"{size}_voxels", f"{size}_hit_voxels", f"{size}_places", f"found_{size}_places")
    voxels, hit, places, found = (rows.get(name, pd.Series(np.nan, rows.index)) for name in names)
    reason = None if set(SIZE_COLUMNS) <= set(rows) else f"a table of an older run, which lacks `{names[0]}`"
    reason = reason or (None if voxels.notna().any() else NO_MAP)
    errors = rows["error_voxels"].where(rows["error_voxels"] > 0)
    return {
        "share": mean_entry(voxels / errors, rows["patient"], reason or "no judged mask has an error"),
        "voxel_recall": mean_entry(hit / voxels.where(voxels > 0), rows["patient"], reason or f"no {size} error"),
        "recall": mean_entry(found / places.where(places > 0), rows["patient"], reason or f"no {size} error of 1 ml"),
    }


def quality_numbers(rows: pd.DataFrame, region: str, column: str) -> QualityAgainstAccuracy:
    """Q: how well a QI column follows Acc of a region."""
    acc, constant = rows[f"acc_{region}"].to_numpy(float), rows[f"constant_{region}"].to_numpy(float)
    qi = rows[column].to_numpy(float)
    patients = list(rows["patient"])
    is_constant = bool((rows["method"] == "constant").all())
    spread: Spread = {"mean": float(acc.mean()), "std": float(acc.std(ddof=1)) if len(acc) > 1 else None}
    if len(acc) < 2:
        spread["reason"] = "one mask has no spread"

    def correlated(core: Statistic, resampled: Resampled) -> Entry:
        if is_constant:
            return entry_of(math.nan, None, "a constant has no correlation; it differs only between folds")
        reason = correlation.why_undefined(qi, acc)
        found = None if reason else bootstrap.ci95(resampled, qi, acc, patients=patients)
        return entry_of(core(qi, acc), found, reason or "not defined")

    def distance(prediction: npt.NDArray[np.float64]) -> Entry:
        found = bootstrap.ci95(bootstrap.resampled_mean, np.abs(prediction - acc), patients=patients)
        return entry_of(correlation.mae(prediction, acc), found, "QI or Acc is missing")

    return {
        "acc": spread,
        "pcc": correlated(correlation.pearson, bootstrap.resampled_pearson),
        "spearman": correlated(correlation.spearman, bootstrap.resampled_spearman),
        "mae": distance(qi),
        "mae_constant": distance(constant),
    }


def limits_of_agreement(rows: pd.DataFrame, region: str) -> tuple[float, float]:
    """Mean of QI - Acc, and how far the 95 % limits of agreement lie from it (1.96 SD; Bland & Altman 1986)."""
    difference = (rows[f"qi_{region}"] - rows[f"acc_{region}"]).to_numpy(float)
    return float(difference.mean()), 1.96 * float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
