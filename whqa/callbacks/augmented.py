"""What a segmenter says of the same image seen a little differently: masks with its errors, but not to the voxel.

A judge that has met a segmenter's errors only in the masks that follow from the opinion it hears, voxel by voxel, knows
such masks by that: it takes every other mask, another program's above all, for a better one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from whqa.loading.augmentation import Augmentation
from whqa.loading.patches import Window, cut, place_window
from whqa.quality import most_probable

SHARE_OF_TRAINING = 0.5
"""How far the changes go, beside those of the training."""


def augmented_view(
    log_p: Callable[[Tensor], Tensor],
    image_DHW: Tensor,
    spacing: Sequence[float],
    augmentation: Augmentation,
    rng: np.random.Generator,
) -> Tensor:
    """p_S of an augmented image, brought back to the image's grid: float32 (C + 1, D, H, W), 0 where it does not reach.

    Every change of the augmentation but mirroring is made, up to half as far as in training, so that the mask that
    follows is about as good as the final one; the grid is shifted by a part of a voxel.

    Args:
        log_p: of an image (D, H, W): log p_S, float32 (C + 1, D, H, W).
        image_DHW: normalised, float32.
        spacing: mm along D, H, W.
        augmentation: of the segmenter's training.
        rng: draws the changes.
    """
    changes = _milder(augmentation)
    there, back = _there_and_back(image_DHW.shape, spacing, changes, rng)
    image = image_DHW.cpu().numpy()
    seen = changes.change_intensity(cut(there, image, (), float(image.min()))[0], rng)
    p_CDHW = log_p(seen.to(image_DHW.device)).exp().cpu().numpy()
    returned = torch.stack([cut(back, of_label, (), 0.0)[0] for of_label in p_CDHW])
    total = returned.sum(dim=0)
    return torch.where(total > 0.5, returned / total, 0.0).to(image_DHW.device)


def mask_of_view(view_CDHW: Tensor, final_DHW: Tensor) -> Tensor:
    """The most probable labels of a view, those of the image itself where it does not reach: uint8 (D, H, W)."""
    labels = most_probable(view_CDHW).to(torch.uint8)
    return torch.where(view_CDHW.any(dim=0), labels, final_DHW.to(torch.uint8))


def _milder(augmentation: Augmentation) -> Augmentation:
    d, h, w = augmentation.rotate_deg
    return Augmentation(
        rotate_deg=(d * SHARE_OF_TRAINING, h * SHARE_OF_TRAINING, w * SHARE_OF_TRAINING),
        scale=augmentation.scale * SHARE_OF_TRAINING,
        intensity_scale=augmentation.intensity_scale * SHARE_OF_TRAINING,
        intensity_shift=augmentation.intensity_shift * SHARE_OF_TRAINING,
        noise=augmentation.noise * SHARE_OF_TRAINING,
        gamma=augmentation.gamma * SHARE_OF_TRAINING,
        probability=1.0,
    )


def _there_and_back(
    shape: Sequence[int], spacing: Sequence[float], changes: Augmentation, rng: np.random.Generator
) -> tuple[Window, Window]:
    """Windows of the volume's own size: onto the augmented grid, and from there back."""
    middle = (np.array(shape) - 1) / 2
    placed = place_window(shape, shape, np.array(shape) // 2, changes.draw_affine(rng), spacing)
    # a plain box of voxels lies on them
    shift = rng.uniform(-0.5, 0.5, 3) * (not placed.is_crop)
    inverse = np.linalg.inv(placed.matrix).astype(np.float64)
    return replace(placed, centre=middle + shift), Window(placed.size, middle - inverse @ shift, inverse)
