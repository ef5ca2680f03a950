"""Sizes and parts of the structures of a label map, and what is implausible about them.

Volumes are compared with published ones of healthy adults, from the smallest (women at end systole) to the largest (men
at end diastole), mean -/+ 2 SD:

    left ventricle   18-218 ml   end-systolic 42 ± 12 (women), end-diastolic 160 ± 29 (men); Hudsmith et al., J
                                 Cardiovasc Magn Reson 2005;7:775-782
    right ventricle  20-256 ml   end-systolic 56 ± 18 (women), end-diastolic 190 ± 33 (men); the same
    left atrium      23-163 ml   full 103 ± 30 (men), 89 ± 21 (women), who empty about half of it; the same
    right atrium     41-208 ml   full 77 ± 11 ml/m², taken at 1.5 (emptied to a half) and 2.1 m² of body surface;
                                 Järvinen et al., Radiology 1994;191:137-142
    myocardium       53-168 ml   mass 134 ± 21 g, 98 ± 21 g at 1.05 g/ml; Kawel-Boehm et al., JCMR 2015;17:29
    aorta            19-300 ml   24.9-41.9 mm across (Rogers et al., Am J Cardiol 2013;111:1510-1516), from 40 mm of the
                                 ascending part to the whole of it
    pulmonary artery  9-75 ml    19.5-30.7 mm across (Truong et al., Circ Cardiovasc Imaging 2012;5:147-154), 30-100 mm
                                 drawn

Disease goes far beyond both ends, so a single structure is reported beyond a factor of 3 and the ventricles with their
wall together, which vary less, beyond 1.5. What is left are mistakes: a wrong spacing, a swapped label, a slip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.data.findings.finding import Finding

VOLUMES_ML: Mapping[str, tuple[float, float]] = {
    "lv": (18, 218),
    "rv": (20, 256),
    "la": (23, 163),
    "ra": (41, 208),
    "myo": (53, 168),
    "ao": (19, 300),
    "pa": (9, 75),
}
FACTOR = 3.0
FACTOR_TOGETHER = 1.5
_TOGETHER = ("lv", "rv", "myo")
# A second part counts from this share of the structure on: short-axis slices of 10 mm tear off pieces of up to 4 %.
_PART_SHARE, _PART_ML = 0.05, 0.5
# The great vessels leave every scan; a chamber should not.
_WALL_MM = 25.0
_CHAMBERS = ("lv", "rv", "la", "ra", "myo")
EDGE_SHARE = 0.02
"""From this share of its voxels at the scan's edge on, a chamber may be cut."""


@dataclass(frozen=True)
class Measured:
    """One structure of a label map.

    Attributes:
        volume_ml: all of it.
        parts_ml: its connected parts (26 neighbours), largest first.
        centroid: (3,) RAS mm.
        holds_centre: whether the voxel at its centroid is one of its own, as of a cavity, not of a wall around one.
        edge_share: the part of its voxels that lie in the outermost slices, of the three axes the largest; slices along
            the stack of a thick-sliced scan do not count, as it ends where the heart does.
    """

    volume_ml: float
    parts_ml: tuple[float, ...]
    centroid: npt.NDArray[np.float64]
    holds_centre: bool
    edge_share: float


def measure(
    indices: npt.NDArray[np.uint8], affine: npt.NDArray[np.float64], keys: Sequence[str], stack: int | None = None
) -> dict[str, Measured]:
    """The structures that are present, in the order of `keys`.

    Args:
        indices: (X, Y, Z), 0 background, 1..C.
        affine: voxel -> RAS mm.
        keys: structure of each index from 1 on.
        stack: axis along which thick slices are stacked, or None.
    """
    # in the order of memory, in which files are read, it takes a third of the time
    boxes = [box and box[::-1] for box in ndimage.find_objects(indices.T, max_label=len(keys))]
    # of a sheared grid less than the product of its spacings
    voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    axes = tuple(axis for axis in range(3) if axis != stack)
    return {
        key: _measured(indices[box] == i, box, indices.shape, affine, voxel_ml, axes)
        for i, (key, box) in enumerate(zip(keys, boxes, strict=True), start=1)
        if box is not None
    }


