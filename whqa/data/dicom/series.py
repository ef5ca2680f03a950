"""The CT or MR series of a folder, of a zip archive or of one multi-frame file, as a volume.

Geometry comes from the headers alone (`dicom_slices`), voxels from pydicom and its decoders, in the units
that the headers state (rescale slope and intercept, HU in CT).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from whqa.data.dicom.dicom_files import EXTRA, DicomFile, damaged, quiet, read_headers, told_as_damaged, with_voxels
from whqa.data.dicom.dicom_slices import Slice, SliceStack, stacked
from whqa.data.dicom.functional_groups import frame_group, planes
from whqa.data.formats.volume_files import Volume, convert_dicom
from whqa.errors import InputError
from whqa.files import printable

# SOP classes by their names in the standard.
_IMAGES = {
    "CT Image Storage": "ct",
    "Enhanced CT Image Storage": "ct",
    "Legacy Converted Enhanced CT Image Storage": "ct",
    "MR Image Storage": "mr",
    "Enhanced MR Image Storage": "mr",
    "Legacy Converted Enhanced MR Image Storage": "mr",
}
_LISTED = 8


@dataclass(frozen=True, eq=False)
class DicomSource:
    """What results need to be written back as DICOM.

    Attributes:
        headers: pydicom Datasets without voxels, in the order of the stack; one of a multi-frame file.
        places: number of the slice in the stack, for each frame in the order of the file; of single frames 0, 1, ...
    """

    headers: tuple[Any, ...]
    places: tuple[int, ...]

    @property
    def frame_of_reference(self) -> str:
        """UID of the space that positions are stated in; "" where the files leave it out."""
        return str(self.headers[0].get("FrameOfReferenceUID", ""))

    @property
    def series(self) -> str:
        """UID of the series."""
        return str(self.headers[0].get("SeriesInstanceUID", ""))


@dataclass(frozen=True, eq=False)
class DicomImage(Volume):
    """A series as a volume; its axes run along the rows, the columns and the slices.

    Attributes:
        modality: as the files state it.
        source: for results.
    """

    modality: Literal["ct", "mr"] = "ct"
    source: DicomSource = field(kw_only=True)


@dataclass(frozen=True)
class _Series:
    uid: str
    files: tuple[DicomFile, ...]

    @property
    def first(self) -> Any:
        return self.files[0].header

    @property
    def number(self) -> str:
        number = self.first.get("SeriesNumber")
        return "" if number is None else str(number)


def read_series(path: Path, chosen: str | None = None, meant: Collection[str] = ()) -> DicomImage:
    """Read the one CT or MR series of a folder, a zip archive or a multi-frame file.

    Args:
        path: of them.
        chosen: number or UID of the series that is wanted, where there are several.
        meant: UIDs of the series that the mask says it is of; they decide where nobody has chosen.

    Raises:
        InputError: no series, several, or one whose slices are no volume; the text names the cause and what helps.
    """
    with told_as_damaged(path):
        return _read(path, chosen, meant)


def _read(path: Path, chosen: str | None, meant: Collection[str]) -> DicomImage:
    files = read_headers(path)
    if len(files) == 1 and not path.is_dir() and not _has_frames(files[0].header):
        _series_of(path, files)
        raise InputError(f"{path}: one slice of a series; give its folder, {path.parent}")
    series, notes = _chosen(path, _series_of(path, files), chosen, meant)
    modality = _IMAGES[series.first.SOPClassUID.name]
    stack, slices, headers = _stack(path, series)
    array = _voxels(path, series, slices, stack)
    if not np.isfinite(array).all() or array.min() == array.max():
        raise InputError(f"{path}: empty image, every voxel has the value {array.flat[0]:g}; export the series again")
    return DicomImage(
        array,
        stack.affine,
        path,
        notes=notes,
        in_memory=True,
        modality="ct" if modality == "ct" else "mr",
        source=DicomSource(headers, stack.places if len(series.files) == 1 else tuple(range(len(headers)))),
    )


def _has_frames(header: Any) -> bool:
    return "PerFrameFunctionalGroupsSequence" in header


def _series_of(path: Path, files: Iterable[DicomFile]) -> list[_Series]:
    """The series of CT or MR images; copies of a file are left out, and so is whatever has no patient's place."""
    groups: dict[str, dict[str, DicomFile]] = defaultdict(dict)
    others: set[str] = set()
    for file in files:
        kind = getattr(file.header.get("SOPClassUID"), "name", "")
        if kind in _IMAGES:
            group = groups[str(file.header.get("SeriesInstanceUID", ""))]
            group.setdefault(str(file.header.get("SOPInstanceUID", file.name)), file)
        else:
            others.add(kind or "files of no class")
    if not groups:
        there = ", ".join(sorted(others)[:_LISTED])
        raise InputError(f"{path}: holds DICOM files but no CT or MR image ({there}); give the folder of the scan")
    series = [_Series(uid, tuple(group.values())) for uid, group in groups.items()]
    return sorted(series, key=lambda one: (int(one.first.get("SeriesNumber") or 0), one.uid))


