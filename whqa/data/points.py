"""Voxels that patches are centred on: a few thousand of a structure say as much of it as all of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

# Of each structure, or of the wrong voxels of a mask, at most.
POINTS = 4096


def spread_points(flat: npt.NDArray[np.intp], shape: Sequence[int]) -> npt.NDArray[np.int16]:
    """At most POINTS of the voxels with these flat indices, evenly spread over them: (n, 3)."""
    if len(flat) > POINTS:
        flat = flat[np.linspace(0, len(flat) - 1, POINTS).astype(np.intp)]
    return np.stack(np.unravel_index(flat, tuple(shape)), axis=1).astype(np.int16)


def structure_points(label: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Points of all structures of a label map (D, H, W): (n, 4), the structure's index and the voxel."""
    flat = np.flatnonzero(label)
    values = label.reshape(-1)[flat]
    found = [np.empty((0, 4), np.int16)]
    for index in np.flatnonzero(np.bincount(values)):
        points = spread_points(flat[values == index], label.shape)
        found.append(np.insert(points, 0, index, axis=1))
    return np.concatenate(found)
