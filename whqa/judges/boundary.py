"""The mask-boundary band: segmentations go wrong at borders, so call every voxel near a border wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from whqa.quality import ErrorPrediction, JudgedCase

LIMIT_MM = 12.0
STEP_MM = 0.25


class Boundary:
    """Wrong are all voxels whose nearest voxel of another label is at most `width_mm` away.

    The width is the one of 0.25, 0.5, ... 12 mm with the best mean error Dice on the training masks. P = 2^(-d / width)
    falls with the distance d and is 1/2 at the band's edge; beyond 12 mm it is 0. A mask of one label has no boundary:
    no error is predicted.
    """

    name = "boundary"
    needs: frozenset[str] = frozenset()
    n_levels = round(LIMIT_MM / STEP_MM)

    def levels(self, case: JudgedCase) -> Tensor:
        """See `NestedMaps.levels`: the k-th level is the band of width (n + 1 - k) * 0.25 mm."""
        distance = boundary_distance(case.mask, case.spacing)
        widths = (distance / STEP_MM).ceil().clamp(max=self.n_levels + 1)
        return self.n_levels + 1 - widths.to(torch.int32)

    def predict(self, case: JudgedCase, level: int) -> ErrorPrediction:
        """See `NestedMaps.predict`."""
        _, width = self.parameter(level)
        distance = boundary_distance(case.mask, case.spacing)
        return ErrorPrediction(torch.exp2(-distance / width), distance <= width)

    def parameter(self, level: int) -> tuple[str, float]:
        """The band's width."""
        return "width_mm", (self.n_levels + 1 - level) * STEP_MM


def boundary_distance(mask: Tensor, spacing: Sequence[float], limit_mm: float = LIMIT_MM) -> Tensor:
    """Distance of each voxel to the nearest voxel with a different label, in mm.

    Args:
        mask: labels (D, H, W).
        spacing: mm per voxel along D, H, W.
        limit_mm: larger distances are infinite.

    Returns:
        float32 (D, H, W) on the mask's device; infinite everywhere for a mask of one label.
    """
    labels = mask.cpu().numpy()
    distance = np.full(labels.shape, np.inf, dtype=np.float32)
    for label, box in _regions(labels, spacing, limit_mm):
        inside = labels[box] == label
        if not inside.all():
            nearest = ndimage.distance_transform_edt(inside, sampling=spacing)
            distance[box][inside] = nearest[inside]
    distance[distance > limit_mm] = np.inf
    return torch.from_numpy(distance).to(mask.device)


def _regions(labels: np.ndarray, spacing: Sequence[float], limit_mm: float) -> Iterator[tuple[int, tuple[slice, ...]]]:
    """Each label with a box that holds, for every voxel of it that matters, the nearest voxel of another label.

    The nearest other voxel has a face neighbour of the label, one step towards it: one voxel of margin is enough for
    structures. Background matters up to `limit_mm` from the structures.
    """
    structures = ndimage.find_objects(labels)
    for label, box in enumerate(structures, start=1):
        if box is not None:
            yield label, _widened(box, (1, 1, 1), labels.shape)
    foreground = ndimage.find_objects((labels != 0).astype(np.uint8))
    if foreground:
        margin = [int(np.ceil(limit_mm / s)) for s in spacing]
        yield 0, _widened(foreground[0], margin, labels.shape)


def _widened(box: tuple[slice, ...], margin: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margin, shape, strict=True))
