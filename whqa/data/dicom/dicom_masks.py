"""A mask as DICOM: one segmentation or one structure set, in a file, a folder or a zip archive."""

from __future__ import annotations

from pathlib import Path

from whqa.data.dicom.contours import read_contours
from whqa.data.dicom.dicom_files import DicomFile, read_headers, told_as_damaged
from whqa.data.dicom.seg_reading import read_segmentation
from whqa.data.dicom.series import DicomImage
from whqa.data.formats.volume_files import Grid, LayeredLabels, Volume
from whqa.errors import InputError
from whqa.structures import LabelScheme

# SOP classes: segments, a label map of segments (too young for the dictionaries of some libraries), contours.
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_CONTOURS = "1.2.840.10008.5.1.4.1.1.481.3"
_LISTED = 4


def read_dicom_mask(
    path: Path, image: Grid | Volume, keys: tuple[str, ...], stated: LabelScheme | None
) -> LayeredLabels:
    """The segments or regions as one label map of their numbers; contours on the image's grid, segments on their own.

    Args:
        path: of a file, or of a folder or zip archive that holds one mask.
        image: that the mask is of.
        keys: structures that are to be judged, for the advice.
        stated: which numbers are which structures; None leaves it to labels and codes.

    Raises:
        InputError: no mask or several, of another frame of reference than the image's, or one that cannot be read.
    """
    with told_as_damaged(path):
        file = _mask_file(path)
        _check_space(path, file, image)
        if _kind(file) == _CONTOURS:
            return read_contours(path, file.header, image, keys, stated)
        return read_segmentation(path, file, image, keys, stated)


def series_of_mask(path: Path) -> frozenset[str]:
    """UIDs of the series that a DICOM mask says it is of.

    Raises:
        InputError: as `read_dicom_mask`.
    """
    with told_as_damaged(path):
        header = _mask_file(path).header
        found = [item.get("SeriesInstanceUID") for item in header.get("ReferencedSeriesSequence") or ()]
        for frame in header.get("ReferencedFrameOfReferenceSequence") or ():
            for study in frame.get("RTReferencedStudySequence") or ():
                found += [item.get("SeriesInstanceUID") for item in study.get("RTReferencedSeriesSequence") or ()]
        return frozenset(str(uid) for uid in found if uid)


def _mask_file(path: Path) -> DicomFile:
    files = read_headers(path)
    masks = [file for file in files if _kind(file) in (*_SEGMENTATIONS, _CONTOURS)]
    if len(masks) == 1:
        return masks[0]
    if masks:
        names = ", ".join(file.name for file in masks[:_LISTED])
        raise InputError(f"{path}: holds {len(masks)} segmentations or structure sets ({names}); give one of the files")
    kinds = ", ".join(sorted({_name_of_kind(file) for file in files})[:_LISTED])
    raise InputError(f"{path}: holds no DICOM segmentation or structure set ({kinds}); give the mask of the scan")


def _kind(file: DicomFile) -> str:
    return str(file.header.get("SOPClassUID", ""))


def _name_of_kind(file: DicomFile) -> str:
    return str(getattr(file.header.get("SOPClassUID"), "name", "files of no class"))


def _check_space(path: Path, file: DicomFile, image: Grid | Volume) -> None:
    if not isinstance(image, DicomImage) or not image.source.frame_of_reference:
        return
    header = file.header
    regions = header.get("StructureSetROISequence") or ()
    stated = [header.get("FrameOfReferenceUID"), *(item.get("ReferencedFrameOfReferenceUID") for item in regions)]
    spaces = {str(uid) for uid in stated if uid}
    if spaces and image.source.frame_of_reference not in spaces:
        raise InputError(
            f"{path}: its frame of reference is not that of {image.path}; it is of another scan, or was registered to "
            "it: give the mask of this scan"
        )
