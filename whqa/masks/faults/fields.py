"""Smooth random fields and directions.

The same on every machine: sums and products in a fixed order only. exp, sin and matrix products differ between
processors in the last digit, and a voxel that lies on a threshold would flip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Field = npt.NDArray[np.floating[Any]]


def smooth_field(shape: Sequence[int], spacing: FloatArray, wavelength: float, rng: np.random.Generator) -> Field:
    """A cubic B-spline through random values on a lattice.

    Args:
        shape: of the result.
        spacing: mm along each axis.
        wavelength: mm between the lattice's points.
        rng: draws the values.

    Returns:
        float32 of this shape; the largest absolute value is 1.
    """
    steps = [np.arange(n) * s / wavelength for n, s in zip(shape, spacing, strict=True)]
    field = rng.uniform(-1, 1, [int(step[-1]) + 4 for step in steps]).astype(np.float32)
    # the last pass, over all voxels, goes along the axis whose planes lie in one piece
    for axis in reversed(range(len(steps))):
        cell = steps[axis].astype(np.intp)
        wide = [-1 if i == axis else 1 for i in range(len(steps))]
        coarse, weights = field, _spline_weights((steps[axis] - cell).astype(np.float32))
        field = np.take(coarse, cell, axis=axis) * weights[0].reshape(wide)
        for k in (1, 2, 3):
            term = np.take(coarse, cell + k, axis=axis)
            term *= weights[k].reshape(wide)
            field += term
    field /= max(float(field.max()), -float(field.min()), 1e-6)
    return field


def _spline_weights(t: Field) -> list[Field]:
    """Of the four points around a place that lies the share `t` behind the second."""
    u, square = 1 - t, t * t
    return [
        u * u * u / 6,
        (3 * square * t - 6 * square + 4) / 6,
        (-3 * square * t + 3 * square + 3 * t + 1) / 6,
        square * t / 6,
    ]


def random_direction(rng: np.random.Generator, axes: int = 3) -> FloatArray:
    """A vector of length 1, every direction alike."""
    while True:
        vector = rng.uniform(-1, 1, axes)
        if 0.01 < (square := sum(float(v) * float(v) for v in vector)) <= 1:
            return vector / np.sqrt(square)


def unit(vector: FloatArray) -> FloatArray | None:
    """The vector at length 1; None for one without a direction."""
    length = float(np.sqrt(sum(float(v) * float(v) for v in vector)))
    return vector / length if length > 1e-9 else None


def along(points: FloatArray, direction: FloatArray) -> FloatArray:
    """How far points (N, 3) lie along a direction of length 1; (N,)."""
    return points[:, 0] * direction[0] + points[:, 1] * direction[1] + points[:, 2] * direction[2]
