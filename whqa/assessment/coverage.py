"""How often the intervals of `whqa assess` hold on the run's own unseen cases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from whqa.assessment.conformal import OutOfFold, coverage
from whqa.report.bootstrap import ci95, mean

CONFIDENCE = 0.9


def interval_numbers(cases: pd.DataFrame, structures: Sequence[str], confidence: float = CONFIDENCE) -> dict[str, Any]:
    """Measured coverage and width of the intervals, each fold's masks judged with the residuals of the other folds.

    Args:
        cases: the error-map network's rows of all folds.
        structures: keys.
        confidence: that the intervals are made for.

    Returns:
        {"confidence", "acc_volume", "acc_heart", "dice_<structure>"...}; each of the latter {"final", "all"} with
        {"n", "coverage": {"mean", "ci95"}, "width": {"mean"}}, or {"n": 0, "reason"} where there are none. Dice stands
        only where the network has a label head.
    """
    quantities = {f"acc_{region}": f"qi_{region}" for region in ("volume", "heart")}
    quantities |= {f"dice_{key}": f"dice_{key}_predicted" for key in structures}
    numbers: dict[str, Any] = {"confidence": confidence}
    for true, predicted in quantities.items():
        if predicted in cases and cases[predicted].notna().any():
            numbers[true] = _halves(cases, predicted, true, confidence)
    return numbers


def _halves(cases: pd.DataFrame, predicted: str, true: str, confidence: float) -> dict[str, Any]:
    rows = cases[cases[predicted].notna() & cases[true].notna()]
    found = coverage(OutOfFold.of(rows, predicted, true), confidence)
    given = ~np.isnan(found["hit"])
    patients = rows["patient"].astype(str).to_numpy()
    final = (rows["mask_kind"] == "final").to_numpy()
    halves = {}
    for name, half in (("final", final & given), ("all", given)):
        if not half.any():
            halves[name] = {"n": 0, "reason": "too few unseen cases for an interval of this confidence"}
            continue
        hits = found["hit"][half]
        halves[name] = {
            "n": int(half.sum()),
            "coverage": {"mean": float(hits.mean()), "ci95": ci95(mean, hits, patients=patients[half].tolist())},
            "width": {"mean": float((found["high"] - found["low"])[half].mean())},
        }
    return halves