def _chosen(
    path: Path, series: Sequence[_Series], chosen: str | None, meant: Collection[str]
) -> tuple[_Series, tuple[str, ...]]:
    named = "; ".join(f"--series {_handle(one, series)} ({_called(one)})" for one in series[:_LISTED])
    named += f" and {len(series) - _LISTED} more" if len(series) > _LISTED else ""
    if chosen is not None:
        found = [one for one in series if chosen.strip() in (one.uid, one.number)]
        if len(found) == 1:
            return found[0], ()
        raise InputError(
            f"{path}: --series {chosen} is {'several' if found else 'none'} of its series; there are {named}"
        )
    if len(series) == 1:
        return series[0], ()
    of_mask = [one for one in series if one.uid in meant]
    if len(of_mask) == 1:
        return of_mask[0], (
            f"of its {len(series)} series the one that the mask names was taken, {_called(of_mask[0])}",
        )
    scans = [one for one in series if not _is_localizer(one)]
    if len(scans) == 1:
        return scans[0], (f"its localizers were left out, {_called(scans[0])} was taken",)
    raise InputError(f"{path}: holds {len(series)} series; choose one: {named}")


def _handle(series: _Series, others: Sequence[_Series]) -> str:
    numbers = [one.number for one in others]
    return series.number if series.number and numbers.count(series.number) == 1 else series.uid


def _called(series: _Series) -> str:
    header = series.first
    text = printable(str(header.get("SeriesDescription", "")))[:60]
    count = int(header.get("NumberOfFrames") or 1) if len(series.files) == 1 else len(series.files)
    words = [str(header.get("Modality", "")), f'"{text}"' if text else "", f"{count} slice(s)"]
    return " ".join(filter(None, words))


def _is_localizer(series: _Series) -> bool:
    return "LOCALIZER" in [str(word).upper() for word in series.first.get("ImageType") or ()]


def _stack(path: Path, series: _Series) -> tuple[SliceStack, list[Slice], tuple[Any, ...]]:
    """The stack, its slices, and the headers in its order."""
    framed = [file for file in series.files if _has_frames(file.header)]
    if framed and len(series.files) > 1:
        raise InputError(
            f"{path}: its series has {len(series.files)} files of many frames each; give one of them, such as "
            f"{framed[0].name}"
        )
    slices = [
        slice_ for number, file in enumerate(series.files) for slice_ in planes(path, file.name, number, file.header)
    ]
    stack = stacked(path, slices)
    if len(slices) == 1:
        raise InputError(f"{path}: {slices[0].name} is one slice alone; give the folder of the whole series")
    if framed:
        return stack, slices, (series.first,)
    headers = [None] * len(slices)
    for slice_, place in zip(slices, stack.places, strict=True):
        headers[place] = series.files[slice_.file].header
    return stack, slices, tuple(headers)


def _voxels(path: Path, series: _Series, slices: Sequence[Slice], stack: SliceStack) -> npt.NDArray[np.float32]:
    try:
        array = np.empty(stack.shape, np.float32, order="F")
    except MemoryError:
        raise InputError(f"{path}: {np.prod(stack.shape):,} voxels do not fit into memory; crop the scan") from None
    places = {(slice_.file, slice_.frame): place for slice_, place in zip(slices, stack.places, strict=True)}
    for number, file in enumerate(series.files):
        for frame, pixels in enumerate(_frames(path, file)):
            array[:, :, places[number, frame]] = pixels.T
    return array


def _frames(path: Path, file: DicomFile) -> Iterable[npt.NDArray[Any]]:
    """The frames of a file (rows, columns), rescaled."""
    from pydicom.pixels import apply_modality_lut, pixel_array

    where = f"{path}: {file.name}" if path.is_dir() or path.name != file.name else f"{path}"
    _check_pixels(where, file.header)
    _check_decoder(path, where, file.header)
    try:
        with quiet():
            data = with_voxels(file)
            pixels = pixel_array(data)
            if not _has_frames(data):
                return [np.asarray(apply_modality_lut(pixels, data))]
            return [_rescaled(frame, data, number) for number, frame in enumerate(pixels)]
    except Exception as error:
        # whatever a damaged file makes of a decoder
        raise damaged(where, error) from None


def _rescaled(frame: npt.NDArray[Any], data: Any, number: int) -> npt.NDArray[Any]:
    own = frame_group(data, number, "PixelValueTransformationSequence")
    return frame if own is None else frame * float(own.RescaleSlope) + float(own.RescaleIntercept)


def _check_pixels(where: str, header: Any) -> None:
    if int(header.get("SamplesPerPixel", 1)) != 1 or header.get("PhotometricInterpretation") == "PALETTE COLOR":
        raise InputError(f"{where}: a picture in colours, not a scan; give the series that it was made from")


def _check_decoder(path: Path, where: str, header: Any) -> None:
    """Whether the voxels can be unpacked; tried before a file is read, as several programs may be able to."""
    from pydicom.pixels import get_decoder

    syntax = getattr(getattr(header, "file_meta", None), "TransferSyntaxUID", None)
    if syntax is None or not syntax.is_compressed:
        return
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise InputError(
            f"{where}: compressed by {syntax.name}, which is no format of scans; export it again"
        ) from None
    if decoder.is_available:
        return
    gdcm = any("gdcm" in lacking for lacking in decoder.missing_dependencies)
    raise InputError(
        f"{where}: compressed by {syntax.name}, for which no decoder is installed; "
        + (EXTRA if gdcm else f"export it without compression, or {convert_dicom(path)}")
    )
