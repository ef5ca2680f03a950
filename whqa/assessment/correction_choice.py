"""Whether a mask is corrected: by a rule that harmed no unseen mask of any quality, structure by structure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt
import torch

from whqa.assessment.ensemble import NO_LABELS, Judgement
from whqa.assessment.model import TrainedRun
from whqa.contract.quality_json import MeasuredGain
from whqa.judges.calibration import CorrectionRule
from whqa.judges.correction import correct
from whqa.results.breakdown import measured_correction

_NOTHING_KNOWN = "the run held no training cases back by which to choose, or an older version trained it"


@dataclass(frozen=True)
class CorrectionChoice:
    """Whether masks are corrected, and why.

    Attributes:
        reason: why, or why not.
        rule: when a voxel and a structure may change; None leaves masks alone.
        out_of_fold: what correction did to the run's unseen masks; None where that could not be measured.
    """

    reason: str
    rule: CorrectionRule | None = None
    out_of_fold: MeasuredGain | None = None

    def unless(self, cause: str | None) -> CorrectionChoice:
        """The choice for a mask that must not be corrected for a cause, or None."""
        if self.rule is None or cause is None:
            return self
        return replace(self, rule=None, reason=f"left alone: {cause}")


@dataclass(frozen=True, eq=False)
class CorrectedMask:
    """A mask after correction, on the run's grid.

    Attributes:
        labels: uint8 (D, H, W).
        gains: expected gain in Dice of each structure 1..C that was changed, 0 where a change was expected to gain too
            little, nan where nothing was to change.
    """

    labels: npt.NDArray[np.uint8]
    gains: tuple[float, ...]


def correction_choice(run: TrainedRun) -> CorrectionChoice:
    """The rule that suits the training masks which the run's networks held back, all networks together."""
    if run.head != "label":
        return CorrectionChoice(f"left alone: {NO_LABELS}")
    measured = cast(MeasuredGain | None, measured_correction(run.cases, run.scheme.keys))
    rule = run.correction
    if rule is None:
        helped = "on held-back training cases no correction helped" if run.n_held_back else _NOTHING_KNOWN
        return CorrectionChoice(f"left alone: {helped}", None, measured)
    told = f"applied where another label has a probability of {rule.probability:g}"
    if rule.gain:
        told += f" and the structure's Dice is expected to gain {rule.gain:g}{_exceptions(rule, run.scheme.titles)}"
    if measured is not None:
        told += (
            f"; on {measured['n']} of the run's own {'final masks' if measured['final'] else 'masks'}, of unseen "
            f"cases, correction changed the mean Dice from {measured['dice_before']:.3f} "
            f"to {measured['dice_after']:.3f}"
        )
    return CorrectionChoice(told, rule, measured)


def _exceptions(rule: CorrectionRule, titles: Sequence[str]) -> str:
    """Such as " (pulmonary artery 0.2)"."""
    gains = {title: rule.gain_of(i) for i, title in enumerate(titles, start=1)}
    others = {title: gain for title, gain in gains.items() if gain != rule.gain}
    told = [f"{title} {'never' if np.isinf(gain) else f'{gain:g}'}" for title, gain in others.items()]
    return f" ({', '.join(told)})" if told else ""


def corrected_mask(judgement: Judgement, mask_DHW: npt.NDArray[np.uint8], rule: CorrectionRule | None) -> CorrectedMask:
    """The mask corrected by a rule; without rule or label head the mask itself."""
    if rule is None or judgement.others is None:
        n = 0 if judgement.others is None else len(judgement.others) - 1
        return CorrectedMask(mask_DHW, (float("nan"),) * n)
    labels, gains = correct(judgement.probability, judgement.others, torch.from_numpy(mask_DHW), rule)
    return CorrectedMask(labels.numpy(), tuple(gains.tolist()))
