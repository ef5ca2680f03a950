"""Resampling along the axes of a volume, as one small matrix an axis.

A `Line` maps index i of the target axis to position `start + i * step` on the source axis, both in voxels. Linear
interpolation is a triangle kernel of one source voxel; for images on a coarser target the triangle widens to one target
voxel, which removes what the coarse grid cannot show (anti-aliasing). Label maps keep the narrow kernel: widening wears
thin walls away. Rows are normalised, so edges are replicated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Line:
    """`length` target voxels at source positions `start + i * step`, in source voxels."""

    start: float
    step: float
    length: int

    @property
    def is_slice(self) -> bool:
        """Whether target voxels are source voxels, so that nothing needs interpolation."""
        return self.step == 1 and self.start == round(self.start)

    def inverse(self, length: int) -> Line:
        """From the target back to a source axis of `length` voxels."""
        return Line(-self.start / self.step, 1 / self.step, length)

    def positions(self) -> npt.NDArray[np.float64]:
        """Source positions of the target voxels: (length,)."""
        return self.start + self.step * np.arange(self.length, dtype=np.float64)

    def inside(self, source: int) -> npt.NDArray[np.bool_]:
        """Which target voxels have their centre within the extent of a source axis of `source` voxels: (length,)."""
        positions = self.positions()
        return (positions >= -0.5 - 1e-6) & (positions <= source - 0.5 + 1e-6)

    def weights(self, source: int, widen: bool = True) -> Floats:
        """(length, source); rows of target voxels outside the source are zero, all others sum to one."""
        positions = np.clip(self.positions(), 0, source - 1)[:, None]
        triangle = 1 - np.abs(positions - np.arange(source)) / (max(1.0, self.step) if widen else 1.0)
        weights = np.clip(triangle, 0, None) * self.inside(source)[:, None]
        return (weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)


def interpolate(array: npt.NDArray[np.generic], lines: Sequence[Line], outside: float = 0.0) -> Floats:
    """Anti-aliased linear interpolation: (X, Y, Z) -> float32 of the lines' lengths.

    Args:
        array: source volume.
        lines: one an axis.
        outside: value of target voxels that lie outside the source.
    """
    shifted = array.astype(np.float32) - np.float32(outside) if outside else array
    # the axis that shrinks most comes first: what follows then has less to do
    for axis in sorted(range(3), key=lambda k: lines[k].length / array.shape[k]):
        shifted = _along(shifted, lines[axis], axis)
    return shifted.astype(np.float32, copy=False) + np.float32(outside)


def interpolate_labels(indices: npt.NDArray[np.uint8], lines: Sequence[Line]) -> npt.NDArray[np.uint8]:
    """Resample a label map: the class with most weight wins; outside the source is background.

    Each class is interpolated as a map of its own, as nearest neighbours would make borders jagged. Ties go to the
    class with the lower index.
    """
    if all(line.is_slice for line in lines):
        return _cut(indices, lines)
    shape = tuple(line.length for line in lines)
    best = np.zeros(shape, dtype=np.uint8)
    best_weight, rest = np.zeros(shape, dtype=np.float32), np.ones(shape, dtype=np.float32)
    for index in np.flatnonzero(np.bincount(indices.ravel(order="K"))):
        if index:
            weight, box = _class_weight(indices == index, lines)
            wins = weight > best_weight[box]
            best[box][wins] = index
            np.maximum(best_weight[box], weight, out=best_weight[box])
            rest[box] -= weight
    best[rest > best_weight] = 0
    return best


def _class_weight(mask: npt.NDArray[np.bool_], lines: Sequence[Line]) -> tuple[Floats, tuple[slice, ...]]:
    """Interpolated weight of one class, and the part of the target that it reaches (all other weights are zero)."""
    matrices, source_box, target_box = [], [], []
    for axis, line in enumerate(lines):
        used = np.flatnonzero(mask.any(axis=tuple(k for k in range(3) if k != axis)))
        source = slice(int(used[0]), int(used[-1]) + 1)
        matrix = line.weights(mask.shape[axis], widen=False)[:, source]
        reached = np.flatnonzero(matrix.any(axis=1))
        target = slice(int(reached[0]), int(reached[-1]) + 1) if reached.size else slice(0, 0)
        matrices.append(matrix[target])
        source_box.append(source)
        target_box.append(target)
    weight: npt.NDArray[np.generic] = mask[tuple(source_box)]
    for axis in sorted(range(3), key=lambda k: matrices[k].shape[0] / matrices[k].shape[1]):
        weight = _multiply(matrices[axis], weight, axis)
    return weight.astype(np.float32, copy=False), tuple(target_box)


def _along(array: npt.NDArray[np.generic], line: Line, axis: int) -> npt.NDArray[np.generic]:
    first, last = round(line.start), round(line.start) + line.length
    if line.is_slice and first >= 0 and last <= array.shape[axis]:
        return array[tuple(slice(first, last) if k == axis else slice(None) for k in range(3))]
    matrix = line.weights(array.shape[axis])
    used = np.flatnonzero(matrix.any(axis=0))
    part = slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 1)
    cut = array[tuple(part if k == axis else slice(None) for k in range(3))]
    return _multiply(matrix[:, part], cut, axis)


def _multiply(matrix: Floats, array: npt.NDArray[np.generic], axis: int) -> npt.NDArray[np.generic]:
    return np.moveaxis(np.tensordot(matrix, array.astype(np.float32, copy=False), axes=(1, axis)), 0, axis)


def _cut(indices: npt.NDArray[np.uint8], lines: Sequence[Line]) -> npt.NDArray[np.uint8]:
    """Whole-voxel shift: copy what overlaps, background elsewhere."""
    target = np.zeros(tuple(line.length for line in lines), dtype=np.uint8)
    to, of = [], []
    for line, size in zip(lines, indices.shape, strict=True):
        start = round(line.start)
        low, high = max(0, -start), max(0, min(line.length, size - start))
        to.append(slice(low, max(low, high)))
        of.append(slice(low + start, max(low, high) + start))
    target[tuple(to)] = indices[tuple(of)]
    return target
