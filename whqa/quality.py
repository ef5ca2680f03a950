"""The science on one page: error map, accuracy, quality indicator and the regions that they are taken over.

Definitions (I image, G reference labels, M mask under judgement, all of shape (D, H, W), labels 0..C):

    error map            E = [M != G]
    predicted error      P = f(I, M) in [0, 1],   predicted error map  Ê = [P >= tau]
    accuracy             Acc_Ω = 1 - mean_Ω(E)
    quality indicator    QI_Ω  = 1 - mean_Ω(Ê)      soft QI: P in place of Ê
    regions Ω            "volume": the whole preprocessed crop
                         "heart":  the mask's foreground dilated by 10 mm; needs no reference, independent of the crop

After Zhang & Chung, MICCAI 2019 (arXiv 1907.12244), which predicts E with a segmentation network and derives one QI a
mask from it. The paper's full text was not at hand: Ω and tau are this project's reading, see README.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

HEART_MARGIN_MM = 10.0


def error_map(mask: Tensor, reference: Tensor) -> Tensor:
    """E = [M != G] as bool, any shape (both alike)."""
    if mask.shape != reference.shape:
        raise ValueError(f"mask {tuple(mask.shape)} and reference {tuple(reference.shape)} differ in shape")
    return mask != reference


def one_minus_mean(values: Tensor, region: Tensor | None = None) -> float:
    """1 - mean over the region: Acc from an error map, QI from a predicted map, soft QI from probabilities.

    Args:
        values: bool or float, any shape.
        region: bool of the same shape; None is the whole volume. An empty region gives 1.
    """
    selected = values if region is None else values[region]
    if selected.numel() == 0:
        return 1.0
    return float(1.0 - selected.double().mean())


def heart_region(mask: Tensor, spacing: Sequence[float], margin_mm: float = HEART_MARGIN_MM) -> Tensor:
    """The mask's foreground dilated by `margin_mm`, bool (D, H, W); without any foreground the whole volume.

    Args:
        mask: labels (D, H, W).
        spacing: mm per voxel along D, H, W.
    """
    foreground = mask.cpu().numpy() != 0
    if not foreground.any():
        return torch.ones(mask.shape, dtype=torch.bool, device=mask.device)
    box = _dilated_box(foreground, [int(np.ceil(margin_mm / s)) for s in spacing])
    region = np.zeros(foreground.shape, dtype=bool)
    region[box] = ndimage.distance_transform_edt(~foreground[box], sampling=spacing) <= margin_mm
    return torch.from_numpy(region).to(mask.device)


def _dilated_box(foreground: np.ndarray, margin: Sequence[int]) -> tuple[slice, ...]:
    box = ndimage.find_objects(foreground.astype(np.uint8))[0]
    return tuple(
        slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margin, foreground.shape, strict=True)
    )
