"""Faults of borders: moved in and out, outwards, inwards, or bent with all that is around."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from whqa.masks.faults.fault import Fault
from whqa.masks.faults.fields import Field, FloatArray, random_direction, smooth_field
from whqa.masks.faults.scene import Box, Inside, Scene, nearest_outside


def wobble(scene: Scene, fault: Fault) -> None:
    """The border, of the heart a part of it, moves in and out by up to `size` mm, into all that lies around."""
    rng = fault.generator()
    box, weight = (_box(scene, fault), None) if fault.structure else _faded(scene, fault, rng.uniform(40, 90))
    shift = smooth_field(scene.labels[box].shape, scene.spacing, rng.uniform(2, 4) * max(fault.size, 2.5), rng)
    shift *= fault.size
    if weight is not None:
        shift *= weight
    _move_border(scene, fault, box, shift, np.ones(shift.shape, bool))


def grow(scene: Scene, fault: Fault) -> None:
    """The border moves outwards by up to `size` mm, into background and `other` only."""
    box = _box(scene, fault)
    part = scene.labels[box]
    _move_border(scene, fault, box, _one_sided(scene, fault, box), (part == 0) | (part == fault.other))


def shrink(scene: Scene, fault: Fault) -> None:
    """The border moves inwards by up to `size` mm; what lies nearest takes the room."""
    box = _box(scene, fault)
    shift = -_one_sided(scene, fault, box)
    _move_border(scene, fault, box, shift, np.zeros(shift.shape, bool))


def bend(scene: Scene, fault: Fault) -> None:
    """All labels around a place are displaced by a smooth field of up to `size` mm along each axis."""
    rng = fault.generator()
    wavelength, reach = rng.uniform(15, 40), rng.uniform(30, 120)
    box, weight = _faded(scene, fault, reach)
    part = scene.labels[box].copy()
    moved = []
    for axis, n in enumerate(part.shape):
        shift = smooth_field(part.shape, scene.spacing, wavelength, rng)
        shift *= weight
        shift *= float(fault.size / scene.spacing[axis])
        shift += np.arange(n, dtype=np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        moved.append(np.clip(np.rint(shift).astype(np.intp), 0, n - 1))
    scene.labels[box] = part[tuple(moved)]


def _box(scene: Scene, fault: Fault) -> Box:
    return scene.around(scene.inside(fault.structure), fault.size + scene.finest)


def _one_sided(scene: Scene, fault: Fault, box: Box) -> Field:
    """mm by which the border moves at each voxel of a box: most on one side, or about the same all around."""
    rng = fault.generator()
    shape = scene.labels[box].shape
    uneven = smooth_field(shape, scene.spacing, rng.uniform(10, 25), rng)
    if fault.size > 2 * scene.finest and rng.random() < 0.4:
        return fault.size * (0.75 + 0.25 * uneven)
    direction = random_direction(rng)
    sides = [g / max(n - 1, 1) - 0.5 for g, n in zip(np.ogrid[tuple(slice(0, n) for n in shape)], shape, strict=True)]
    ramp = sides[0] * direction[0] + sides[1] * direction[1] + sides[2] * direction[2]
    return np.asarray(fault.size * np.clip(0.5 + 1.5 * ramp + 0.3 * uneven, 0, 1), np.float32)


def _move_border(scene: Scene, fault: Fault, box: Box, shift: Field, free: Inside) -> None:
    """Move a structure's border outwards by `shift` mm (D, H, W of the box), into `free` voxels only."""
    part = scene.labels[box]
    before = part.copy()
    inside = scene.inside(fault.structure)[box]
    for side, outwards in ((~inside, shift), (inside, -shift)):
        at = side & (outwards > 0) & (free | inside) & _near(~side, fault.size + scene.finest, scene.spacing)
        if not at.any() or side.all():
            continue
        voxels, distance, nearest = nearest_outside(side, at, scene.spacing)
        moved = distance - scene.finest / 2 < outwards[at]
        part[tuple(voxels[moved].T)] = before[nearest][moved]


def _near(inside: Inside, reach: float, spacing: FloatArray) -> Inside:
    """Voxels less than about `reach` mm from those inside along each axis: a cheap bound before exact distances."""
    widths = [2 * int(reach / step) + 1 for step in spacing]
    return ndimage.maximum_filter(inside.view(np.uint8), widths, mode="constant").view(np.bool_)


def _faded(scene: Scene, fault: Fault, reach: float) -> tuple[Box, Field]:
    """The box within `reach` mm of a fault's place, and a weight that falls from 1 there to 0 at its rim."""
    heart = scene.inside(fault.structure)
    centre = scene.place(heart, fault.place)
    box = tuple(
        slice(max(around.start, int(c - reach / s)), min(around.stop, int(c + reach / s) + 1))
        for around, c, s in zip(scene.around(heart, fault.size), centre, scene.spacing, strict=True)
    )
    squares = [((g - c) * s / reach) ** 2 for g, c, s in zip(np.ogrid[box], centre, scene.spacing, strict=True)]
    weight = np.clip(1 - squares[0] - squares[1] - squares[2], 0, 1).astype(np.float32)
    return box, np.sqrt(weight)
