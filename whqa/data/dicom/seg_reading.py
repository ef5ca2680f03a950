"""DICOM Segmentation (SEG) -> label map. Source: DICOM PS3.3, A.51 and C.8.20.

Frames lie where their positions say; slices without a frame are empty. Fractional frames count from half on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whqa.data.dicom.dicom_files import DicomFile, damaged, quiet, with_voxels
from whqa.data.dicom.dicom_slices import SliceStack, stacked
from whqa.data.dicom.functional_groups import frame_group, planes
from whqa.data.dicom.heart_parts import Part, PartsCanvas, code_of, parts_of_heart
from whqa.data.formats.volume_files import Grid, LayeredLabels, Volume
from whqa.errors import InputError
from whqa.structures import LabelScheme

_WHAT = "segment"
# Of a voxel.
_SAME_GRID = 0.1


def read_segmentation(
    path: Path, file: DicomFile, image: Grid | Volume, keys: tuple[str, ...], stated: LabelScheme | None
) -> LayeredLabels:
    """The segments as one label map of their numbers, on the grid of the segmentation.

    Slices at both ends that have no frames are added where the rest is the image's grid.

    Args:
        path: of the file, for messages.
        file: with the header of a segmentation.
        image: that it is of.
        keys, stated: as of `whqa.data.dicom.heart_parts.parts_of_heart`.

    Raises:
        InputError: unclear segments, structures that overlap, frames without a place, or damaged voxels.
    """
    header = file.header
    # a label map may describe its background as number 0
    segments = [_segment(item) for item in header.get("SegmentSequence") or () if int(item.SegmentNumber)]
    parts = parts_of_heart(path, segments, keys, stated, _WHAT)
    if "PerFrameFunctionalGroupsSequence" not in header or not len(header.PerFrameFunctionalGroupsSequence):
        raise InputError(f"{path}: a segmentation without frames; export it again")
    slices = list(planes(path, file.name, 0, header))
    measures = frame_group(header, 0, "PixelMeasuresSequence")
    step = measures and (measures.get("SpacingBetweenSlices") or measures.get("SliceThickness"))
    stack = _with_empty_ends(stacked(path, slices, float(step) if step else None, sparse=True), image)
    canvas, rank = PartsCanvas(stack.shape, parts), [*parts.keys]
    frames = [(number, frame) for frame in range(len(slices)) for number in _numbers(header, frame, rank)]
    pixels = _Frames(path, file)
    for number, frame in sorted(frames, key=lambda one: rank.index(one[0])):
        place = (slice(None), slice(None), stack.places[frame])
        canvas.paint(number, place, pixels.of(number, frame).T)
    notes = (*parts.notes, *canvas.checked(path, _WHAT, 0))
    return LayeredLabels(canvas.array, stack.affine, path, None, notes, (), True, names=parts.names)


def _segment(item: Any) -> Part:
    return Part(
        int(item.SegmentNumber),
        str(item.get("SegmentLabel") or ""),
        code_of(item.get("SegmentedPropertyTypeCodeSequence")),
    )


def _numbers(header: Any, frame: int, wanted: list[int]) -> Iterator[int]:
    """The segments that a frame may show: the one that it says, or any of a label map."""
    if header.get("SegmentationType") == "LABELMAP":
        yield from wanted
        return
    own = frame_group(header, frame, "SegmentIdentificationSequence")
    number = int(own.ReferencedSegmentNumber) if own is not None else 1
    if number in wanted:
        yield number


def _with_empty_ends(stack: SliceStack, image: Grid | Volume) -> SliceStack:
    """The stack with the slices of the image that it lacks, where all others are the image's."""
    shift = np.linalg.inv(image.affine) @ stack.affine - np.eye(4)
    first = round(float(shift[2, 3]))
    shift[2, 3] -= first
    # the corner that is farthest from the first voxel
    off = (np.abs(shift) @ [*stack.shape, 1]).max()
    room = image.shape[2] - first - stack.shape[2]
    if off > _SAME_GRID or stack.shape[:2] != image.shape[:2] or first < 0 or room < 0:
        return stack
    places = tuple(place + first for place in stack.places)
    return SliceStack(places, (*stack.shape[:2], image.shape[2]), image.affine)


class _Frames:
    """The pixels of a segmentation's frames, decoded one by one."""

    def __init__(self, path: Path, file: DicomFile) -> None:
        self._path, self._data = path, with_voxels(file)
        self._kind = str(file.header.get("SegmentationType", "BINARY"))
        self._half = int(file.header.get("MaximumFractionalValue") or 255) / 2

    def of(self, number: int, frame: int) -> npt.NDArray[np.bool_]:
        """Where a frame shows a segment, (rows, columns)."""
        from pydicom.pixels import pixel_array

        try:
            with quiet():
                several = int(self._data.get("NumberOfFrames") or 1) > 1
                pixels = pixel_array(self._data, index=frame if several else None)
        except Exception as error:
            # whatever a damaged file makes of a decoder
            raise damaged(str(self._path), error) from None
        if self._kind == "LABELMAP":
            return np.asarray(pixels == number)
        return np.asarray(pixels >= self._half if self._kind == "FRACTIONAL" else pixels != 0)
