"""Faults of the grid: slices lost or shifted, a coarse grid in between."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from whqa.masks.faults.fault import Fault
from whqa.masks.faults.fields import random_direction
from whqa.masks.faults.scene import Inside, Scene


def lose_slab(scene: Scene, fault: Fault) -> None:
    """Slices of the structure, `size` mm of them along the thickest axis, become background."""
    inside = scene.inside(fault.structure)
    axis = _slice_axis(scene, fault.generator())
    slices = _slices(inside, axis, fault, fault.size / scene.spacing[axis])
    labels, inside = np.moveaxis(scene.labels, axis, 0), np.moveaxis(inside, axis, 0)
    labels[slices] = np.where(inside[slices], 0, labels[slices])


def shift_slices(scene: Scene, fault: Fault) -> None:
    """One slice or a few of the whole heart are shifted by `size` mm within their plane."""
    rng = fault.generator()
    axis = _slice_axis(scene, rng)
    planes = np.moveaxis(scene.labels, axis, 0)
    spacing = np.delete(scene.spacing, axis)
    direction = random_direction(rng, axes=2)
    shift = np.rint(fault.size * direction / spacing).astype(int)
    if not shift.any():
        shift[np.argmax(np.abs(direction) / spacing)] = 1
    for i in _slices(scene.inside(0), axis, fault, fault.size / 3 / scene.spacing[axis]):
        planes[i] = _shifted(planes[i], shift)


def coarsen(scene: Scene, fault: Fault) -> None:
    """All labels are those of the nearest voxel of a grid whose voxels are `size` mm wide where they were finer."""
    rng = fault.generator()
    taken = []
    for n, step in zip(scene.labels.shape, scene.spacing, strict=True):
        factor, phase = fault.size / step, rng.random()
        index = np.arange(n)
        if factor > 1:
            middle = (np.floor((index + 0.5) / factor + phase) + 0.5 - phase) * factor
            index = np.clip(np.floor(middle).astype(int), 0, n - 1)
        taken.append(index)
    scene.labels[...] = scene.labels[np.ix_(*taken)]


def _slice_axis(scene: Scene, rng: np.random.Generator) -> int:
    thickest = np.flatnonzero(scene.spacing >= 0.99 * scene.spacing.max())
    return int(rng.choice(thickest))


def _slices(inside: Inside, axis: int, fault: Fault, n: float) -> npt.NDArray[np.intp]:
    """Indices of about `n` neighbouring slices, at least one and not more than half of those inside."""
    used = np.flatnonzero(np.moveaxis(inside, axis, 0).any(axis=(1, 2)))
    count = min(max(1, round(n)), max(1, len(used) // 2))
    first = round(fault.place[axis] * (len(used) - count))
    return used[first : first + count]


def _shifted(plane: npt.NDArray[np.uint8], shift: npt.NDArray[np.int_]) -> npt.NDArray[np.uint8]:
    """A plane moved by whole voxels; background comes in."""
    moved = np.zeros_like(plane)
    source = tuple(slice(max(0, -s), max(0, n - max(0, s))) for s, n in zip(shift, plane.shape, strict=True))
    target = tuple(slice(max(0, s), max(0, n - max(0, -s))) for s, n in zip(shift, plane.shape, strict=True))
    moved[target] = plane[source]
    return moved