def _measured(
    inside: npt.NDArray[np.bool_],
    box: tuple[slice, slice, slice],
    shape: Sequence[int],
    affine: npt.NDArray[np.float64],
    voxel_ml: float,
    axes: Sequence[int],
) -> Measured:
    along = [inside.sum(axis=tuple(j for j in range(3) if j != axis)) for axis in range(3)]
    n = int(along[0].sum())
    centre = [s.start + float(np.arange(c.size) @ c) / n for s, c in zip(box, along, strict=True)]
    at_edge = [c[0] * (box[a].start == 0) + c[-1] * (box[a].stop == shape[a]) for a, c in enumerate(along) if a in axes]
    parts, _ = ndimage.label(inside, structure=np.ones((3, 3, 3)))
    sizes = np.sort(np.bincount(parts.ravel())[1:])[::-1]
    return Measured(
        n * voxel_ml,
        tuple(float(size) * voxel_ml for size in sizes),
        (affine @ [*centre, 1])[:3],
        bool(inside[tuple(round(c - s.start) for c, s in zip(centre, box, strict=True))]),
        float(max(at_edge)) / n,
    )


def label_findings(measured: Mapping[str, Measured], keys: Sequence[str]) -> Iterator[Finding]:
    """Everything that sizes and parts say about one label map."""
    if not measured:
        yield Finding("error", "empty-label", "the label map is all background; draw something, or remove the file")
        return
    yield from missing(measured, keys)
    yield from wall_apart(measured)
    yield from disconnected(measured)
    yield from implausible(measured)
    yield from cut_structures(measured)


def missing(measured: Mapping[str, Measured], keys: Sequence[str]) -> Iterator[Finding]:
    """Structures of the scheme that the label map lacks."""
    absent = [key for key in keys if key not in measured]
    if absent:
        message = f"no {', '.join(absent)} in the label map; is it drawn under another value, or not at all?"
        yield Finding("warning", "missing-structure", message)


def disconnected(measured: Mapping[str, Measured]) -> Iterator[Finding]:
    """Structures with a second part of 5 % of their volume or more (and of half a millilitre)."""
    for key, structure in measured.items():
        first, *others = structure.parts_ml
        large = [ml for ml in others if ml >= max(_PART_SHARE * structure.volume_ml, _PART_ML)]
        if large:
            parts = ", ".join(f"{ml:.1f}" for ml in [first, *large][:4])
            message = f"{key} lies in {1 + len(large)} separate parts ({parts} ml); look for a slip of pen or label"
            yield Finding("warning", "disconnected-structure", message)


def wall_apart(measured: Mapping[str, Measured]) -> Iterator[Finding]:
    """A left ventricle that its wall does not surround; of the 99 label maps of ACDC, all do, within 9 mm."""
    if "lv" not in measured or "myo" not in measured:
        return
    lv, myo = measured["lv"], measured["myo"]
    apart = float(np.linalg.norm(lv.centroid - myo.centroid))
    said = ""
    if apart > _WALL_MM:
        said = f"myo should surround lv but lies {apart:.0f} mm from it"
    elif myo.holds_centre and not lv.holds_centre:
        said = "lv surrounds myo, which should be its wall"
    if said:
        yield Finding("warning", "exchanged-labels", f"{said}; are label values exchanged?")


def implausible(measured: Mapping[str, Measured]) -> Iterator[Finding]:
    """Structures, and ventricles with wall together, far outside the volumes of adults."""
    for key, structure in measured.items():
        if key in VOLUMES_ML:
            said = _beyond(key, [structure], VOLUMES_ML[key], FACTOR)
            if said:
                yield Finding("warning", "implausible-volume", said)
    if all(key in measured for key in _TOGETHER):
        low, high = (sum(VOLUMES_ML[key][end] for key in _TOGETHER) for end in (0, 1))
        said = _beyond(" + ".join(_TOGETHER), [measured[key] for key in _TOGETHER], (low, high), FACTOR_TOGETHER)
        if said:
            yield Finding("warning", "implausible-heart", said)


def _beyond(what: str, structures: Sequence[Measured], normal: tuple[float, float], factor: float) -> str:
    volume = sum(s.volume_ml for s in structures)
    if normal[0] / factor <= volume <= normal[1] * factor:
        return ""
    size = "small" if volume < normal[0] else "large"
    cut_off = size == "small" and any(s.edge_share > 0 for s in structures)
    return (
        f"{what} of {volume:.3g} ml is implausibly {size} (healthy adults {normal[0]:g}-{normal[1]:g} ml)"
        f"{', unless the edge of the scan cuts it' if cut_off else ''}; check the spacing and the label values"
    )


def cut_structures(measured: Mapping[str, Measured]) -> Iterator[Finding]:
    """Chambers that lie at the scan's edge with 2 % of their voxels or more."""
    touching = [key for key in _CHAMBERS if key in measured and measured[key].edge_share >= EDGE_SHARE]
    if touching:
        message = f"{', '.join(touching)} at the edge of the scan, which may cut part of the heart off; see a preview"
        yield Finding("note", "cut-structure", message)
