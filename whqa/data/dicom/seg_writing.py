"""A label map as DICOM segmentation of the series that it lies on, through highdicom.

Patient, study and frame of reference are those of the series; series and instance are new. Frames that show nothing
are left out, as the standard allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from whqa import __version__
from whqa.data.dicom.dicom_files import quiet
from whqa.data.dicom.heart_parts import STRUCTURE_CODES, Code
from whqa.data.dicom.series import DicomSource
from whqa.errors import InputError
from whqa.files import atomic_path

_SCHEME, _OWN_SCHEME = "SCT", "99WHQA"
_STRUCTURE = Code("91723000", "Anatomical Structure")
_CONCEPT = Code("309825002", "Spatial and Relational Concept")


class CodedSegment(NamedTuple):
    """What a value of a label map stands for: its name, its code and the scheme and category of that."""

    label: str
    code: Code
    scheme: str
    category: Code


ERROR_SEGMENT = CodedSegment("predicted error", Code("PREDERR", "Predicted segmentation error"), _OWN_SCHEME, _CONCEPT)
"""Voxels that are predicted to be wrong."""


def structure_segments(keys: Sequence[str], titles: Sequence[str]) -> list[CodedSegment]:
    """Structures in the order of their indices; those without a code of SNOMED CT get one of whqa."""
    coded = {key: (code, _SCHEME) for key, code in STRUCTURE_CODES.items()}
    own = {key: (Code(key[:16], title), _OWN_SCHEME) for key, title in zip(keys, titles, strict=True)}
    found = own | coded
    return [CodedSegment(title, *found[key], _STRUCTURE) for key, title in zip(keys, titles, strict=True)]


def write_segmentation(
    path: Path,
    source: DicomSource,
    labels: npt.NDArray[np.uint8],
    segments: Sequence[CodedSegment],
    description: str,
    program: str,
) -> None:
    """Write a binary segmentation atomically.

    Args:
        path: of the new file.
        source: the series that the labels lie on.
        labels: (X, Y, Z) on the grid of the series, 0 background, i the i-th segment.
        segments: in the order of the values.
        description: of the new series.
        program: what made the labels.

    Raises:
        InputError: the series lacks something that a segmentation needs.
    """
    import highdicom as hd

    frames = np.ascontiguousarray(labels.T[list(source.places)])
    number = int(source.headers[0].get("SeriesNumber") or 0)
    try:
        with quiet():
            made = hd.seg.Segmentation(
                source_images=list(source.headers),
                pixel_array=frames,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_described(n, s, program) for n, s in enumerate(segments, start=1)],
                series_instance_uid=hd.UID(),
                series_number=number * 100 + len(segments),
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer="whqa",
                manufacturer_model_name="whqa assess",
                software_versions=__version__,
                device_serial_number="none",
                series_description=description,
                content_description=description,
            )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:150]
        raise InputError(
            f"{path}: the series cannot have a DICOM segmentation ({why}); convert it to NIfTI and give that"
        ) from None
    with atomic_path(path) as temporary, quiet():
        made.save_as(temporary)


def _described(number: int, segment: CodedSegment, program: str) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code as Coded

    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=segment.label,
        segmented_property_category=Coded(segment.category.value, _SCHEME, segment.category.meaning),
        segmented_property_type=Coded(segment.code.value, segment.scheme, segment.code.meaning),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=program[:64], family=codes.DCM.ArtificialIntelligence, version=__version__
        ),
    )
