"""How bright each structure is under a mask: what the mask, where it is right, says about its own image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from whqa.quality import heart_region

FEWEST_VOXELS = 20
MAD_TO_SIGMA = 1.4826
NARROWEST = 0.1
"""Least spread of a structure, as a share of that of the whole foreground."""


def brightness(
    image_DHW: npt.NDArray[np.floating], mask_DHW: npt.NDArray[np.uint8], spacing: Sequence[float], n_classes: int
) -> npt.NDArray[np.float32]:
    """Middle and spread of the image under every label: float32 (C + 1, 2).

    Median and 1.4826 times the median absolute deviation, which a share of wrong voxels does not move much; of label 0
    mean and standard deviation within 10 mm of the foreground. A structure of fewer than 20 voxels gets the middle of
    the whole foreground and twice its spread: it says nothing.

    Args:
        image_DHW: normalised.
        mask_DHW: label indices.
        spacing: mm along D, H, W.
        n_classes: C + 1.
    """
    image = np.asarray(image_DHW, np.float32)
    foreground = image[mask_DHW > 0]
    inside = foreground if foreground.size else image.ravel()
    spread = float(inside.std()) + 1e-3
    found = np.tile(np.array([inside.mean(), 2 * spread], np.float32), (n_classes, 1))
    around = image[heart_region(torch.from_numpy(mask_DHW), spacing).numpy() & (mask_DHW == 0)]
    if around.size >= FEWEST_VOXELS:
        found[0] = around.mean(), max(NARROWEST * spread, float(around.std()))
    for label in range(1, n_classes):
        values = image[mask_DHW == label]
        if values.size >= FEWEST_VOXELS:
            middle = np.median(values)
            deviation = MAD_TO_SIGMA * float(np.median(np.abs(values - middle)))
            found[label] = middle, max(NARROWEST * spread, deviation)
    return found
