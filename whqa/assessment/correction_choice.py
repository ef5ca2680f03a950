"""Whether a mask is corrected: only where that helped the run's unseen masks, and masks like them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from whqa.assessment.ensemble import NO_LABELS
from whqa.assessment.model import TrainedRun
from whqa.contract.quality_json import MeasuredGain
from whqa.results.breakdown import measured_correction


@dataclass(frozen=True)
class CorrectionChoice:
    """Whether masks are corrected, and why.

    Attributes:
        applied: whether.
        reason: why, or why not.
        threshold: error probability from which on a voxel gets the most probable other label; None where none helped.
        out_of_fold: what correction did to the run's unseen masks; None where that could not be measured.
    """

    applied: bool
    reason: str
    threshold: float | None = None
    out_of_fold: MeasuredGain | None = None

    def unless(self, unlike: str | None) -> CorrectionChoice:
        """The choice for a mask that is unlike those on which the gain was measured; `unlike` says in what, or None."""
        if not self.applied or unlike is None:
            return self
        return replace(self, applied=False, reason=f"left alone: {unlike}")


def correction_choice(run: TrainedRun) -> CorrectionChoice:
    """What the run's networks chose on held-back training cases, and whether that helped its unseen final masks."""
    if run.head != "label":
        return CorrectionChoice(False, f"left alone: {NO_LABELS}")
    chosen = [n.module.calibration.correction for n in run.networks]
    thresholds = [t for t in chosen if t is not None]
    measured = cast(MeasuredGain | None, measured_correction(run.cases, run.scheme.keys))
    threshold = float(np.mean(thresholds)) if 2 * len(thresholds) > len(chosen) else None
    if threshold is None:
        reason = "left alone: on held-back training cases no correction helped"
        return CorrectionChoice(False, reason, threshold, measured)
    if measured is None:
        reason = "left alone: no unseen masks to measure the correction on"
        return CorrectionChoice(False, reason, threshold, measured)
    told = (
        f"on {measured['n']} of the run's own {'final masks' if measured['final'] else 'masks'}, of unseen cases, "
        "correction changed the mean Dice from "
        f"{measured['dice_before']:.3f} to {measured['dice_after']:.3f}"
    )
    if measured["gain"] <= 0 or (measured["ci95"] is not None and measured["ci95"][0] <= 0):
        return CorrectionChoice(False, f"left alone: {told}, which is no reliable gain", threshold, measured)
    return CorrectionChoice(True, f"applied: {told}", threshold, measured)
