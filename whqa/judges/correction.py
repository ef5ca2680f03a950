"""From predicted labels to a corrected mask and to the Dice that each structure is expected to have.

The label head says which label is right where the mask is wrong. With P the error probability and q the head's
distribution over all labels but the mask's own, the probability of the true label G is

    p(G = M) = 1 - P,    p(G = c) = P q(c) for c != M

A voxel may change where another label is probable enough, and a structure changes only where its Dice is expected to
gain enough: a change of two structures needs both, so that what is mended in one does not cost another.

Shape suffixes: C all C + 1 labels, DHW space.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import torch
from torch import Tensor

from whqa.judges.by_patient import standard_error
from whqa.judges.calibration import CorrectionRule
from whqa.metrics.arrays import FloatArray
from whqa.metrics.segmentation import segmentation_dice
from whqa.quality import count, within

TRACE = 0.01
RULES = tuple(CorrectionRule(p, gain) for p, gain in product((0.5, 0.65, 0.8), (0.05, 0.1, 0.2)))
"""Candidates, of which calibration picks one. Expected Dice is off by some hundredths: less is no sign of a gain."""
HARM = -0.001
"""Mean change of Dice that a rule may cost the calibration's masks of any quality."""
HARMED, SHARE_HARMED = -0.002, 0.1
"""A structure is harmed that loses more Dice; share of its changes that may do harm, each patient counting once."""
UNTOUCHED = 0.001
"""Voxels that a right mask may change, on average, by those that it labels: the background grows with the crop."""


@dataclass(frozen=True, eq=False)
class MaskGains:
    """What rules would do to one held-back mask.

    Attributes:
        case, patient, kind: of the mask.
        stratum: of its true quality, see `whqa.quality.stratum`.
        gains: see `true_gains`, of `RULES`.
    """

    case: str
    patient: str
    kind: str
    stratum: str
    gains: FloatArray


def other_probabilities(label_logits_CDHW: Tensor, mask_DHW: Tensor) -> Tensor:
    """q: softmax over all labels but the mask's own, whose probability is 0; float32 (C + 1, D, H, W)."""
    own = mask_DHW.long()[None]
    return label_logits_CDHW.float().scatter(0, own, float("-inf")).softmax(dim=0)


def expected_dice(probability_DHW: Tensor, others_CDHW: Tensor, mask_DHW: Tensor) -> Tensor:
    """Dice of each structure that P and q let expect, as the ratio of expectations.

    Returns:
        (C,) float64. A structure that the mask lacks and that is expected to be less than `TRACE` of all structures is
        nan: stray probability in many voxels, as in a field of view that ends before it.
    """
    sizes = _expected_sizes(probability_DHW, others_CDHW, mask_DHW)
    return _dice(mask_DHW, 1 - probability_DHW.double(), sizes)


def correct(
    probability_DHW: Tensor, others_CDHW: Tensor, mask_DHW: Tensor, rule: CorrectionRule | None
) -> tuple[Tensor, Tensor]:
    """The corrected mask and what each structure is expected to gain by it.

    Args:
        probability_DHW: P, calibrated.
        others_CDHW: q.
        mask_DHW: labels.
        rule: None leaves the mask alone.

    Returns:
        Labels like the mask, and float64 (C,): the expected gain in Dice of each structure that was changed, the gain
        that was expected but too small (or out of reach, for the other structure's sake) as 0, nan where nothing was to
        change.
    """
    return Changes(probability_DHW, others_CDHW, mask_DHW).by(rule)


