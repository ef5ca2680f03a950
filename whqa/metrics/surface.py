"""Distance between surfaces: the 95th percentile Hausdorff distance in mm, structure by structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage
from torch import Tensor

from whqa.metrics.per_case import CaseMetric, FloatArray
from whqa.metrics.segmentation import mean_by_structure


def hd95_mm(mask: Tensor, reference: Tensor, spacing: Sequence[float], n_classes: int) -> FloatArray:
    """HD95 of structures 1..C: the larger of the 95th percentiles (linear) of both directed surface distances.

    The surface is the structure's voxels with a face neighbour outside of it; the volume's edge counts as outside.

    Args:
        mask, reference: labels 0..C, (D, H, W).
        spacing: mm per voxel along D, H, W.
        n_classes: C + 1.

    Returns:
        (C,) float64 mm. A structure that both lack is nan and drops out of means; one that only one of them lacks
        gets the volume's diagonal.

    >>> import torch
    >>> mask, reference = torch.zeros(8, 8, 8, dtype=torch.uint8), torch.zeros(8, 8, 8, dtype=torch.uint8)
    >>> mask[2:5, 2:5, 2:5] = 1
    >>> reference[3:6, 2:5, 2:5] = 1
    >>> hd95_mm(mask, reference, spacing=(2.0, 1.0, 1.0), n_classes=3)
    array([ 2., nan])
    """
    if mask.shape != reference.shape:
        raise ValueError(f"mask {tuple(mask.shape)} and reference {tuple(reference.shape)} differ in shape")
    judged, truth = mask.cpu().numpy(), reference.cpu().numpy()
    diagonal = volume_diagonal_mm(judged.shape, spacing)
    boxes = [ndimage.find_objects(labels, max_label=n_classes - 1) for labels in (judged, truth)]
    pairs = enumerate(zip(*boxes, strict=True), start=1)
    return np.array([_hd95(judged, truth, label, pair, spacing, diagonal) for label, pair in pairs])


def volume_diagonal_mm(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Length of the volume's diagonal: the penalty for a missed or invented structure."""
    return float(np.linalg.norm(np.multiply(shape, spacing)))


def _hd95(
    judged: np.ndarray,
    truth: np.ndarray,
    label: int,
    boxes: tuple[tuple[slice, ...] | None, ...],
    spacing: Sequence[float],
    missing: float,
) -> float:
    present = [box for box in boxes if box is not None]
    if len(present) < 2:
        return missing if present else float("nan")
    box = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(*present, strict=True))
    surfaces = [_surface(labels[box] == label) for labels in (judged, truth)]
    return max(_directed(a, b, spacing) for a, b in (surfaces, surfaces[::-1]))


def _surface(structure: np.ndarray) -> np.ndarray:
    return structure & ~ndimage.binary_erosion(structure)


def _directed(start: np.ndarray, target: np.ndarray, spacing: Sequence[float]) -> float:
    distance = ndimage.distance_transform_edt(~target, sampling=spacing)
    return float(np.percentile(distance[start], 95))


class HausdorffDistance95(CaseMetric):
    """HD95 per structure in mm, mean over cases.

    Args:
        structures: keys in index order (structure i + 1 is structures[i]).
    """

    higher_is_better = False

    def __init__(self, structures: Sequence[str], **kwargs: Any) -> None:
        self.distances = tuple(f"hd95_{key}" for key in structures)
        super().__init__((*self.distances, "hd95_missed"), **kwargs)

    def update(self, index: int | Tensor, mask: Tensor, reference: Tensor, spacing: Sequence[float]) -> None:
        """Add one case: labels (D, H, W), mm per voxel."""
        mm = [float(s) for s in spacing]
        values = hd95_mm(mask, reference, mm, len(self.distances) + 1)
        missed = int((values == volume_diagonal_mm(mask.shape, mm)).sum())
        self.record(index, dict(zip(self.distances, values, strict=True)) | {"hd95_missed": missed})

    def compute(self) -> dict[str, Tensor]:
        """Scalars: "hd95_<structure>", and "hd95", the mean over cases of each case's mean over its structures.

        "hd95_missed" counts the structures, over all cases, whose distance is the penalty of the volume's diagonal.
        """
        missed = self.scalar(float(self.columns()["hd95_missed"].sum()))
        return mean_by_structure(self, "hd95", self.distances) | {"hd95_missed": missed}
