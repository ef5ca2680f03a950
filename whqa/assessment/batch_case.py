"""One case of a batch: how it is to be judged, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from whqa.assessment.output_folder import CORRECTED, CORRECTED_SEG, ERROR_MAP, ERROR_SEG, PROBABILITY, QUALITY, REPORT
from whqa.assessment.pairs import Pair
from whqa.structures import LabelScheme

_OF_ONE_CASE = ("modality", "label_map", "confidence", "resample", "orientation", "series")


@dataclass(frozen=True)
class AssessOptions:
    """How masks are judged, and what is written of each.

    Attributes:
        modality: "ct" or "mr" of cases that state none; None is the run's.
        label_map: of the masks; None is the run's scheme.
        confidence: of the intervals.
        report: whether report.html is written.
        resample: bring masks of another grid to their image's.
        orientation: sides that the axes point to where a header does not know them; None is not stated.
        preview: name of a picture in each case's folder, or None.
        series: number or UID of the DICOM series that is meant; None where there is but one.
        dicom: whether the image is DICOM, so that results are written as DICOM too.
    """

    modality: str | None = None
    label_map: LabelScheme | None = None
    confidence: float = 0.9
    report: bool = True
    preview: str | None = None
    resample: bool = False
    orientation: str | None = None
    series: str | None = None
    dicom: bool = False

    @property
    def of_one_case(self) -> dict[str, Any]:
        """What `whqa.assessment.pipeline.assess` takes of it, by name."""
        return {name: getattr(self, name) for name in _OF_ONE_CASE}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the files that a case gets, but for request.json."""
        names = [PROBABILITY, ERROR_MAP, CORRECTED, QUALITY, *([CORRECTED_SEG, ERROR_SEG] if self.dicom else [])]
        return (*names, *([REPORT] if self.report else []), *([self.preview] if self.preview else []))


@dataclass(frozen=True)
class BatchCase:
    """What became of one case.

    Attributes:
        name: of the case.
        pair: its files; None where it has no pair of them.
        folder: its folder's name in the output folder.
        quality: content of quality.json; None where it failed.
        kept: whether it was there already.
        error: why it failed, one line.
        report: whether its folder has a report.
    """

    name: str
    pair: Pair | None = None
    folder: str = ""
    quality: Mapping[str, Any] | None = field(default=None, repr=False)
    kept: bool = False
    error: str | None = None
    report: bool = False
