"""The run's own worst judged masks, each assessed like a stranger's by the network that never saw its case.

Intervals and the verdict's rule come from the other patients of the fold, so that a report tells nobody more than it
could have told before the truth was known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from whqa.assessment.model import TrainedRun, load_run
from whqa.assessment.pipeline import assess
from whqa.assessment.writing import write_assessment
from whqa.config.run_cohort import cohort_of_run
from whqa.data.case import Case, Cohort
from whqa.data.formats.volume_files import Volume
from whqa.data.preprocess import Preprocess, heart_of, preprocess_image, restore_labels
from whqa.data.reading import read_case
from whqa.errors import InputError
from whqa.files import as_named
from whqa.masks.opinion import OPINION, Opinion
from whqa.masks.store import mask_path, read_arrays, stored_mask
from whqa.results.tables import read_run
from whqa.results.worst_masks import report_name, worst_first


def write_worst_reports(run_dir: Path, n: int, mixed: bool = False) -> Iterator[Path]:
    """Write <run>/reports/<case>/ of the `n` worst judged masks, see `write_assessment`; yields each when it is there.

    Args:
        run_dir: runs/<experiment>, complete; the cohort must still lie where it was trained from.
        n: how many.
        mixed: also where the table was made of folds that saw other data than each other.

    Raises:
        InputError: the run is not complete, or its scans are gone or others than they were.
    """
    run_dir = as_named(run_dir)
    tables = read_run(run_dir, mixed)
    cohort = cohort_of_run(run_dir)
    runs: dict[int, TrainedRun] = {}
    for row in worst_first(tables).head(n).to_dict("records"):
        fold = int(row["fold"])
        runs[fold] = runs.get(fold) or load_run(run_dir, [fold])
        yield _write(run_dir, runs[fold], cohort, {str(k): v for k, v in row.items()})


def _write(run_dir: Path, run: TrainedRun, cohort: Cohort, row: dict[str, Any]) -> Path:
    case, kind, patient = cohort[str(row["case"])], str(row["mask_kind"]), row["patient"]
    image, mask = _on_own_grid(run_dir, run.preprocess, cohort, case, kind, str(row["segmenter"]))
    of_patient = [name for name, owner in zip(run.cases["case"], run.cases["patient"], strict=True) if owner == patient]
    others = replace(run, cases=run.cases[~run.cases["case"].isin([*of_patient, case.id])].reset_index(drop=True))
    assessment = assess(
        (image.array, image.affine),
        (mask, image.affine),
        others,
        modality=case.modality,
        label_map=cohort.scheme,
        probabilities=_stored_opinion(run_dir, run, case.id),
        name=report_name(case.id, kind),
    )
    out = run_dir / "reports" / report_name(case.id, kind)
    write_assessment(assessment, out)
    return out


def _stored_opinion(run_dir: Path, run: TrainedRun, case: str) -> Opinion | None:
    program = run.opinion_program
    if program is None:
        return None
    return Opinion(case, mask_path(run_dir / "external" / program.name, case, OPINION), program.name)


def _on_own_grid(
    run_dir: Path, settings: Preprocess, cohort: Cohort, case: Case, kind: str, segmenter: str
) -> tuple[Volume, np.ndarray]:
    """The scan and the mask in the cohort's label values, which was stored on the run's grid."""
    image, reference = read_case(cohort, case)
    heart = heart_of(reference, cohort.scheme.keys) if reference is not None and settings.centre == "heart" else None
    _, geometry = preprocess_image(image, case.modality, settings, heart)
    (stored,) = read_arrays(stored_mask(run_dir, segmenter, case.id, kind), "mask")
    if stored.shape != geometry.shape:
        raise InputError(
            f"{case.image}: lies on another grid than when {run_dir.name} was trained; was the file replaced?"
        )
    return image, cohort.scheme.to_values(restore_labels(stored, geometry))
