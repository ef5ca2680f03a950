"""DICOM structure sets (RTSTRUCT) -> label map on the grid of an image. Source: DICOM PS3.3, A.19 and C.8.8.6.

A voxel belongs to a region where its centre lies inside an odd number of the contours of its slice, so that a contour
within another is a hole. Of a centre that lies on a contour, left and upper edges are inside, so that regions that
share an edge share no voxel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from whqa.data.dicom.heart_parts import Part, PartsCanvas, code_of, parts_of_heart
from whqa.data.formats.volume_files import Grid, LayeredLabels, Volume
from whqa.errors import InputError
from whqa.structures import LabelScheme

_WHAT = "ROI"
_LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
# Of a slice: how far a contour may leave its plane or lie from the middle of one.
_IN_PLANE, _ON_SLICE = 0.1, 0.25
# Of the slices between a region's first and last: more without a contour are no gap but another spacing.
_MOST_GAPS = 1 / 3
# Contours are drawn by hand: neighbours overlap at their borders.
_OVERLAP = 0.05
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")

_Array = npt.NDArray[np.float64]


class Contour(NamedTuple):
    """A polygon on one slice of the image: number of the slice, corners (N, 2) in voxels along the two other axes."""

    place: int
    corners: _Array


def read_contours(
    path: Path, header: Any, image: Grid | Volume, keys: tuple[str, ...], stated: LabelScheme | None
) -> LayeredLabels:
    """The regions as one label map of their numbers, on the image's grid.

    Args:
        path: of the file, for messages.
        header: a pydicom Dataset of a structure set.
        image: whose grid is wanted.
        keys, stated: as of `whqa.data.dicom.heart_parts.parts_of_heart`.

    Raises:
        InputError: unclear regions, contours that do not lie on the image's slices, or structures that overlap.
    """
    regions = {
        int(item.ROINumber): str(item.get("ROIName") or "") for item in header.get("StructureSetROISequence") or ()
    }
    observed = {int(item.ReferencedROINumber): item for item in header.get("RTROIObservationsSequence") or ()}
    codes = {n: code_of(item.get("RTROIIdentificationCodeSequence")) for n, item in observed.items()}
    listed = [Part(number, name, codes.get(number)) for number, name in regions.items()]
    parts = parts_of_heart(path, listed, keys, stated, _WHAT)
    points = {number: _points(path, header, number, image) for number in parts.keys}
    axis = _stack_axis(path, [polygon for polygons in points.values() for polygon in polygons])
    canvas, notes, outside = PartsCanvas(image.shape, parts), list(parts.notes), 0
    for number, polygons in points.items():
        slices = defaultdict(list)
        for contour in (_on_slice(path, polygon, axis, parts.keys[number]) for polygon in polygons):
            slices[contour.place].append(contour.corners)
        notes += _gaps(path, sorted(slices), parts.keys[number])
        for place, contours in slices.items():
            if not 0 <= place < image.shape[axis]:
                outside += 1
                continue
            view = tuple(place if a == axis else slice(None) for a in range(3))
            canvas.paint(number, view, filled(contours, tuple(n for a, n in enumerate(image.shape) if a != axis)))
    if outside:
        notes.append(f"{outside} slice(s) of its contours lie outside of the image and were left out")
    notes += canvas.checked(path, _WHAT, _OVERLAP)
    return LayeredLabels(canvas.array, image.affine, path, None, tuple(notes), (), True, names=parts.names)


def filled(contours: Sequence[_Array], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """The pixels of a plane whose centres lie inside an odd number of polygons.

    Args:
        contours: corners (N, 2) each, in pixels, whose centres have whole numbers.
        shape: of the plane.
    """
    inside = np.zeros(shape, bool)
    columns = np.arange(shape[1])
    for corners in contours:
        for (u0, v0), (u1, v1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            low, high = sorted((u0, u1))
            first, last = max(0, int(np.ceil(low))), min(shape[0], int(np.ceil(high)))
            if first < last:
                rows = np.arange(first, last)
                crossing = v0 + (rows - u0) * (v1 - v0) / (u1 - u0)
                inside[first:last] ^= columns >= crossing[:, None]
    return inside


def _points(path: Path, header: Any, number: int, image: Grid | Volume) -> list[_Array]:
    """The closed contours of a region, (N, 3) each in voxels of the image."""
    to_voxel, found, kinds = np.linalg.inv(image.affine), [], set()
    for region in header.get("ROIContourSequence") or ():
        if int(region.ReferencedROINumber) != number:
            continue
        for item in region.get("ContourSequence") or ():
            kinds.add(str(item.get("ContourGeometricType")))
            numbers = np.array(item.get("ContourData") or (), dtype=float)
            if item.get("ContourGeometricType") in _CLOSED and numbers.size >= 9 and numbers.size % 3 == 0:
                points = numbers.reshape(-1, 3) * _LPS_TO_RAS
                found.append(points @ to_voxel[:3, :3].T + to_voxel[:3, 3])
    if kinds and not found:
        raise InputError(
            f"{path}: its {_WHAT} {number} has no closed contour ({', '.join(sorted(kinds))}); export it as "
            "a segmentation"
        )
    return found


def _stack_axis(path: Path, polygons: Sequence[_Array]) -> int:
    """The image's axis along which the contours are stacked."""
    if not polygons:
        raise InputError(f"{path}: empty mask, its {_WHAT}s have no contours")
    spread = np.max([np.ptp(polygon, axis=0) for polygon in polygons], axis=0)
    if spread.min() > _IN_PLANE:
        raise InputError(
            f"{path}: its contours are not parallel to the image's slices; give the series that they were drawn on"
        )
    return int(spread.argmin())


def _on_slice(path: Path, polygon: _Array, axis: int, key: str) -> Contour:
    height = float(polygon[:, axis].mean())
    if abs(height - round(height)) > _ON_SLICE:
        raise InputError(
            f"{path}: its contours of {key} lie between the image's slices; give the series that they were drawn on"
        )
    return Contour(round(height), np.delete(polygon, axis, axis=1))


def _gaps(path: Path, places: Sequence[int], key: str) -> Iterator[str]:
    """Slices of a region that nobody drew."""
    if not places:
        return
    span = places[-1] - places[0] + 1
    if span - len(places) > _MOST_GAPS * span:
        raise InputError(
            f"{path}: {key} has contours on {len(places)} of {span} slices of the image alone; give the series that "
            "they were drawn on, or fill the slices between in the program that drew them"
        )
    if span > len(places):
        yield f"{key} has no contour on {span - len(places)} of {span} slices; it is empty there"
