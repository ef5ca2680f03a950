"""The error-map networks of several folds as one judge of a mask on the cache grid.

Probabilities are averaged: P, and the probability of every label, which a network without label head does not give.
Each fold's own numbers are kept, as its intervals follow from its own residuals.
Shape suffixes: B batch 1, C all C + 1 labels, DHW space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from whqa.assessment.model import FoldNetwork
from whqa.config.precision import cpu_precision
from whqa.errors import InputError
from whqa.judges.calibration import expected_dice_threshold
from whqa.judges.correction import expected_dice, other_probabilities
from whqa.judges.threshold_rule import ThresholdRule
from whqa.quality import heart_region, one_minus_mean

NO_LABELS = "the run's network has no label head; `whqa cv ... errormap.head=label name=...` trains one that has"
LOST = "the mask has no voxel on the grid of the run"


class FoldNumbers(NamedTuple):
    """One network's own QI by region, and its expected Dice of structures 1..C (nothing without label head).

    A mask without any voxel has no QI over the heart.
    """

    qi: dict[str, float]
    dice: list[float]


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the networks say about one mask.

    Attributes:
        probability: P, float32 (D, H, W).
        error_map: bool (D, H, W).
        threshold: tau of the error map.
        rule: that tau follows from.
        other: most probable label where the mask is wrong, uint8 (D, H, W), or None without label head.
        expected_dice: of structures 1..C, float64 (C,), or None.
        heart: the region "heart", bool (D, H, W), or None where the mask has no voxel.
        by_fold: fold -> what that network says alone.
    """

    probability: Tensor
    error_map: Tensor
    threshold: float
    rule: ThresholdRule
    other: Tensor | None
    expected_dice: Tensor | None
    heart: Tensor | None
    by_fold: dict[int, FoldNumbers]

    @property
    def lost(self) -> bool:
        """Whether the mask has no voxel on the run's grid."""
        return self.heart is None

    @property
    def map_threshold(self) -> float:
        """Of the error map on the input's grid: above 0, as nothing is said of voxels outside the judged box."""
        return max(self.threshold, 1e-6)


def judge_mask(
    networks: Sequence[FoldNetwork], image_DHW: Tensor, mask_DHW: Tensor, spacing: tuple[float, float, float]
) -> Judgement:
    """Let every network judge the mask.

    Args:
        networks: of one run.
        image_DHW: normalised, float32.
        mask_DHW: label indices, int64.
        spacing: mm along D, H, W.

    Raises:
        InputError: a network gives NaN.
    """
    heart = heart_region(mask_DHW, spacing) if mask_DHW.any() else None
    n_classes = networks[0].module.n_classes
    total = torch.zeros_like(image_DHW)
    labels = torch.zeros(n_classes, *image_DHW.shape) if networks[0].module.head == "label" else None
    by_fold: dict[int, FoldNumbers] = {}
    thresholds = []
    for network, (probability, others, tau) in zip(networks, _each(networks, image_DHW, mask_DHW), strict=True):
        wrong = probability >= tau
        thresholds.append(tau)
        total += probability
        dice = [] if others is None else expected_dice(probability, others, mask_DHW).tolist()
        if labels is not None and others is not None:
            labels += others.mul_(probability)
        qi = {"volume": one_minus_mean(wrong)} | ({} if heart is None else {"heart": one_minus_mean(wrong, heart)})
        by_fold[network.fold] = FoldNumbers(qi, dice)
    probability = total / len(networks)
    by_case = all(n.module.calibration.threshold is None for n in networks)
    rule = ThresholdRule.expected if by_case else ThresholdRule.dice
    threshold = expected_dice_threshold(probability) if by_case else sum(thresholds) / len(thresholds)
    if labels is None:
        return Judgement(probability, probability >= threshold, threshold, rule, None, None, heart, by_fold)
    others = labels / labels.sum(dim=0).clamp(min=1e-12)
    expected = expected_dice(probability, others, mask_DHW)
    other = others.argmax(dim=0).to(torch.uint8)
    return Judgement(probability, probability >= threshold, threshold, rule, other, expected, heart, by_fold)


def _each(
    networks: Sequence[FoldNetwork], image_DHW: Tensor, mask_DHW: Tensor
) -> Iterator[tuple[Tensor, Tensor | None, float]]:
    """P, q and tau of every network, on the CPU; one network at a time is on the device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast = device.type == "cuda" or cpu_precision() == "bf16-mixed"
    batch = {"image": image_DHW[None, None].to(device), "mask": mask_DHW[None].to(device)}
    for network in networks:
        module = network.module.to(device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=fast and network.bf16):
            raw = module.raw(batch)
            found = module.calibration.predict(raw.error_logit)
            tau = module.calibration.threshold
            others = None if raw.label_logits is None else other_probabilities(raw.label_logits, batch["mask"][0])
        probability = found.probability.cpu()
        if not torch.isfinite(probability).all():
            raise InputError(f"the error-map network of fold {network.fold} gives no numbers (NaN); train it again")
        yield (
            probability,
            None if others is None else others.cpu(),
            expected_dice_threshold(probability) if tau is None else tau,
        )
        module.cpu()
