"""Faults that segmentation programs make, put into a good mask: for demonstrations and tests of what judges masks.

Each fault is drawn from a generator keyed by the seed and kept as a record from which it can be made again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.data.formats.volume_files import read_label, voxel_sizes, write_volume
from whqa.errors import InputError
from whqa.files import write_json
from whqa.structures import LabelScheme

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: of `FAULTS`.
        structure: label index that is changed.
        other: label index that takes its place; 0 is background.
        size: mm; how far the fault reaches.
        place: of its centre along each axis, as a share of the structure's extent.
    """

    kind: str
    structure: int
    other: int
    size: float
    place: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", tuple(self.place))

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `Fault(**...)` returns it."""
        return asdict(self) | {"place": list(self.place)}


def draw_faults(mask: Labels, n: int, seed: int) -> list[Fault]:
    """`n` faults for the structures that a mask has, no structure twice while there are enough of them."""
    rng = np.random.default_rng(seed)
    present = [int(i) for i in np.unique(mask) if i]
    if not present:
        raise InputError("no structure in the mask, so that nothing can be spoiled")
    chosen = [i for _ in range(-(-n // len(present))) for i in rng.permutation(present)][:n]
    kinds = [k for _ in range(-(-n // len(FAULTS))) for k in rng.permutation(list(FAULTS))][:n]
    faults = []
    for kind, structure in zip(kinds, chosen, strict=True):
        near = _neighbours(mask, structure)
        other = int(rng.choice(near)) if kind == "swapped" and near else 0
        place = tuple(float(p) for p in rng.uniform(0.2, 0.8, 3))
        faults.append(Fault(str(kind), int(structure), other, float(rng.uniform(*_SIZES[kind])), place))
    return faults


def corrupt(mask: Labels, spacing: Sequence[float], faults: Sequence[Fault]) -> Labels:
    """The mask with these faults in it, one after the other.

    Args:
        mask: label indices (X, Y, Z).
        spacing: mm along X, Y, Z.
        faults: see `draw_faults`.

    Raises:
        InputError: a fault is of an unknown kind.
    """
    spoiled = mask.copy()
    for fault in faults:
        if fault.kind not in FAULTS:
            raise InputError(f"fault {fault.kind!r}: must be one of {', '.join(FAULTS)}")
        of_structure = spoiled == fault.structure
        if of_structure.any():
            FAULTS[fault.kind](spoiled, of_structure, np.asarray(spacing, float), fault)
    return spoiled


def write_faulty_mask(label: Path, scheme: LabelScheme, n: int, seed: int, target: Path) -> list[Fault]:
    """Write a copy of a label map with `n` faults, in the same file values; `<target>.json` says which.

    Raises:
        InputError: the label map is bad or empty.
    """
    volume = read_label(label, scheme, announce=False)
    faults = draw_faults(volume.array, n, seed)
    spoiled = corrupt(volume.array, voxel_sizes(volume.affine).tolist(), faults)
    affine = volume.affine if volume.header is None else None
    write_volume(target, scheme.to_values(spoiled), affine, volume.header)
    write_json(target.with_name(target.name.split(".")[0] + ".json"), [f.to_dict() for f in faults])
    return faults


def _shrunk(mask: Labels, of_structure: npt.NDArray[np.bool_], spacing: npt.NDArray[Any], fault: Fault) -> None:
    depth = ndimage.distance_transform_edt(of_structure, sampling=spacing)
    mask[of_structure & (depth <= fault.size)] = 0


def _grown(mask: Labels, of_structure: npt.NDArray[np.bool_], spacing: npt.NDArray[Any], fault: Fault) -> None:
    distance = ndimage.distance_transform_edt(~of_structure, sampling=spacing)
    mask[(mask == 0) & (distance <= fault.size)] = fault.structure


def _slab(mask: Labels, of_structure: npt.NDArray[np.bool_], spacing: npt.NDArray[Any], fault: Fault) -> None:
    axis = int(np.argmax(spacing))
    along = np.abs(np.arange(mask.shape[axis]) - _centre(of_structure, fault)[axis]) * spacing[axis]
    lost = np.moveaxis(np.broadcast_to(along <= fault.size, np.moveaxis(mask, axis, -1).shape), -1, axis)
    mask[of_structure & lost] = 0


def _swapped(mask: Labels, of_structure: npt.NDArray[np.bool_], spacing: npt.NDArray[Any], fault: Fault) -> None:
    mask[of_structure & _ball(mask, of_structure, spacing, fault)] = fault.other


def _hole(mask: Labels, of_structure: npt.NDArray[np.bool_], spacing: npt.NDArray[Any], fault: Fault) -> None:
    mask[of_structure & _ball(mask, of_structure, spacing, fault)] = 0


def _island(mask: Labels, of_structure: npt.NDArray[np.bool_], spacing: npt.NDArray[Any], fault: Fault) -> None:
    centre = np.asarray(fault.place) * np.asarray(mask.shape)
    mask[(mask == 0) & (_distance(mask.shape, centre, spacing) <= fault.size)] = fault.structure


FAULTS: dict[str, Callable[[Labels, npt.NDArray[np.bool_], npt.NDArray[Any], Fault], None]] = {
    "shrunk": _shrunk,
    "grown": _grown,
    "slab": _slab,
    "swapped": _swapped,
    "hole": _hole,
    "island": _island,
}
# mm
_SIZES = {
    "shrunk": (3.0, 6.0),
    "grown": (3.0, 6.0),
    "slab": (6.0, 15.0),
    "swapped": (15.0, 30.0),
    "hole": (8.0, 15.0),
    "island": (5.0, 10.0),
}


def _neighbours(mask: Labels, structure: int) -> list[int]:
    around = ndimage.binary_dilation(mask == structure)
    return [int(i) for i in np.unique(mask[around]) if i not in (0, structure)]


def _centre(of_structure: npt.NDArray[np.bool_], fault: Fault) -> npt.NDArray[np.float64]:
    box = ndimage.find_objects(of_structure.astype(np.uint8))[0]
    return np.array([s.start + p * (s.stop - s.start) for s, p in zip(box, fault.place, strict=True)])


def _ball(
    mask: Labels, of_structure: npt.NDArray[np.bool_], spacing: npt.NDArray[Any], fault: Fault
) -> npt.NDArray[np.bool_]:
    return _distance(mask.shape, _centre(of_structure, fault), spacing) <= fault.size


def _distance(
    shape: Sequence[int], centre: npt.NDArray[np.float64], spacing: npt.NDArray[Any]
) -> npt.NDArray[np.float64]:
    axes = np.ogrid[tuple(slice(0, n) for n in shape)]
    return np.sqrt(sum(((a - c) * s) ** 2 for a, c, s in zip(axes, centre, spacing, strict=True)))
