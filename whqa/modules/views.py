"""What a segmenter says of an image and of the same image moved by a few voxels: test-time augmentation.

A network that halves the resolution lays a coarse grid over the image, and where this begins is arbitrary: what it says
of thin things and borders moves with it. The mean over several places is an opinion of its own (Wang et al. 2019,
Neurocomputing 338). Whole voxels need no interpolation, so a view costs a forward pass and no more.

Shape suffixes: C all C + 1 labels, DHW space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SHIFTS = ((3, 1, 2), (-1, -3, -3), (2, -2, 1), (-3, 2, -2))
"""Voxels along D, H, W of the views beside the image itself; none along an axis that the network does not coarsen."""


def mean_over_views(
    log_p: Callable[[Tensor], Tensor], image_DHW: Tensor, divisor: Sequence[int], own_CDHW: Tensor
) -> Tensor:
    """log of the mean of p_S over the image and its views, at each voxel over those that reach it.

    Args:
        log_p: of an image (D, H, W): log p_S, float32 (C + 1, D, H, W).
        image_DHW: normalised, float32.
        divisor: by how much the network coarsens each axis.
        own_CDHW: log p_S of the image itself.
    """
    total = own_CDHW.float().exp()
    for shift in SHIFTS:
        moved = [step if coarser > 1 else 0 for step, coarser in zip(shift, divisor, strict=True)]
        p_CDHW = log_p(_moved(image_DHW, moved)).exp()
        there, here = zip(*map(_overlap, moved, image_DHW.shape), strict=True)
        total[:, *there] += p_CDHW[:, *here]
    return (total / total.sum(dim=0)).log()


def _moved(image_DHW: Tensor, steps: Sequence[int]) -> Tensor:
    """The image with voxel i + step at i; beyond its edge the edge again."""
    for axis, (step, n) in enumerate(zip(steps, image_DHW.shape, strict=True)):
        index = (torch.arange(n, device=image_DHW.device) + step).clamp(0, n - 1)
        image_DHW = image_DHW.index_select(axis, index)
    return image_DHW


def _overlap(step: int, n: int) -> tuple[slice, slice]:
    """Where what was moved by `step` belongs, and where it lies in the moved image, along an axis of n voxels."""
    return slice(max(0, step), max(0, n + min(0, step))), slice(max(0, -step), max(0, n - max(0, step)))
