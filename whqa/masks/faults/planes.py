"""Faults of planes: valves between two chambers, ends of vessels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.masks.faults.fault import Fault
from whqa.masks.faults.fields import FloatArray, along, unit
from whqa.masks.faults.scene import Inside, Scene, neighbours, touching

VALVES = (("lv", "la"), ("rv", "ra"), ("lv", "ao"), ("rv", "pa"))
"""What each valve lies between."""

VESSEL_CHAMBERS = {"ao": "lv", "pa": "rv"}
"""Vessels and the chambers that they come from."""


def move_valve(scene: Scene, fault: Fault) -> None:
    """The plane between two touching structures moves by `size` mm into `other`, a little tilted."""
    box = scene.around(scene.inside(fault.structure) | scene.inside(fault.other), 0)
    part = scene.labels[box]
    loser = part == fault.other
    rim = scene.points(touching(part == fault.structure, loser))
    if not len(rim):
        return
    centre = rim.sum(axis=0) / len(rim)
    straight = unit(_face_vector(scene, part, fault)) if len(rim) > 1 else None
    if straight is None:
        straight = unit(scene.points(loser).sum(axis=0) / loser.sum() - centre)
    if straight is None:
        return
    normal = unit(straight + 0.2 * fault.generator().uniform(-1, 1, 3))
    assert normal is not None
    at_rim, aside_rim = _seen_along(rim - centre, normal)
    points = scene.points(loser)
    how_far, aside = _seen_along(points - centre, normal)
    swept = how_far < fault.size + scene.finest / 2
    swept &= how_far >= float(at_rim.min())
    swept &= aside <= float(aside_rim.max()) + scene.finest + fault.size / 3
    part[tuple(np.argwhere(loser)[swept].T)] = fault.structure


def lengthen_vessel(scene: Scene, fault: Fault) -> None:
    """The cross-section of the free end is carried on along the vessel for `size` mm, through background only."""
    inside = scene.inside(fault.structure)
    voxels, axis, how_far = _free_end(scene, inside, fault)
    face, start = _cross_section(voxels, how_far, float(np.abs(axis * scene.spacing).sum()))
    reach = np.arange(0, fault.size + start + 0.1, scene.finest / 2)
    steps = {tuple(np.rint(k * axis / scene.spacing).astype(int)) for k in reach}
    for step in sorted(steps):
        moved = face + np.array(step)
        moved = moved[((moved >= 0) & (moved < scene.labels.shape)).all(axis=1)]
        where = tuple(moved.T)
        scene.labels[where] = np.where(scene.labels[where] == 0, fault.structure, scene.labels[where])


def cut_vessel(scene: Scene, fault: Fault) -> None:
    """The last `size` mm of the free end are lost, cut off by a plane across the vessel."""
    inside = scene.inside(fault.structure)
    voxels, _, how_far = _free_end(scene, inside, fault)
    lost = np.zeros_like(inside)
    lost[tuple(voxels[how_far > -fault.size].T)] = True
    pieces, _ = ndimage.label(lost)
    tip = voxels[np.argmax(how_far)]
    scene.labels[pieces == pieces[tuple(tip)]] = 0


def _free_end(scene: Scene, inside: Inside, fault: Fault) -> tuple[npt.NDArray[np.intp], FloatArray, FloatArray]:
    """A vessel's voxels (N, 3), its direction at the free end, and how far each lies behind that end (N,), in mm."""
    voxels = np.argwhere(inside)
    points = voxels * scene.spacing
    key = scene.structures[fault.structure - 1]
    root = _root(scene, inside, scene.index(VESSEL_CHAMBERS.get(key, "")))
    from_root = np.sqrt(((points - root) ** 2).sum(axis=1))
    behind = from_root.max() - from_root
    width = max(6.0, 1.5 * float(scene.spacing.max()))
    tip, before = points[behind <= width], points[(behind > width) & (behind <= 3 * width)]
    before = before if len(before) else root[None]
    axis = unit(tip.sum(axis=0) / len(tip) - before.sum(axis=0) / len(before))
    axis = np.array([1.0, 0.0, 0.0]) if axis is None else axis
    how_far = along(points, axis)
    return voxels, axis, how_far - how_far[behind <= width].max()


def _cross_section(
    voxels: npt.NDArray[np.intp], how_far: FloatArray, thick: float
) -> tuple[npt.NDArray[np.intp], float]:
    """The voxels of the last full cross-section of a vessel and how far it lies before the end, in mm.

    The end itself is slanted, rounded or ragged: the sections before it grow until they are full.
    """
    # other pieces of a scattered vessel may lie beyond the end
    before = how_far < thick
    voxels, how_far = voxels[before], how_far[before]
    section = (-how_far / thick).astype(int)
    areas = np.bincount(section[how_far > -max(15.0, 2 * thick)])
    full = int(np.argmax(areas >= 0.6 * areas.max()))
    return voxels[section == full], full * thick


def _root(scene: Scene, inside: Inside, chamber: int) -> FloatArray:
    """Where a vessel leaves its chamber, or the middle of the rest of the heart; mm (3,)."""
    box = scene.around(inside, 0)
    corner = np.array([s.start for s in box]) * scene.spacing
    rim = touching(inside[box], scene.labels[box] == chamber) if chamber else np.zeros_like(inside[box])
    if rim.any():
        return np.asarray(scene.points(rim).sum(axis=0) / rim.sum() + corner)
    rest = (scene.labels > 0) & ~inside
    rest = rest if rest.any() else inside
    return np.asarray(scene.points(rest).sum(axis=0) / rest.sum())


def _face_vector(scene: Scene, part: npt.NDArray[np.uint8], fault: Fault) -> FloatArray:
    """Sum of the faces between two structures as vectors towards `other`, mm^2 (3,): the normal of their border."""
    vector = []
    for axis in range(3):
        first, second = neighbours(part, axis)
        there = ((first == fault.structure) & (second == fault.other)).sum()
        back = ((first == fault.other) & (second == fault.structure)).sum()
        vector.append(float(there) - float(back))
    return np.array(vector) * scene.spacing.prod() / scene.spacing


def _seen_along(points: FloatArray, axis: FloatArray) -> tuple[FloatArray, FloatArray]:
    """How far points (N, 3) lie along an axis through the origin and how far aside, (N,) each."""
    how_far = along(points, axis)
    return how_far, np.sqrt(((points - how_far[:, None] * axis) ** 2).sum(axis=1))
