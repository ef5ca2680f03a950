"""One picture of a whole cohort, as the experiment's preprocessing sees it."""

from __future__ import annotations

from pathlib import Path

from whqa.data.case import Cohort
from whqa.data.preprocess import Preprocess, preprocess_image, preprocess_label
from whqa.data.reading import read_case
from whqa.files import atomic_path
from whqa.report.slices import contact_sheet


def write_contact_sheet(cohort: Cohort, path: Path, settings: Preprocess) -> None:
    """Three planes of every case with label contours as one PNG.

    Raises:
        InputError: a file of the cohort cannot be read.
    """
    cases = []
    for case in cohort.cases:
        volume, reference = read_case(cohort, case)
        image, geometry = preprocess_image(volume, case.modality, settings)
        label = None if reference is None else preprocess_label(reference, geometry)
        cases.append((case.id, image, label, geometry.spacing))
    figure = contact_sheet(cases, cohort.scheme.colours, cohort.scheme.titles)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=80, format="png")
