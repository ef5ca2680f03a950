"""Frames of multi-frame files: what the header says of each, or of all at once. Source: DICOM PS3.3, C.7.6.16."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whqa.data.dicom.dicom_slices import Slice, slice_of


def frame_group(header: Any, frame: int, name: str) -> Any | None:
    """The item of a functional group that holds for a frame: its own, else that of all; None where there is none."""
    groups = [*header.PerFrameFunctionalGroupsSequence[frame : frame + 1]]
    groups += [*header.get("SharedFunctionalGroupsSequence", ())]
    found = (group[name].value for group in groups if name in group)
    return next((sequence[0] for sequence in found if sequence), None)


def planes(path: Path, name: str, file: int, header: Any) -> Iterator[Slice]:
    """The slices of a file, in its order.

    Args:
        path: of the whole, for messages.
        name: of the file.
        file: its number.
        header: a pydicom Dataset, of one frame or of many.

    Raises:
        InputError: one does not say where it lies.
    """
    shape = int(header.get("Columns") or 0), int(header.get("Rows") or 0)
    if "PerFrameFunctionalGroupsSequence" not in header:
        plane = tuple(header.get(key) for key in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
        yield slice_of(name, file, 0, plane, shape, path)
        return
    for frame in range(len(header.PerFrameFunctionalGroupsSequence)):
        where = frame_group(header, frame, "PlanePositionSequence")
        turned = frame_group(header, frame, "PlaneOrientationSequence")
        sizes = frame_group(header, frame, "PixelMeasuresSequence")
        plane = (
            where and where.get("ImagePositionPatient"),
            turned and turned.get("ImageOrientationPatient"),
            sizes and sizes.get("PixelSpacing"),
        )
        yield slice_of(f"frame {frame + 1} of {name}", file, frame, plane, shape, path)
