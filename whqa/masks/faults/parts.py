"""Faults of parts: a structure or a piece of it lost, given away, exchanged, or where it does not belong."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from whqa.masks.faults.fault import Fault
from whqa.masks.faults.fields import FloatArray, along, random_direction
from whqa.masks.faults.scene import Inside, Scene, depths, touching

SIDES = (("lv", "rv"), ("la", "ra"))
"""Chambers of the left heart and their counterparts."""


def leak_through(scene: Scene, fault: Fault) -> None:
    """A tongue: through what lies between the structure and `other`, where that is thin, and a ball beyond."""
    ends = _thin_wall(scene, fault)
    if ends is None:
        return
    start, end = ends
    direction = (end - start) * scene.spacing
    direction /= np.sqrt((direction * direction).sum())
    middle = np.rint(end + direction * 0.6 * fault.size / scene.spacing)
    box, ball = scene.blob(np.clip(middle, 0, np.array(scene.labels.shape) - 1), fault.size, fault.generator())
    part = scene.labels[box]
    part[ball & (part == fault.other)] = fault.structure
    scene.labels[_between(scene, start, end, max(0.4 * fault.size, 0.6 * scene.finest))] = fault.structure


def add_hole(scene: Scene, fault: Fault) -> None:
    """A blob of background inside."""
    inside = scene.inside(fault.structure)
    box, blob = scene.blob(scene.nearest(inside, scene.place(inside, fault.place)), fault.size, fault.generator())
    scene.labels[box][blob & inside[box]] = 0


def add_island(scene: Scene, fault: Fault) -> None:
    """A blob of the structure in background around the heart or in `other`, apart from the structure itself."""
    room = scene.labels == fault.other
    around = scene.around(scene.inside(0), 20.0)
    if not room[around].any():
        return
    corner = np.array([s.start for s in around])
    extent = np.array([s.stop - 1 - s.start for s in around])
    wanted = np.asarray(fault.place) * extent
    centre = scene.nearest(room[around], wanted) + corner
    box, blob = scene.blob(centre, fault.size, fault.generator())
    wide = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
    apart = ~ndimage.binary_dilation(scene.labels[wide] == fault.structure)
    inner = tuple(
        slice(s.start - w.start, s.start - w.start + n) for s, w, n in zip(box, wide, blob.shape, strict=True)
    )
    scene.labels[box][blob & room[box] & apart[inner]] = fault.structure


def swap(scene: Scene, fault: Fault) -> None:
    """In a blob on the border of two structures both are exchanged, or all is given to `other`."""
    first, second = scene.inside(fault.structure), scene.inside(fault.other)
    box = scene.around(first, scene.finest)
    border = touching(first[box], second[box])
    if not border.any():
        return
    corner = np.array([s.start for s in box])
    centre = scene.nearest(border, scene.place(first, fault.place) - corner) + corner
    rng = fault.generator()
    exchanged = rng.random() < 0.5
    ball_box, ball = scene.blob(centre, fault.size, rng)
    scene.labels[ball_box][ball & first[ball_box]] = fault.other
    if exchanged:
        scene.labels[ball_box][ball & second[ball_box]] = fault.structure


def lose_structure(scene: Scene, fault: Fault) -> None:
    """The share `size` of the structure, from one end, becomes `other`."""
    inside = scene.inside(fault.structure)
    scene.labels[_end(scene, inside, fault)] = fault.other


def exchange_sides(scene: Scene, fault: Fault) -> None:
    """The labels of left and right chambers are exchanged in the share `size` of them; structure 0 is all chambers."""
    pairs = [(a, b) for a, b in side_pairs(scene) if fault.structure in (0, a)]
    if not pairs:
        return
    part = _end(scene, np.isin(scene.labels, [i for pair in pairs for i in pair]), fault)
    before = scene.labels[part]
    after = before.copy()
    for left, right in pairs:
        after[before == left], after[before == right] = right, left
    scene.labels[part] = after


def side_pairs(scene: Scene) -> list[tuple[int, int]]:
    """Label indices of the left chambers and their counterparts, of those that the mask has."""
    present = set(scene.present())
    pairs = [(scene.index(left), scene.index(right)) for left, right in SIDES]
    return [pair for pair in pairs if present.issuperset(pair)]


def _thin_wall(scene: Scene, fault: Fault) -> tuple[FloatArray, FloatArray] | None:
    """Two voxels on either side of what separates a structure from `other`, near the place and where that is thin."""
    inside = scene.inside(fault.structure)
    box = scene.around(inside, 15.0)
    corner, inside = np.array([s.start for s in box]), inside[box]
    pieces, n = ndimage.label(scene.labels[box] == fault.other)
    if not n:
        return None
    # the largest piece: not one of the pinholes of a border
    other = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
    rim = touching(inside, ~inside)
    voxels = np.argwhere(rim)
    apart = (voxels - scene.place(inside, fault.place)) * scene.spacing
    cost = np.sqrt((apart * apart).sum(axis=1)) + 4 * depths(~other, scene.spacing)[rim]
    start = voxels[np.argmin(cost)]
    return start + corner, scene.nearest(other, start) + corner


def _end(scene: Scene, inside: Inside, fault: Fault) -> tuple[FloatArray, ...]:
    """Indices of the share `size` of the voxels inside: those beyond a plane of random direction."""
    voxels = np.argwhere(inside)
    if fault.size < 1:
        how_far = along(voxels * scene.spacing, random_direction(fault.generator()))
        kept = int((1 - fault.size) * len(voxels))
        voxels = voxels[how_far >= np.partition(how_far, kept)[kept]]
    return tuple(voxels.T)


def _between(scene: Scene, start: FloatArray, end: FloatArray, radius: float) -> tuple[FloatArray, ...]:
    """Indices of the voxels within `radius` mm of the line from a voxel to another."""
    reach = np.ceil(radius / scene.spacing)
    low = np.maximum(np.minimum(start, end) - reach, 0).astype(int)
    high = np.minimum(np.maximum(start, end) + reach + 1, scene.labels.shape).astype(int)
    voxels = np.argwhere(np.ones(high - low, bool)) + low
    line, points = (end - start) * scene.spacing, (voxels - start) * scene.spacing
    square = max(float(sum(d * d for d in line)), 1e-9)
    share = np.clip(along(points, line) / square, 0, 1)
    apart = ((points - share[:, None] * line) ** 2).sum(axis=1)
    return tuple(voxels[apart <= radius * radius].T)
