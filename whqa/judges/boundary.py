"""The mask-boundary band: segmentations go wrong at borders, so call every voxel near a border wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from whqa.quality import ErrorPrediction, JudgedCase, box_around

LIMIT_MM = 12.0
STEP_MM = 0.25
_FAR = 1e30


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
    if (labels != 0).any():
        # what is further away from all structures has no distance
        box = box_around(labels != 0, [int(np.ceil(limit_mm / s)) for s in spacing])
        squared = _squared(torch.from_numpy(np.ascontiguousarray(labels[box])), spacing, limit_mm)
        # torch's single-precision root is not the nearest number
        nearest = squared.double().sqrt_().float()
        distance[box] = nearest.masked_fill_(nearest > limit_mm, np.inf).numpy()
    return torch.from_numpy(distance).to(mask.device)


def _squared(labels: Tensor, spacing: Sequence[float], limit_mm: float) -> Tensor:
    """Squared distances up to the limit, axis by axis, (D, H, W); larger ones may come out larger still.

    What is nearest in a line is nearest in the plane by way of a voxel of the same label, or that voxel is another
    one's itself: so one pass serves all labels, in a third of the time of a distance transform of each.
    """
    kind = torch.float32 if _is_exact(spacing, limit_mm) else torch.float64
    found = torch.full(labels.shape, _FAR, dtype=kind)
    for axis, edge in enumerate(spacing):
        before, n = found, labels.shape[axis]
        found = before.clone()
        for step in range(1, min(n - 1, int(np.ceil(limit_mm / edge))) + 1):
            kept = n - step
            # a product takes a third of the time of a choice
            same = (labels.narrow(axis, 0, kept) == labels.narrow(axis, step, kept)).to(kind)
            for here, there in ((0, step), (step, 0)):
                by_way = (before.narrow(axis, there, kept) * same).add_((step * edge) ** 2)
                part = found.narrow(axis, here, kept)
                torch.minimum(part, by_way, out=part)
    return found


def _is_exact(spacing: Sequence[float], limit_mm: float) -> bool:
    """Whether single precision, in half the time, has all sums of the three axes' squared steps up to the limit."""
    steps = all((float(edge) ** 2 * 2**12).is_integer() for edge in spacing)
    return steps and 3 * (limit_mm + max(spacing)) ** 2 * 2**12 <= 2**24
