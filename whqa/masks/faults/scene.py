"""A mask in which faults are made, and its geometry: boxes, borders, distances, all in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.masks.faults.fields import FloatArray, smooth_field

Labels = npt.NDArray[np.uint8]
Inside = npt.NDArray[np.bool_]
Box = tuple[slice, ...]


@dataclass(frozen=True)
class Scene:
    """A mask that faults change in place.

    Attributes:
        labels: indices (D, H, W).
        spacing: mm along D, H, W.
        structures: keys in the order of the indices 1..C.
    """

    labels: Labels
    spacing: FloatArray
    structures: tuple[str, ...]

    @classmethod
    def of(cls, mask: Labels, spacing: Sequence[float], structures: Sequence[str]) -> Scene:
        """A scene with a copy of a mask."""
        return cls(mask.copy(), np.asarray(spacing, float), tuple(structures))

    @property
    def finest(self) -> float:
        """mm; the smallest edge of a voxel."""
        return float(self.spacing.min())

    def inside(self, structure: int) -> Inside:
        """Where a structure is; 0 stands for the whole heart."""
        return self.labels > 0 if structure == 0 else self.labels == structure

    def present(self) -> list[int]:
        """Indices of the structures that have a voxel."""
        return [int(i) for i in np.flatnonzero(np.bincount(self.labels.ravel())) if i]

    def index(self, key: str) -> int:
        """Label index of a structure; 0 where the mask cannot have it."""
        return self.structures.index(key) + 1 if key in self.structures else 0

    def around(self, inside: Inside, margin: float) -> Box:
        """The box of what is inside, `margin` mm and at least a voxel larger, within the volume."""
        box = []
        for axis, (n, step) in enumerate(zip(inside.shape, self.spacing, strict=True)):
            other = tuple(i for i in range(inside.ndim) if i != axis)
            where = np.flatnonzero(inside.any(axis=other))
            reach = int(margin / step) + 1
            box.append(slice(max(0, int(where[0]) - reach), min(n, int(where[-1]) + 1 + reach)))
        return tuple(box)

    def points(self, inside: Inside) -> FloatArray:
        """Centres of the voxels inside, in mm from the volume's first voxel (N, 3)."""
        return np.argwhere(inside) * self.spacing

    def place(self, inside: Inside, shares: Sequence[float]) -> FloatArray:
        """A point at these shares of the extent of what is inside, in voxels (3,)."""
        box = self.around(inside, 0)
        return np.array([s.start + share * (s.stop - 1 - s.start) for s, share in zip(box, shares, strict=True)])

    def nearest(self, inside: Inside, point: FloatArray) -> FloatArray:
        """The voxel inside that is nearest to a point; both in voxels (3,)."""
        if inside[here := tuple(np.clip(np.rint(point).astype(int), 0, np.array(inside.shape) - 1))]:
            return np.array(here, float)
        axes = [
            ((g - p) * s) ** 2
            for g, p, s in zip(np.ogrid[tuple(slice(0, n) for n in inside.shape)], point, self.spacing, strict=True)
        ]
        distance = np.where(inside, axes[0] + axes[1] + axes[2], np.inf)
        return np.array(np.unravel_index(np.argmin(distance), inside.shape), float)

    def blob(self, centre: FloatArray, radius: float, rng: np.random.Generator) -> tuple[Box, Inside]:
        """A ball with dents around a voxel: its box and what is inside; the voxel itself always is."""
        low = np.maximum(np.floor(centre - 1.4 * radius / self.spacing).astype(int), 0)
        high = np.minimum(np.ceil(centre + 1.4 * radius / self.spacing).astype(int) + 1, self.labels.shape)
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        grid = np.ogrid[box]
        squares = [((g - c) * s) ** 2 for g, c, s in zip(grid, centre, self.spacing, strict=True)]
        distance = np.sqrt(squares[0] + squares[1] + squares[2])
        dents = smooth_field(distance.shape, self.spacing, 0.9 * radius, rng)
        return box, distance <= np.maximum(radius * (1 + 0.35 * dents), self.finest / 2)

    def contacts(self) -> npt.NDArray[np.int64]:
        """How many faces of voxels each label shares with each (C + 1, C + 1), background first."""
        n = len(self.structures) + 1
        counts = np.zeros((n, n), np.int64)
        for axis in range(3):
            first, second = neighbours(self.labels, axis)
            differ = first != second
            pairs = first[differ].astype(np.intp) * n + second[differ]
            counts += np.bincount(pairs, minlength=n * n).reshape(n, n)
        return counts + counts.T


def neighbours(labels: Labels, axis: int) -> tuple[Labels, Labels]:
    """The labels on either side of each face across an axis."""
    n = labels.shape[axis]
    return labels.take(range(n - 1), axis), labels.take(range(1, n), axis)


def touching(inside: Inside, other: Inside) -> Inside:
    """The voxels inside that share a face with the other's."""
    return ndimage.binary_dilation(other) & inside


def depths(inside: Inside, spacing: FloatArray) -> FloatArray:
    """mm from each voxel inside to the nearest outside; infinite where there is no outside."""
    if inside.all():
        return np.full(inside.shape, np.inf)
    return ndimage.distance_transform_edt(inside, sampling=spacing)


def nearest_outside(
    inside: Inside, at: Inside, spacing: FloatArray
) -> tuple[npt.NDArray[np.intp], FloatArray, tuple[npt.NDArray[np.intp], ...]]:
    """For voxels inside: what is nearest outside.

    Args:
        inside: some voxels (D, H, W), not all.
        at: those inside to answer for, N of them.
        spacing: mm along D, H, W.

    Returns:
        The voxels (N, 3), the distance of each in mm (N,), and the indices of what is nearest to each (3 of N).
    """
    voxels = np.argwhere(at)
    found = ndimage.distance_transform_edt(inside, sampling=spacing, return_distances=False, return_indices=True)
    nearest = [axis[at].astype(np.intp) for axis in found]
    apart = [((a - b) * s) ** 2 for a, b, s in zip(voxels.T, nearest, spacing, strict=True)]
    return voxels, np.sqrt(apart[0] + apart[1] + apart[2]), tuple(nearest)
