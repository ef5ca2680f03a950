"""Distance between surfaces: the 95th percentile Hausdorff distance in mm, structure by structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree
from torch import Tensor

from whqa.metrics.arrays import FloatArray

_PERCENTILE = 95
# In finest voxels, how far is looked around before a tree is asked: 123 voxels where all sides are equal.
_REACH = 3


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
    diagonal = volume_diagonal_mm(mask.shape, spacing)
    judged, truth = (_Surfaces(labels.cpu().numpy(), spacing) for labels in (mask, reference))
    return np.array([_hd95(judged, truth, label, diagonal) for label in range(1, n_classes)])


def volume_diagonal_mm(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Length of the volume's diagonal: the penalty for a missed or invented structure."""
    return float(np.linalg.norm(np.multiply(shape, spacing)))


class _Surface(NamedTuple):
    """The surface voxels of one structure: flat positions in `_Surfaces.shell`, and places (n, 3) in mm."""

    at: npt.NDArray[np.intp]
    mm: FloatArray


class _Surfaces:
    """The surface voxels of all structures of a label map, found in one pass.

    Attributes:
        shell: the label of every surface voxel, 0 elsewhere, flat, with a margin of `_REACH` of the finest voxels.
    """

    def __init__(self, labels: npt.NDArray[np.integer], spacing: Sequence[float]) -> None:
        margin = [int(_REACH * min(spacing) / s) for s in spacing]
        shell = np.zeros([n + 2 * m for n, m in zip(labels.shape, margin, strict=True)], labels.dtype)
        shell[tuple(slice(m, m + n) for n, m in zip(labels.shape, margin, strict=True))] = _surface(labels)
        self.shell = shell.ravel()
        at = np.flatnonzero(self.shell)
        order = np.argsort(self.shell[at], kind="stable")
        self._at, self._label = at[order], self.shell[at][order]
        places = np.stack(np.unravel_index(self._at, shell.shape), axis=1).astype(np.float64)
        self._mm = places * np.asarray(spacing, np.float64)
        self.steps = _steps(shell.shape, margin, spacing)

    def of(self, label: int) -> _Surface:
        """Of one structure."""
        first, last = np.searchsorted(self._label, [label, label + 1])
        return _Surface(self._at[first:last], self._mm[first:last])


def _surface(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """The label map with what lies inside the structures taken out."""
    found = np.zeros(labels.shape, dtype=bool)
    for axis in range(labels.ndim):
        turned, here = np.moveaxis(labels, axis, 0), np.moveaxis(found, axis, 0)
        differs = turned[1:] != turned[:-1]
        here[1:] |= differs
        here[:-1] |= differs
        here[0] = here[-1] = True
    return labels * found


def _steps(shape: Sequence[int], margin: Sequence[int], spacing: Sequence[float]) -> list[tuple[int, float]]:
    """Steps to the voxels around one, the shortest first: in flat positions, and their lengths in mm."""
    around = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in margin), indexing="ij"), axis=-1).reshape(-1, 3)
    length = np.linalg.norm(around * np.asarray(spacing, np.float64), axis=1)
    order = np.argsort(length, kind="stable")
    order = order[length[order] <= _REACH * min(spacing)]
    flat = around @ np.array([shape[1] * shape[2], shape[2], 1])
    return list(zip(flat[order].tolist(), length[order].tolist(), strict=True))


def _hd95(judged: _Surfaces, truth: _Surfaces, label: int, missing: float) -> float:
    one, other = judged.of(label), truth.of(label)
    if not len(one.at) or not len(other.at):
        return missing if len(one.at) or len(other.at) else float("nan")
    return max(_directed(one, truth, other, label), _directed(other, judged, one, label))


def _directed(start: _Surface, target: _Surfaces, nearest: _Surface, label: int) -> float:
    """The 95th percentile of the distances from one surface to another.

    Most voxels have theirs within a few steps; once those make up the percentile, the others need not be known.
    """
    n = len(start.at)
    distance, open_ = np.full(n, np.inf), np.arange(n)
    enough = int(_PERCENTILE / 100 * (n - 1)) + 2
    for step, mm in target.steps:
        hit = target.shell[start.at[open_] + step] == label
        distance[open_[hit]] = mm
        open_ = open_[~hit]
        if n - len(open_) >= min(enough, n):
            return float(np.percentile(distance, _PERCENTILE))
    distance[open_], _ = KDTree(nearest.mm, balanced_tree=False, compact_nodes=False).query(start.mm[open_])
    return float(np.percentile(distance, _PERCENTILE))
