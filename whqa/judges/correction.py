"""From predicted labels to a corrected mask and to the Dice that each structure is expected to have.

The label head says which label is right where the mask is wrong. With P the error probability and q the head's
distribution over all labels but the mask's own, the probability of the true label G is

    p(G = M) = 1 - P,    p(G = c) = P q(c) for c != M

Shape suffixes: C all C + 1 labels, DHW space.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from whqa.metrics.segmentation import paired_mean_dice, segmentation_dice

TRACE = 0.01


def other_probabilities(label_logits_CDHW: Tensor, mask_DHW: Tensor) -> Tensor:
    """q: softmax over all labels but the mask's own, whose probability is 0; float32 (C + 1, D, H, W)."""
    own = mask_DHW.long()[None]
    return label_logits_CDHW.float().scatter(0, own, float("-inf")).softmax(dim=0)


def most_probable_other(label_logits_CDHW: Tensor, mask_DHW: Tensor) -> Tensor:
    """The label that a voxel most probably has if the mask is wrong there: uint8 (D, H, W)."""
    own = mask_DHW.long()[None]
    return label_logits_CDHW.float().scatter(0, own, float("-inf")).argmax(dim=0).to(torch.uint8)


def expected_dice(probability_DHW: Tensor, others_CDHW: Tensor, mask_DHW: Tensor) -> Tensor:
    """Dice of each structure that P and q let expect, as the ratio of expectations.

    Returns:
        (C,) float64. A structure that the mask lacks and that is expected to be less than `TRACE` of all structures is
        nan: stray probability in many voxels, as in a field of view that ends before it.
    """
    right = 1 - probability_DHW.double()
    n_classes = others_CDHW.shape[0]
    own = mask_DHW.flatten().long()
    size = torch.bincount(own, minlength=n_classes)[1:].double()
    hit = torch.bincount(own, weights=right.flatten(), minlength=n_classes)[1:]
    # float32 sums lose voxels in large volumes
    missed = torch.stack([(probability_DHW * q).sum(dtype=torch.float64) for q in others_CDHW[1:]])
    expected = hit + missed
    dice = 2 * hit / (size + expected).clamp(min=1e-12)
    absent = expected < max(0.5, TRACE * float(expected.sum()))
    return torch.where((size == 0) & absent, torch.nan, dice)


def corrected_mask(mask_DHW: Tensor, other_DHW: Tensor, score_DHW: Tensor, threshold: float | None) -> Tensor:
    """The mask with the most probable other label wherever the score is at least the threshold.

    Args:
        mask_DHW: labels.
        other_DHW: from `most_probable_other`.
        score_DHW: error probability, or anything that rises with it.
        threshold: None leaves the mask alone.
    """
    if threshold is None:
        return mask_DHW
    return torch.where(score_DHW >= threshold, other_DHW.to(mask_DHW.dtype), mask_DHW)


def correction_gain(
    mask_DHW: Tensor, reference_DHW: Tensor, other_DHW: Tensor, score_DHW: Tensor, thresholds: Tensor, n_classes: int
) -> Tensor:
    """What correcting the mask at each threshold gains in mean Dice, see `paired_mean_dice`: float64 (thresholds,).

    0 where no structure has a Dice before or after.
    """
    before = segmentation_dice(mask_DHW, reference_DHW, n_classes)
    corrected = (corrected_mask(mask_DHW, other_DHW, score_DHW, threshold) for threshold in thresholds.tolist())
    after = np.array([segmentation_dice(mask, reference_DHW, n_classes) for mask in corrected])
    first, second = paired_mean_dice(before, after)
    return torch.from_numpy(np.nan_to_num(second - first))
