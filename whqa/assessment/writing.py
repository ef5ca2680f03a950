"""From an `Assessment` to the files of the contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from whqa.assessment.output_folder import (
    CORRECTED,
    CORRECTED_SEG,
    ERROR_MAP,
    ERROR_SEG,
    PROBABILITY,
    QUALITY,
    REPORT,
)
from whqa.contract.quality_json import Assessment
from whqa.data.dicom.seg_writing import ERROR_SEGMENT, structure_segments, write_segmentation
from whqa.data.formats.volume_files import write_volume
from whqa.errors import InputError
from whqa.files import write_json
from whqa.parallel.beside import Start


def write_assessment(
    assessment: Assessment, out: Path, *, report: bool = True, preview: Path | None = None, start: Start = partial
) -> None:
    """Write the files of the contract into `out`; quality.json comes last and says that the rest is whole.

    Args:
        assessment: of one mask.
        out: folder; it is made where there is none.
        report: whether report.html is written.
        preview: path of a PNG for a glance, or None.
        start: has the report's pictures drawn while the volumes are written; in this process by default.

    Raises:
        OSError: the disk does not take them.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / QUALITY).unlink(missing_ok=True)
    write_page = None
    if report:
        from whqa.report.assessment_page import begin_report  # jinja2

        write_page = begin_report(assessment, start)
    _write_volumes(assessment, out)
    if write_page:
        write_page(out / REPORT)
    if preview:
        from whqa.report.assessment_page import write_preview  # matplotlib

        write_preview(assessment, preview)
    write_json(out / QUALITY, assessment.quality)


def _write_volumes(assessment: Assessment, out: Path) -> None:
    header = assessment.header
    affine = assessment.affine if header is None else None
    corrected = assessment.corrected if assessment.corrected_values is None else assessment.corrected_values
    write_volume(out / PROBABILITY, assessment.error_probability, affine, header)
    write_volume(out / ERROR_MAP, assessment.error_map.astype(np.uint8), affine, header)
    write_volume(out / CORRECTED, corrected, affine, header)
    if assessment.dicom is not None and assessment.dicom.frame_of_reference:
        try:
            _write_dicom(assessment, out)
        except InputError as error:
            # minutes of work, all of it there as NIfTI
            assessment.quality["warnings"].append(str(error))


def _write_dicom(assessment: Assessment, out: Path) -> None:
    """The corrected mask and the error map as DICOM segmentations of the series that was judged."""
    scheme, name = assessment.scheme, f"whqa {assessment.quality['model']['run']}"
    segments = structure_segments(scheme.keys, scheme.titles)
    write_segmentation(out / CORRECTED_SEG, assessment.dicom, assessment.corrected, segments, "Corrected mask", name)
    error = assessment.error_map.astype(np.uint8)
    write_segmentation(out / ERROR_SEG, assessment.dicom, error, [ERROR_SEGMENT], "Predicted errors", name)
