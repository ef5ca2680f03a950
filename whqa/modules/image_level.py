"""The image-level half of a joint network: the quality of a whole mask beside its error map, from the same features.

After QCResUNet (Qiu et al. 2024, arXiv 2412.07156), in which one residual encoder serves both. Its quality is a linear
map of features averaged over the image; as a mean and a linear map may change places, the network emits further
channels, of which means are taken:

    z_k = mean of a_k over the voxels that the mask gives to structure k + mean of b_k around the mask

for each structure k = 1..C, and for the heart region with both means around the mask. Means over the mask do not change
with the size of the field of view, so that patches can be trained on and volumes judged. sigmoid(z_k) is the Dice of
structure k, that of the heart its Acc. On training cases that the network has not seen each z_k is calibrated.

Shape suffixes: B batch, C structures without background, K all C + 1 outputs, N voxels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from whqa.judges.constant import REGIONS
from whqa.judges.error_rate import RateModel, fit_rate
from whqa.metrics.arrays import FloatArray
from whqa.metrics.segmentation import segmentation_dice
from whqa.quality import HEART_MARGIN_MM, JudgedCase, QualityPrediction, count, one_minus_mean


def image_level_channels(n_classes: int) -> int:
    """Two for each structure, two for the heart."""
    return 2 * n_classes


def around(mask_BDHW: Tensor, spacing_B3: Tensor) -> Tensor:
    """What lies within a box of 10 mm about the mask's foreground, bool (B, N); all of it where there is none."""
    found = []
    for mask, spacing in zip((mask_BDHW != 0).float()[:, None], spacing_B3.tolist(), strict=True):
        reach = [int(HEART_MARGIN_MM / mm) for mm in spacing]
        near = F.max_pool3d(mask, [2 * r + 1 for r in reach], stride=1, padding=reach).flatten() > 0
        found.append(near if near.any() else torch.ones_like(near))
    return torch.stack(found)


def pooled(channels_B2KDHW: Tensor, mask_BDHW: Tensor, near_BN: Tensor) -> Tensor:
    """z (B, K): structures 1..C, then the heart."""
    n = channels_B2KDHW.shape[1] // 2
    values, mask = channels_B2KDHW.flatten(2), mask_BDHW.flatten(1)
    near = near_BN[:, None].to(values.dtype)
    own = torch.stack([(mask == k).to(values.dtype) for k in range(1, n)], dim=1)
    # a structure that the mask lacks is looked for around the mask
    own = torch.where(own.any(dim=2, keepdim=True), own, near)
    means = (values[:, :n] * torch.cat([own, near], dim=1)).sum(2) / torch.cat([own, near], dim=1).sum(2)
    return means + (values[:, n:] * near).sum(2) / near.sum(2)


def image_level_loss(z_BK: Tensor, mask_BDHW: Tensor, label_BDHW: Tensor, near_BN: Tensor) -> Tensor:
    """Cross entropy of sigmoid(z) with the Dice of each structure, and with the share of right voxels around the mask.

    Structures that neither mask nor label has in a patch are left out.
    """
    mask, label = mask_BDHW.flatten(1), label_BDHW.flatten(1)
    hits, sizes = [], []
    for k in range(1, z_BK.shape[1]):
        drawn, true = mask == k, label == k
        hits.append(2 * (drawn & true).sum(1))
        sizes.append(drawn.sum(1) + true.sum(1))
    hits.append(((mask == label) & near_BN).sum(1))
    sizes.append(near_BN.sum(1))
    size = torch.stack(sizes, dim=1)
    target = torch.stack(hits, dim=1) / size.clamp(min=1)
    each = F.binary_cross_entropy_with_logits(z_BK, target.to(z_BK.dtype), reduction="none")
    there = (size > 0).to(z_BK.dtype)
    return (each * there).sum() / there.sum()


def image_level_truth(case: JudgedCase, n: int) -> FloatArray:
    """What sigmoid(z) should be: float64 (K,), nan for structures that neither mask nor reference has.

    Args:
        case: with its reference.
        n: K.
    """
    assert case.reference is not None
    dice = segmentation_dice(case.mask, case.reference, n).tolist()
    return torch.tensor([*dice, one_minus_mean(case.error, case.heart)], dtype=torch.float64).numpy()


def fit_image_level(
    z: Sequence[FloatArray], truth: Sequence[FloatArray], weights: Sequence[float]
) -> tuple[RateModel | None, ...]:
    """The calibration of each of K outputs on n masks with reference: z and truth (K,) each, weights of the masks.

    None where all or none of the truth is 1 or 0.
    """
    models = []
    for k in range(len(z[0])):
        known = [i for i, values in enumerate(truth) if values[k] == values[k]]
        columns = ([z[i][k : k + 1] for i in known], [float(truth[i][k]) for i in known], [weights[i] for i in known])
        models.append(fit_rate(*columns))
    return tuple(models)


def image_level_quality(z_K: Tensor, models: Sequence[RateModel | None] | None, case: JudgedCase) -> QualityPrediction:
    """Expected Dice of each structure, 0 for one that the mask lacks, and QI; all errors are held to lie in the heart.

    Args:
        z_K: outputs.
        models: their calibrations; None, or None for one of them, leaves it as it is.
        case: the mask; its reference is not looked at.
    """
    said = torch.sigmoid(z_K.double()).tolist()
    for k, model in enumerate(models or ()):
        if model is not None:
            said[k] = float(model.rate(z_K[k : k + 1].double().cpu().numpy()[None])[0])
    *dice, heart = said
    drawn = set(case.mask.unique().tolist())
    share = count(case.heart) / case.heart.numel()
    quality = dict(zip(REGIONS, (1 - (1 - heart) * share, heart), strict=True))
    return QualityPrediction(quality, {k: value if k in drawn else 0.0 for k, value in enumerate(dice, start=1)})
