"""Every kind of fault: what it does, which structures it can befall, how large it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from whqa.masks.faults.borders import bend, grow, shrink, wobble
from whqa.masks.faults.fault import Fault
from whqa.masks.faults.grids import coarsen, lose_slab, shift_slices
from whqa.masks.faults.parts import (
    add_hole,
    add_island,
    exchange_sides,
    leak_through,
    lose_structure,
    side_pairs,
    swap,
)
from whqa.masks.faults.planes import VALVES, VESSEL_CHAMBERS, cut_vessel, lengthen_vessel, move_valve
from whqa.masks.faults.scene import Scene

Targets = list[tuple[int, int]]


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault.

    Attributes:
        apply: makes a fault in a scene.
        targets: the pairs of structure and `other` that it can befall.
        low: size of the mildest, in mm or as a share.
        high: size of the grossest.
        voxels: the mildest is at least so many edges of the finest voxel.
    """

    apply: Callable[[Scene, Fault], None]
    targets: Callable[[Scene], Targets]
    low: float
    high: float
    voxels: float = 0.0

    def size(self, severity: float, finest: float) -> float:
        """From severity 0 (mildest) to 1 (grossest) on a log scale; `finest` is the smallest edge of a voxel, in mm."""
        low = max(self.low, self.voxels * finest)
        return round(low * (max(self.high, 2 * low) / low) ** severity, 3)


def _heart(scene: Scene) -> Targets:
    return [(0, 0)] if scene.present() else []


def _each(scene: Scene) -> Targets:
    return [(i, 0) for i in scene.present()]


def _each_or_heart(scene: Scene) -> Targets:
    return [*_each(scene), *_heart(scene)]


def _each_into_neighbours(scene: Scene) -> Targets:
    """With background and the structures that make up a twentieth of the border at least."""
    contacts = scene.contacts()
    shares = contacts / np.maximum(contacts.sum(axis=1, keepdims=True), 1)
    return [(i, j) for i in scene.present() for j in np.flatnonzero(shares[i] >= 0.05).tolist()]


def _touching_pairs(scene: Scene) -> Targets:
    return [(i, j) for i, j in _each_into_neighbours(scene) if j]


def _each_through_neighbours(scene: Scene) -> Targets:
    near = scene.contacts() > 0
    beyond = near | (near[:, 1:, None] & near[None, 1:, :]).any(axis=1)
    return [(i, j) for i in scene.present() for j in range(len(near)) if j != i and beyond[i, j]]


def _each_to_its_main_neighbour(scene: Scene) -> Targets:
    contacts = scene.contacts()
    contacts[:, 0] = 0
    main = [(i, int(contacts[i].argmax())) for i in scene.present() if contacts[i].any()]
    return [*_each(scene), *main]


def _each_in_another(scene: Scene) -> Targets:
    present = scene.present()
    return [(i, j) for i in present for j in [0] * len(present) + present if j != i]


def _valves(scene: Scene) -> Targets:
    contacts = scene.contacts()
    pairs = [(scene.index(a), scene.index(b)) for a, b in VALVES]
    return [pair for a, b in pairs if a and b and contacts[a, b] for pair in ((a, b), (b, a))]


def _vessels(scene: Scene) -> Targets:
    return [(i, 0) for i in scene.present() if scene.structures[i - 1] in VESSEL_CHAMBERS]


def _sides(scene: Scene) -> Targets:
    pairs = side_pairs(scene)
    return pairs + [(0, 0)] * (len(pairs) > 1)


FAULTS: dict[str, FaultKind] = {
    "wobble": FaultKind(wobble, _each_or_heart, 1.0, 5.0, voxels=1.0),
    "grown": FaultKind(grow, _each_into_neighbours, 0.8, 10.0, voxels=0.6),
    "shrunk": FaultKind(shrink, _each, 0.8, 10.0, voxels=0.6),
    "elastic": FaultKind(bend, _heart, 1.0, 8.0, voxels=1.0),
    "leak": FaultKind(leak_through, _each_through_neighbours, 4.0, 22.0, voxels=1.5),
    "valve": FaultKind(move_valve, _valves, 0.8, 25.0, voxels=0.6),
    "vessel_long": FaultKind(lengthen_vessel, _vessels, 2.0, 45.0, voxels=1.0),
    "vessel_cut": FaultKind(cut_vessel, _vessels, 5.0, 45.0, voxels=1.0),
    "missing": FaultKind(lose_structure, _each_to_its_main_neighbour, 0.02, 4.0),
    "swapped": FaultKind(swap, _touching_pairs, 5.0, 45.0, voxels=1.0),
    "sides": FaultKind(exchange_sides, _sides, 0.01, 2.0),
    "island": FaultKind(add_island, _each_in_another, 5.0, 25.0, voxels=1.0),
    "hole": FaultKind(add_hole, _each, 5.0, 25.0, voxels=1.0),
    "slab": FaultKind(lose_slab, _each_or_heart, 1.0, 40.0),
    "coarse": FaultKind(coarsen, _heart, 1.0, 12.0, voxels=1.1),
    "slice_shift": FaultKind(shift_slices, _heart, 1.0, 25.0, voxels=1.0),
}