class Changes:
    """What may change in one mask; what rules have in common is computed once.

    Args:
        probability_DHW: P, calibrated.
        others_CDHW: q.
        mask_DHW: labels.

    Attributes:
        label: the label that a voxel most probably has if the mask is wrong there, labels like the mask.
    """

    def __init__(self, probability_DHW: Tensor, others_CDHW: Tensor, mask_DHW: Tensor) -> None:
        share, label = others_CDHW.max(dim=0)
        self.mask, self.label, self.n_classes = mask_DHW, label.to(mask_DHW.dtype), len(others_CDHW)
        self.probability, self.of_label, self.of_mask = probability_DHW, probability_DHW * share, 1 - probability_DHW
        self.sizes = _expected_sizes(probability_DHW, others_CDHW, mask_DHW)
        self._made: dict[tuple[float, tuple[bool, ...]], tuple[Tensor, Tensor, Tensor]] = {}

    @cached_property
    def before(self) -> Tensor:
        """Dice of each structure that is expected of the mask as it is, 1 for one that is rightly not there: (C,)."""
        return _absent_counts_one(_dice(self.mask, self.of_mask, self.sizes))

    def expected_dice(self) -> Tensor:
        """See `expected_dice`."""
        return _dice(self.mask, 1 - self.probability.double(), self.sizes)

    def by(self, rule: CorrectionRule | None) -> tuple[Tensor, Tensor]:
        """See `correct`."""
        if rule is None:
            return self.mask, torch.full((self.n_classes - 1,), torch.nan, dtype=torch.float64)
        least = self.before.new_tensor([rule.gain_of(i) for i in range(1, self.n_classes)])
        allowed = torch.ones(self.n_classes, dtype=torch.bool, device=self.mask.device)
        touched = torch.zeros_like(allowed)
        while True:
            corrected, gain, moved = self._change(rule.probability, allowed)
            touched |= moved
            poor = moved[1:] & ((gain < least) | (gain <= 0))
            if not poor.any():
                found = torch.where(moved[1:], gain, torch.where(touched[1:], 0.0, torch.nan))
                return corrected, found
            allowed[1:] &= ~poor

    def _change(self, least: float, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The mask with all changes between allowed labels, expected gains (C,), labels that a voxel left or joined."""
        key = least, tuple(allowed.tolist())
        if key not in self._made:
            change = self.of_label >= least
            if not allowed.all():
                change &= allowed[self.mask.long()] & allowed[self.label.long()]
            corrected = torch.where(change, self.label, self.mask)
            right = torch.where(change, self.of_label, self.of_mask)
            gain = _absent_counts_one(_dice(corrected, right, self.sizes)) - self.before
            own, new = (within(labels, change).long() for labels in (self.mask, self.label))
            pairs = torch.bincount(own * self.n_classes + new, minlength=self.n_classes**2)
            there = pairs.view(self.n_classes, -1) > 0
            moved = there.any(dim=0) | there.any(dim=1)
            self._made[key] = corrected, gain, moved
        return self._made[key]


def true_gains(
    probability_DHW: Tensor,
    others_CDHW: Tensor,
    mask_DHW: Tensor,
    reference_DHW: Tensor,
    rules: Sequence[CorrectionRule],
) -> FloatArray:
    """What each rule would do to a mask with reference: float64 (rules, C + 1).

    Columns are the change in Dice of each structure (0 where the mask is right to lack it, or was left alone), and the
    voxels that changed, by those that the mask labels.
    """
    n_classes = others_CDHW.shape[0]
    before = np.nan_to_num(segmentation_dice(mask_DHW, reference_DHW, n_classes), nan=1.0)
    labelled = max(1, count(mask_DHW > 0))
    changes, rows = Changes(probability_DHW, others_CDHW, mask_DHW), []
    known: list[tuple[Tensor, list[float]]] = []
    for rule in rules:
        corrected, _ = changes.by(rule)
        row = next((row for mask, row in known if mask is corrected), None)
        if row is None:
            after = np.nan_to_num(segmentation_dice(corrected, reference_DHW, n_classes), nan=1.0)
            row = [*(after - before), count(corrected != mask_DHW) / labelled]
            known.append((corrected, row))
        rows.append(row)
    return np.array(rows)


def harmless_rule(masks: Sequence[MaskGains], weights: Sequence[float]) -> CorrectionRule | None:
    """The rule of `RULES` with the best mean gain among those that harm no stratum; None where none gains anything.

    Perfect masks can only lose, and there is one of each patient: there a rule must be harmless by one standard error.

    Args:
        masks: held-back ones; without any there is no rule.
        weights: of the masks.
    """
    if not masks:
        return None
    everyone, of = np.stack([m.gains for m in masks]), np.array([m.stratum for m in masks])
    share = np.asarray(weights, np.float64) / np.sum(weights)
    mean = (share[:, None] * everyone[:, :, :-1].mean(axis=2)).sum(axis=0)
    for name in np.unique(of):
        inside = everyone[of == name]
        change, reach = inside.mean(axis=0), np.zeros(inside.shape[1:])
        if name == "reference":
            reach = standard_error(inside / len(inside), [m.patient for m in masks if m.stratum == name])
            mean[change[:, -1] + reach[:, -1] > UNTOUCHED] = -np.inf
        mean[((change - reach)[:, :-1] < HARM).any(axis=1)] = -np.inf
    best = int(mean.argmax())
    return RULES[best] if mean[best] > 0 else None


def harmless_by_structure(masks: Sequence[MaskGains], weights: Sequence[float]) -> CorrectionRule | None:
    """That of `harmless_rule`; of a structure whose changes do harm too often more gain is asked, or it is left alone.

    What ends where its annotator chose, as a vessel, is mended wrongly more often than what has a border in the scan,
    and a mean hides that behind what is mended rightly.
    """
    rule = harmless_rule(masks, weights)
    if rule is None:
        return None
    candidates = [r for r in RULES if r.probability == rule.probability and r.gain >= rule.gain]
    of_structures = zip(*(_often_harmed(masks, RULES.index(r)) for r in candidates), strict=True)
    gains = (
        next((r.gain for r, harmed in zip(candidates, of_rules, strict=True) if not harmed), math.inf)
        for of_rules in of_structures
    )
    return replace(rule, of_structures=tuple(gains))


def _often_harmed(masks: Sequence[MaskGains], rule: int) -> list[bool]:
    """Of each structure whether, up to a standard error, more than `SHARE_HARMED` of its changes do harm."""
    change, of = np.stack([m.gains[rule, :-1] for m in masks]), np.array([m.patient for m in masks])
    found = []
    for one in change.T:
        changed = one != 0
        patients = np.unique(of[changed])
        shares = np.array([(one[changed & (of == patient)] < HARMED).mean() for patient in patients])
        n = len(patients)
        found.append(not n or shares.mean() + standard_error(shares / n, patients.tolist()) > SHARE_HARMED)
    return found


def _expected_sizes(probability_DHW: Tensor, others_CDHW: Tensor, mask_DHW: Tensor) -> Tensor:
    """Voxels that each structure is expected to have: float64 (C,)."""
    kept = _sums(mask_DHW, 1 - probability_DHW.double(), others_CDHW.shape[0])[1]
    # float32 sums lose voxels in large volumes
    missed = torch.stack([(probability_DHW * q).sum(dtype=torch.float64) for q in others_CDHW[1:]])
    return kept + missed


def _dice(labels_DHW: Tensor, right_DHW: Tensor, expected_sizes: Tensor) -> Tensor:
    size, hit = _sums(labels_DHW, right_DHW, len(expected_sizes) + 1)
    dice = 2 * hit / (size + expected_sizes).clamp(min=1e-12)
    absent = expected_sizes < max(0.5, TRACE * float(expected_sizes.sum()))
    return torch.where((size == 0) & absent, torch.nan, dice)


def _sums(labels_DHW: Tensor, values_DHW: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Voxels of each structure, and the sum of the values there: float64 (C,) each."""
    # most voxels belong to none
    inside = labels_DHW > 0
    own = within(labels_DHW, inside).long()
    size = torch.bincount(own, minlength=n_classes)[1:].double()
    return size, torch.bincount(own, weights=within(values_DHW, inside).double(), minlength=n_classes)[1:]


def _absent_counts_one(dice: Tensor) -> Tensor:
    return torch.nan_to_num(dice, nan=1.0)
