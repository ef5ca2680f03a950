"""All numbers of one mask against its reference: the row that it gets in its maker's cases.csv."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from whqa.metrics.segmentation import segmentation_dice
from whqa.metrics.surface import hd95_mm
from whqa.quality import error_map, one_minus_mean


def mask_columns(structures: Sequence[str]) -> tuple[str, ...]:
    """The keys of `measure_mask`."""
    return ("error_rate", *(f"dice_{s}" for s in structures), *(f"hd95_{s}" for s in structures))


def measure_mask(
    mask: Tensor, reference: Tensor, spacing: Sequence[float], structures: Sequence[str], surfaces: bool
) -> dict[str, float]:
    """Share of wrong voxels, Dice and HD95 in mm of every structure.

    Args:
        mask, reference: labels 0..C, (D, H, W).
        spacing: mm per voxel along D, H, W.
        structures: keys in index order.
        surfaces: False leaves HD95 out, as nan.
    """
    n_classes = len(structures) + 1
    dice = segmentation_dice(mask, reference, n_classes)
    hd95 = hd95_mm(mask, reference, spacing, n_classes) if surfaces else [float("nan")] * len(structures)
    values = (1.0 - one_minus_mean(error_map(mask, reference)), *map(float, dice), *map(float, hd95))
    return dict(zip(mask_columns(structures), values, strict=True))
