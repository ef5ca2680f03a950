"""Faults that segmentation programs and people make, put into a mask: drawn, recorded, replayed.

Each fault is drawn from a generator keyed by the seed and kept as a record from which it can be made again, the same on
every machine. It follows the mask's own geometry, in mm.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whqa.data.formats.volume_files import read_label, voxel_sizes, write_volume
from whqa.errors import InputError
from whqa.files import write_json
from whqa.masks.faults.fault import Fault
from whqa.masks.faults.fault_kinds import FAULTS
from whqa.masks.faults.scene import Labels, Scene
from whqa.structures import LabelScheme

__all__ = ["FAULTS", "HELD_OUT_FAULTS", "SEEN_FAULTS", "Fault", "corrupt", "draw_faults", "write_faulty_mask"]

HELD_OUT_FAULTS: tuple[str, ...] = ("coarse", "slice_shift")
"""Kinds that no network is trained on, to see how it does on faults it has never met."""

SEEN_FAULTS: tuple[str, ...] = tuple(kind for kind in FAULTS if kind not in HELD_OUT_FAULTS)

GROSS: tuple[float, float] = (0.6, 1.0)
"""Severities of faults that anyone sees."""

_ATTEMPTS = 12


def draw_faults(
    mask: Labels,
    n: int,
    seed: int,
    *,
    spacing: Sequence[float],
    structures: Sequence[str],
    kinds: Sequence[str] = SEEN_FAULTS,
    severity: tuple[float, float] = (0.0, 1.0),
) -> list[Fault]:
    """Faults that a mask can have, each of which changes it; no kind and no structure twice while there are others.

    Args:
        mask: label indices (D, H, W).
        n: how many.
        seed: of the draw.
        spacing: mm along D, H, W.
        structures: keys in the order of the indices 1..C.
        kinds: of `FAULTS`, to choose from.
        severity: from 0, a part of a border by about a voxel, to 1, gross; sizes are even on a log scale between.

    Returns:
        `n` faults to be made in this order; fewer where the mask is too small or has no structure for these kinds.

    Raises:
        InputError: the mask has no structure, or a kind is unknown.
    """
    _check_kinds(kinds)
    if not mask.any():
        raise InputError("no structure in the mask, so that nothing can be spoiled")
    rng = np.random.Generator(np.random.PCG64(seed))
    scene = Scene.of(mask, spacing, structures)
    faults: list[Fault] = []
    order: list[str] = []
    for _ in range(n * _ATTEMPTS):
        if len(faults) == n:
            break
        order = order or [str(kind) for kind in rng.permutation(list(kinds))]
        fault = _drawn(scene, order.pop(), {f.structure for f in faults}, severity, rng)
        if fault and (spoiled := _spoiled(scene, fault)):
            scene = spoiled
            faults.append(fault)
    return faults


def corrupt(mask: Labels, spacing: Sequence[float], structures: Sequence[str], faults: Sequence[Fault]) -> Labels:
    """The mask with these faults in it, one after the other; the same faults make the same mask on every machine.

    Args:
        mask: label indices (D, H, W); stays as it is.
        spacing: mm along D, H, W.
        structures: keys in the order of the indices 1..C.
        faults: see `draw_faults`. One whose structure the mask does not have changes nothing.

    Raises:
        InputError: a fault is of an unknown kind.
    """
    _check_kinds([fault.kind for fault in faults])
    scene = Scene.of(mask, spacing, structures)
    for fault in faults:
        if scene.inside(fault.structure).any():
            FAULTS[fault.kind].apply(scene, fault)
    return scene.labels


def write_faulty_mask(label: Path, scheme: LabelScheme, n: int, seed: int, target: Path) -> list[Fault]:
    """Write a copy of a label map with `n` gross faults, in the same file values; `<target>.json` says which.

    Raises:
        InputError: the label map is bad or empty, or there is another mask already, which may be somebody's work.
    """
    volume = read_label(label, scheme, announce=False)
    spacing = voxel_sizes(volume.affine).tolist()
    faults = draw_faults(volume.array, n, seed, spacing=spacing, structures=scheme.keys, severity=GROSS)
    spoiled = corrupt(volume.array, spacing, scheme.keys, faults)
    affine = volume.affine if volume.header is None else None
    if target.exists() and not _holds(target, scheme, spoiled):
        raise InputError(
            f"{target}: is another mask than these faults make; give another folder, or move it away: "
            f"mv {shlex.quote(str(target))} {shlex.quote(f'{target}.kept')}"
        )
    write_volume(target, scheme.to_values(spoiled), affine, volume.header)
    write_json(target.with_name(target.name.split(".")[0] + ".json"), [f.to_dict() for f in faults])
    return faults


def _holds(target: Path, scheme: LabelScheme, indices: npt.NDArray[np.integer]) -> bool:
    try:
        return bool(np.array_equal(read_label(target, scheme, announce=False).array, indices))
    except InputError:
        return False


def _check_kinds(kinds: Sequence[str]) -> None:
    for kind in kinds:
        if kind not in FAULTS:
            raise InputError(f"fault {kind!r}: must be one of {', '.join(FAULTS)}")


def _drawn(
    scene: Scene, kind: str, used: set[int], severity: tuple[float, float], rng: np.random.Generator
) -> Fault | None:
    """A fault of a kind, of a structure that is not yet used if there is one; None where no structure can have it."""
    targets = FAULTS[kind].targets(scene)
    if not targets:
        return None
    structures = sorted({structure for structure, _ in targets})
    structure = int(rng.choice([s for s in structures if s not in used] or structures))
    other = int(rng.choice([o for s, o in targets if s == structure]))
    mild, gross = severity
    share = rng.random()
    # more often near both ends: error rates of most kinds overlap in the middle, and shall be even on a log scale
    share *= share * (3 - 2 * share)
    size = FAULTS[kind].size(mild + share * (gross - mild), scene.finest)
    place = tuple(round(float(p), 3) for p in rng.uniform(0.1, 0.9, 3))
    return Fault(kind, structure, other, size, place, int(rng.integers(2**31)))


def _spoiled(scene: Scene, fault: Fault) -> Scene | None:
    """The scene with a fault in it; None where that changes nothing."""
    spoiled = Scene.of(scene.labels, scene.spacing.tolist(), scene.structures)
    FAULTS[fault.kind].apply(spoiled, fault)
    return None if np.array_equal(spoiled.labels, scene.labels) else spoiled
