"""The mask as signed distances to each label's border, beside or in place of its one-hot planes.

    d_c = mm from the voxel to the nearest one of another label where it has label c, else minus mm to the nearest of c,
          cut to +-8 mm and divided by that; between the centres of voxels

A patch does not know what lies beyond its edge. As distances are cut, no voxel deeper than 8 mm in a patch is told
anything else than in the whole volume; nearer to the edge a border outside the patch is not known, and it is said to be
farther away. Augmentation by `scale` stretches mm by as much.

Shape suffixes: B batch, C all C + 1 labels, DHW space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FARTHEST_MM = 8.0


def signed_distances(mask_BDHW: Tensor, spacing_B3: Tensor, n_classes: int) -> Tensor:
    """The channels (B, C, D, H, W), float32 within -1 and 1.

    Args:
        mask_BDHW: labels.
        spacing_B3: mm along D, H, W.
        n_classes: C + 1.
    """
    found = [
        _signed(mask, spacing, n_classes) for mask, spacing in zip(mask_BDHW.long(), spacing_B3.tolist(), strict=True)
    ]
    return torch.stack(found)


def _signed(mask_DHW: Tensor, spacing: Sequence[float], n_classes: int) -> Tensor:
    to_label = torch.stack([_distances(mask_DHW == label, spacing) for label in range(n_classes)])
    own = mask_DHW[None]
    # another label is as far as the nearest of the others
    to_other = to_label.scatter(0, own, FARTHEST_MM).amin(dim=0, keepdim=True)
    return to_label.neg_().scatter_(0, own, to_other).div_(FARTHEST_MM)


def _distances(there_DHW: Tensor, spacing: Sequence[float]) -> Tensor:
    """mm to the nearest voxel that is there, at most `FARTHEST_MM`; exact, axis by axis as the square is a sum."""
    squared = torch.where(there_DHW, 0.0, FARTHEST_MM**2)
    for axis, mm in enumerate(spacing):
        nearest, n = squared.clone(), squared.shape[axis]
        for step in range(1, min(int(FARTHEST_MM / mm), n - 1) + 1):
            for here, there in ((0, step), (step, 0)):
                part = nearest.narrow(axis, here, n - step)
                torch.minimum(part, squared.narrow(axis, there, n - step) + (step * mm) ** 2, out=part)
        squared = nearest
    return squared.sqrt_()
