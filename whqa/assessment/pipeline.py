"""From an image and a mask to an `Assessment`.

    inputs             image and mask are read, and checked against each other and the run
    run_grid           to the grid that the networks see; at the end the maps come back
    told_opinion       what another program says of the scan, in a run without segmenters
    ensemble           every fold's network judges the mask
    likeness           are scan and mask like the run's own?
    correction_choice  is the mask corrected?
    quality_record     all of it as quality.json: `intervals` for the truth, `verdict`

What quality.json says stands in `whqa.contract.quality_json`; `whqa.assessment.writing` makes the files.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whqa.assessment.correction_choice import corrected_mask, correction_choice
from whqa.assessment.ensemble import LOST, Judgement, judge_mask
from whqa.assessment.inputs import InputOptions, read_inputs
from whqa.assessment.likeness import likeness_to
from whqa.assessment.model import TrainedRun, load_run
from whqa.assessment.one_heart import OneHeart, left_alone
from whqa.assessment.quality_record import Findings, Moments, quality_record
from whqa.assessment.run_grid import CaseOnGrid, from_run_grid, to_run_grid
from whqa.assessment.told_opinion import ToldOpinion, check_told, told_opinion
from whqa.contract.quality_json import Assessment, QualityJson
from whqa.data.preprocess import kept_box
from whqa.errors import InputError
from whqa.structures import LabelScheme

_POPULATION = (
    *("case", "mask_kind", "acc_volume", "qi_volume", "acc_heart", "qi_heart"),
    *("mean_dice", "mean_dice_predicted"),
)


def assess(
    image: Any,
    mask: Any,
    model: TrainedRun | str | Path,
    *,
    modality: str | None = None,
    label_map: str | Mapping[str, Any] | LabelScheme | None = None,
    confidence: float = 0.9,
    resample: bool = False,
    orientation: str | None = None,
    series: str | None = None,
    probabilities: Any = None,
    name: str | None = None,
) -> Assessment:
    """Judge one mask of one image.

    Args:
        image: path (of DICOM a folder or zip archive), nibabel image, or (array (X, Y, Z), affine (4, 4) to RAS mm).
        mask: the same, of label values, a folder of structure files, or DICOM SEG or RTSTRUCT; turned, padded or cut.
        model: `runs/<experiment>`, a model file of `whqa export`, or what `load_run` made of either.
        modality: "ct" or "mr"; needed only where the run was trained on both.
        label_map: which value of the mask stands for which structure: a scheme, its name, or structure -> value(s).
            None: by the names in the mask's file where it has any, else the values of the run's training cohort.
        confidence: of the intervals, between 0.5 and 0.999.
        resample: bring a mask of another grid to the image's, each voxel with the nearest label.
        orientation: sides that the array's axes point to, such as "LPS", where a header does not know them.
        series: number or UID of the DICOM series that is meant, where the image's folder holds several.
        probabilities: of the program that a run without segmenters learned with: nnU-Net's .npz, a NIfTI file with one
            volume a class, or an array (class, z, y, x), on the grid of the mask's file or of the image.
        name: of the case; by default that of the image file.

    Raises:
        InputError: a file is bad or missing, image and mask do not lie on one grid, or the run cannot be used.
    """
    if not 0.5 <= confidence <= 0.999:
        raise InputError(f"confidence {confidence:g}: must be between 0.5 and 0.999")
    started = time.perf_counter()
    run = model if isinstance(model, TrainedRun) else load_run(model)
    check_told(run, probabilities)
    inputs = read_inputs(image, mask, run, InputOptions(modality, label_map, resample, orientation, series, name))
    read = time.perf_counter()
    case = to_run_grid(inputs, run)
    told = told_opinion(probabilities, inputs, case, run)
    judgement = _judgement(run, case, told, OneHeart.of(run.scheme, inputs.run_scheme))
    judged = time.perf_counter()
    choice = correction_choice(run).unless(LOST if judgement.lost else left_alone(inputs.run_scheme))
    corrected = corrected_mask(judgement, case.mask, choice.rule)
    maps = from_run_grid(inputs, case, judgement, corrected.labels)
    found = Findings(inputs, case, told, judgement, likeness_to(run, case, inputs), choice, corrected, maps)
    return _assessment(run, found, quality_record(run, found, confidence, Moments(started, read, judged)))


def _judgement(run: TrainedRun, case: CaseOnGrid, told: ToldOpinion | None, one_heart: OneHeart | None) -> Judgement:
    image, mask = torch.from_numpy(case.image), torch.from_numpy(case.mask.astype(np.int64))
    return judge_mask(run.networks, image, mask, case.geometry.spacing, None if told is None else told.log_p, one_heart)


def _assessment(run: TrainedRun, found: Findings, quality: QualityJson) -> Assessment:
    inputs, maps = found.inputs, found.maps
    return Assessment(
        name=inputs.name,
        scheme=inputs.run_scheme,
        image=inputs.image.array,
        mask=inputs.mask.array,
        corrected=maps.corrected,
        error_probability=maps.probability,
        error_map=maps.error_map,
        affine=inputs.image.affine,
        header=inputs.image.header,
        quality=quality,
        population=_population(run),
        corrected_values=inputs.to_values(maps.corrected),
        opinion=maps.opinion,
        dicom=inputs.dicom,
        box=kept_box(found.case.geometry),
    )


def _population(run: TrainedRun) -> tuple[dict[str, Any], ...]:
    rows = run.cases[list(_POPULATION)].astype(object)
    records = rows.where(rows.notna(), None).to_dict("records")
    return tuple({str(k): v for k, v in record.items()} for record in records)
