"""Case tables -> the numbers of summary.json: every entry has a `mean`, an interval by patient, or null and a reason.

Point estimates come from `whqa.metrics`, intervals from `whqa.results.bootstrap`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from whqa.contract.summary_json import (
    Breakdown,
    Entry,
    FailureDetection,
    MethodNumbers,
    PerStructure,
    QualityAgainstAccuracy,
    Segmentation,
    Spread,
)
from whqa.judges.constant import REGIONS
from whqa.metrics import correlation, failure
from whqa.metrics.per_case import FloatArray
from whqa.results import bootstrap
from whqa.results.breakdown import breakdown
from whqa.results.mean_dice import mean_dice
from whqa.results.summary_entry import entry_of, mean_entry
from whqa.results.tables import RunTables, view

Statistic = Callable[[npt.NDArray, npt.NDArray], float]
Resampled = Callable[..., FloatArray]
POOR_DICE = 0.7

DEFINITIONS: dict[str, str] = {
    "error map": "E = [M ≠ G], M the mask under judgement and G the reference labels. A method predicts a probability "
    "P of E and a map Ê = [P ≥ τ]. Nothing is fitted on test cases: τ was chosen on training cases, or follows from "
    "the mask's own P (rule expected: the map whose Dice P, calibrated on training cases, lets expect to be best).",
    "error Dice": "2|E∩Ê| / (|E|+|Ê|) a case, then averaged; 1 where a case has no error and none is predicted. "
    "Pooled: from voxel counts summed over all cases.",
    "error AUPRC": "average precision of P for E, a case, then averaged over the cases that have an error.",
    "Acc and QI": 'Acc = 1 - mean(E), QI = 1 - mean(Ê), soft QI = 1 - mean(P), each over a region. Region "volume": '
    'the whole preprocessed crop around the heart. Region "heart": the mask\'s foreground dilated by 10 mm.',
    "PCC, Spearman, MAE": "Pearson and rank correlation of QI with Acc over masks, and the mean of |QI - Acc|. Beside "
    "each MAE stands that of a constant: the mean Acc of the training masks (of final masks where these are judged, of "
    "all kinds otherwise). The constant itself varies only between folds, so it has no correlation.",
    "final and all": "final: only the segmenter's final masks. all: side outputs and early checkpoints as well; their "
    "wide range of quality alone raises PCC.",
    "failure": "risk = 1 - mean Dice of the mask's structures, confidence = QI (volume). AURC: mean risk of the i most "
    "confident masks, averaged over i (lower is better); e-AURC: AURC minus that of the perfect order; AUROC: of "
    f'"a structure\'s Dice is below {POOR_DICE}" by -QI.',
    "95 % interval": f"percentile bootstrap by patient, {bootstrap.N_RESAMPLES} resamples; one patient's masks stay "
    "together.",
    "seconds per case": "wall clock of one prediction on the machine that ran the fold.",
}


SPLIT_DEFINITIONS: dict[str, str] = {
    "error Dice by structure": "error Dice among the voxels that the mask or the reference gives to the structure. A "
    "false alarm there counts for it, one in the background for none; a structure that neither has is left out.",
    "correction": "the label head's most probable other label wherever the error probability is at least a threshold "
    "that was chosen on held-back training cases; where nothing helped there, the mask is left alone. Gain: a mask's "
    "mean Dice after minus before, both over the structures that have a Dice before or after. One that mask and "
    "reference lack counts 1 there, as they agree: a structure that the correction invents costs 1 / (number of "
    "structures). By structure, only masks in which it has a Dice before and after count.",
    "intervals for Acc and Dice": "for the true Acc given QI and a structure's true Dice given the expected one, by "
    "cross-conformal prediction (CV+, Barber et al. 2021). Measured: the masks of a fold got their intervals from "
    "those of the other folds, all kinds together.",
    "place by QI": "1 for the mask with the lowest QI over the volume among those that somebody would use: the place "
    "at which it is met by who looks at the masks in this order.",
}


EXTERNAL_DEFINITIONS: dict[str, str] = {
    "masks of other programs": "masks that another program or a person made of the same images: a kind of their own, "
    "and part of all. That their maker had not seen these cases' references is the word of whoever ran this. They come "
    "without a segmenter's entropy, so the baseline entropy does not judge them, nor count them in all.",
}


def method_numbers(tables: RunTables) -> dict[str, dict[str, MethodNumbers]]:
    """The entry "methods" of summary.json.

    A method has the parts "final" and "all", and one for each other program whose masks were judged.
    """
    methods: dict[str, dict[str, MethodNumbers]] = {method: {} for method in tables.methods}
    for masks in tables.views:
        rows = view(tables.judged, masks)
        for method, parts in methods.items():
            parts[masks] = _method_numbers(rows[rows["method"] == method], tables.structures, masks)
    return methods


def segmentation_numbers(segmented: pd.DataFrame, structures: tuple[str, ...]) -> Segmentation:
    """Dice and HD95 of the final masks, over structures and for each."""
    final = segmented[segmented["mask_kind"] == "final"]

    def measured(prefix: str) -> PerStructure:
        reason = f"no final mask has a {prefix}<structure> value" if len(segmented) else "no segmenter was trained"
        columns = final.reindex(columns=[f"{prefix}{key}" for key in structures])
        each = {key: mean_entry(columns[f"{prefix}{key}"], final["patient"], reason) for key in structures}
        return {**mean_entry(columns.mean(axis=1), final["patient"], reason), "per_structure": each}

    return {"dice": measured("dice_"), "hd95_mm": measured("hd95_")}


def _method_numbers(rows: pd.DataFrame, structures: tuple[str, ...], masks: str) -> MethodNumbers:
    """K: one method on final masks, on those of another program or on all kinds."""
    if rows.empty:
        which = "final masks" if masks == "final" else f"masks of {masks}"
        return _nothing(f"the method judged no {which}", breakdown(rows, structures))
    hits, predicted, true = (rows[c].to_numpy(float) for c in ("hit_voxels", "predicted_voxels", "error_voxels"))
    pooled = bootstrap.resampled_pooled_dice(hits, predicted, true, np.ones((1, len(rows))))
    seconds = rows["seconds"] if "seconds" in rows else pd.Series(np.nan, index=rows.index)
    found: MethodNumbers = {
        "n": len(rows),
        "error_dice": {
            **mean_entry(rows["error_dice"], rows["patient"], "no case has an error Dice"),
            "pooled": float(pooled[0]),
        },
        "error_auprc": mean_entry(rows["error_auprc"], rows["patient"], "no judged mask has an error"),
        "volume": _quality_numbers(rows, "volume", "qi_volume"),
        "heart": _quality_numbers(rows, "heart", "qi_heart"),
        "failure": _failure_numbers(rows, structures),
        "seconds_per_case": mean_entry(seconds, rows["patient"], "no time was recorded"),
        **breakdown(rows, structures),
    }
    soft = {r: f"qi_soft_{r}" for r in REGIONS if f"qi_soft_{r}" in rows and rows[f"qi_soft_{r}"].notna().all()}
    if "volume" in soft:
        found["volume_soft"] = _quality_numbers(rows, "volume", soft["volume"])
    if "heart" in soft:
        found["heart_soft"] = _quality_numbers(rows, "heart", soft["heart"])
    return found


def _nothing(reason: str, parts: Breakdown) -> MethodNumbers:
    """K where a method judged no such mask."""
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
        "volume": quality,
        "heart": quality,
        "failure": {"aurc": null, "e_aurc": null, "auroc": null},
        "seconds_per_case": null,
        **parts,
    }


def _quality_numbers(rows: pd.DataFrame, region: str, column: str) -> QualityAgainstAccuracy:
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


def confidence_and_risk(rows: pd.DataFrame, structures: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
    """Confidence (QI over the volume) and risk (1 - mean true Dice) of one method's rows whose mask has a Dice.

    The constant gets one confidence for all: it cannot rank, and its differences between folds are chance.
    """
    dice = mean_dice(rows, structures)
    known = rows[dice.notna()]
    confidence = known["qi_volume"].to_numpy(float)
    if (known["method"] == "constant").all():
        confidence = np.zeros_like(confidence)
    return confidence, 1 - dice[dice.notna()].to_numpy(float)


def _failure_numbers(rows: pd.DataFrame, structures: tuple[str, ...]) -> FailureDetection:
    dice = rows[[f"dice_{key}" for key in structures]]
    rows = rows[dice.notna().any(axis=1)]
    if rows.empty:
        nothing = entry_of(math.nan, None, "no judged mask has a Dice")
        return {"aurc": nothing, "e_aurc": nothing, "auroc": nothing}
    confidence, risk = confidence_and_risk(rows, structures)
    poor = (rows[dice.columns] < POOR_DICE).any(axis=1).to_numpy()
    some = "every mask has" if poor.all() else "no mask has"
    one_class = f"one class only: {some} a structure with Dice below {POOR_DICE}"

    def ranked(core: Statistic, resampled: Resampled, score: npt.NDArray, truth: npt.NDArray) -> Entry:
        found = bootstrap.ci95(resampled, score, truth, patients=list(rows["patient"]))
        return entry_of(core(score, truth), found, one_class)

    return {
        "aurc": ranked(failure.aurc, bootstrap.resampled_aurc, confidence, risk),
        "e_aurc": ranked(failure.e_aurc, bootstrap.resampled_e_aurc, confidence, risk),
        "auroc": ranked(failure.auroc, bootstrap.resampled_auroc, -confidence, poor),
        "positives": int(poor.sum()),
    }
