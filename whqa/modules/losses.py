"""Losses of label logits with their gradients written out.

Autograd keeps and walks a chain of full-size tensors for each of a network's five outputs; the gradients below need the
softmax alone. On one thread of an AVX512-BF16 CPU a segmenter's five losses of 2 x 40^3 voxels, there and back, take 26
instead of 49 ms of a step, an error-map network's of 2 x 32^3 take 21 instead of 47.

Shape suffixes: B batch, C all C + 1 labels, N voxels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from whqa.modules.evidence import one_label_windows

SMOOTH = 1e-5


class TrueLabels:
    """The reference as the losses of all outputs need it, made once.

    Args:
        label_BDHW: int64.
    """

    def __init__(self, label_BDHW: Tensor) -> None:
        self.index_B1N = label_BDHW.flatten(1)[:, None]
        self._one_hot = torch.empty(0)

    def one_hot(self, n_classes: int) -> Tensor:
        """1 at each voxel's label, 0 elsewhere: float32 (B, C, N)."""
        if not self._one_hot.numel():
            n, _, voxels = self.index_B1N.shape
            nothing = torch.zeros(n, n_classes, voxels, device=self.index_B1N.device)
            self._one_hot = nothing.scatter_(1, self.index_B1N, 1.0)
        return self._one_hot


def soft_dice(logits: Tensor, error: Tensor) -> Tensor:
    """1 - soft Dice of sigmoid(logits) with a map of zeros and ones, over all voxels of the batch."""
    p = torch.sigmoid(logits)
    return 1 - (2 * (p * error).sum() + SMOOTH) / (p.sum() + error.sum() + SMOOTH)


def weighted_cross_entropy(
    logits: Tensor, error: Tensor, positive_weight: Tensor, weight: Tensor | None, focal_gamma: float
) -> Tensor:
    """Mean binary cross entropy, each voxel times (1 - probability of its truth)^gamma and its weight.

    Args:
        logits, error: (B, 1, D, H, W); the truth in zeros and ones.
        positive_weight: of wrong voxels beside `weight`, 0-d.
        weight: of the voxels (B, 1, D, H, W), None for all alike; the mean is over weights.
        focal_gamma: 0 is the plain cross entropy; see Lin et al. 2017, arXiv 1708.02002.
    """
    from monai.losses import FocalLoss  # seconds of import that other losses do not need

    each: Tensor = FocalLoss(gamma=focal_gamma, reduction="none")(logits, error)
    each = each * (1 + (positive_weight - 1) * error)
    return each.mean() if weight is None else (each * weight).sum() / weight.sum()


def border_weight(labels_B2DHW: Tensor, boundary_weight: float) -> Tensor:
    """1 + boundary_weight between labels of the mask or of the reference, falling to 1 within three voxels.

    Args:
        labels_B2DHW: mask and reference.
        boundary_weight: at the border.

    Returns:
        float32 (B, 1, D, H, W).
    """
    alone = torch.minimum(*(one_label_windows(labels) for labels in labels_B2DHW.split(1, dim=1)))
    return 1 + boundary_weight * (1 - alone)


def dice_cross_entropy(logits_BCDHW: Tensor, labels: TrueLabels) -> Tensor:
    """Mean cross entropy plus the mean of 1 - soft Dice over the structures, each pooled over the batch; float32.

    It is MONAI's DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True).
    """
    loss: Tensor = _DiceCrossEntropy.apply(
        logits_BCDHW.float().flatten(2).contiguous(), labels.index_B1N, labels.one_hot(logits_BCDHW.shape[1])
    )
    return loss


def other_and_own(logits_BCDHW: Tensor, mask_B1DHW: Tensor, label_B1DHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """logsumexp over all labels but the mask's, the logit of the mask's and that of the reference's: each (B, 1, N)."""
    one, own, right = _OtherAndOwn.apply(
        logits_BCDHW.flatten(2).contiguous(), mask_B1DHW.flatten(2), label_B1DHW.flatten(2)
    )
    return one, own, right


def _logsumexp(logits_BCN: Tensor, p_BCN: Tensor) -> Tensor:
    """(B, 1, N), from the softmax p: that of the highest logit is no less than 1 / C."""
    return logits_BCN.amax(dim=1, keepdim=True) - p_BCN.amax(dim=1, keepdim=True).log_()


class _DiceCrossEntropy(torch.autograd.Function):
    """p softmax, o one-hot labels, D_c = (2 sum(p_c o_c) + SMOOTH) / size_c, size_c = sum(p_c + o_c) + SMOOTH.

    The derivative of the Dice term by p_c is a_c o_c + b_c with a_c = -2 / (C size_c), b_c = D_c / (C size_c); then it
    goes through the softmax.
    """

    @staticmethod
    def forward(ctx: Any, logits_BCN: Tensor, index_B1N: Tensor, one_hot_BCN: Tensor) -> Tensor:
        # a softmax of torch's, since exp of MKL is many times slower where arguments are out of range
        p = logits_BCN.softmax(dim=1)
        own = p.gather(1, index_B1N)
        cross_entropy = (_logsumexp(logits_BCN, p) - logits_BCN.gather(1, index_B1N)).mean()
        hit = (p * one_hot_BCN).sum(dim=(0, 2))
        size = p.sum(dim=(0, 2)) + one_hot_BCN.sum(dim=(0, 2)) + SMOOTH
        dice = (2 * hit + SMOOTH) / size
        ctx.save_for_backward(p, own, index_B1N, dice, size)
        loss: Tensor = cross_entropy + (1 - dice[1:]).mean()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        p, own, index, dice, size = ctx.saved_tensors
        per_voxel = grad / index.numel()
        share = grad / ((len(size) - 1) * size)
        share[0] = 0
        of_label, of_all = -2 * share, dice * share
        own = own * of_label.index_select(0, index.flatten()).view_as(index)
        mean = (of_all @ p)[:, None].add_(own)
        found = ((of_all[:, None] + per_voxel) - mean).mul_(p)
        return found.scatter_add_(1, index, own.sub_(per_voxel)), None, None


class _OtherAndOwn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_BCN: Tensor, mask_B1N: Tensor, label_B1N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        own, right = logits_BCN.gather(1, mask_B1N), logits_BCN.gather(1, label_B1N)
        others = logits_BCN.scatter(1, mask_B1N, torch.finfo(logits_BCN.dtype).min)
        q = others.softmax(dim=1)
        ctx.save_for_backward(q, mask_B1N, label_B1N)
        return _logsumexp(others, q), own, right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_other: Tensor, of_own: Tensor, of_right: Tensor) -> tuple[Tensor, None, None]:
        q, mask, label = ctx.saved_tensors
        return (q * of_other).scatter_add_(1, mask, of_own).scatter_add_(1, label, of_right), None, None
