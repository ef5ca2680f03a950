"""The content of quality.json (`whqa.contract.quality_json`), put together from what was found."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, cast

import nibabel as nib
import numpy as np

from whqa.assessment.correction_choice import CorrectedMask, CorrectionChoice
from whqa.assessment.ensemble import Judgement
from whqa.assessment.input_places import InputFile
from whqa.assessment.inputs import Inputs
from whqa.assessment.intervals import expected_dice_by_structure, quality_indicators
from whqa.assessment.likeness import Likeness
from whqa.assessment.model import TrainedRun
from whqa.assessment.places import wrong_places
from whqa.assessment.run_grid import CaseOnGrid, RestoredMaps, outside_share
from whqa.assessment.told_opinion import ToldOpinion
from whqa.assessment.verdict import doubtful_above, verdict_of
from whqa.assessment.work import work_to_do
from whqa.contract.provenance import OpinionSource
from whqa.contract.quality_json import (
    Correction,
    GivenImage,
    GivenMask,
    JudgedStructure,
    JudgingRun,
    QualityJson,
    StructureCorrection,
)
from whqa.data.formats.volume_files import voxel_sizes
from whqa.judges.threshold_rule import ThresholdRule
from whqa.results.environment import environment

# Of the mask: what lies outside the judged box is told from here on.
_TOLD_OUTSIDE = 0.01


class Moments(NamedTuple):
    """`time.perf_counter()` at the start, after image and mask were read, and after they were judged."""

    started: float
    read: float
    judged: float


@dataclass(frozen=True, eq=False)
class Findings:
    """What was found about one mask, in the order in which it was found."""

    inputs: Inputs
    case: CaseOnGrid
    told: ToldOpinion | None
    judgement: Judgement
    likeness: Likeness
    choice: CorrectionChoice
    corrected: CorrectedMask
    maps: RestoredMaps


def quality_record(run: TrainedRun, found: Findings, confidence: float, moments: Moments) -> QualityJson:
    """All that is known about the mask; `confidence` is that of the intervals."""
    inputs, maps, likeness = found.inputs, found.maps, found.likeness
    outside = outside_share(inputs, found.case.geometry)
    keys = inputs.run_scheme.keys
    qi = quality_indicators(run, found.judgement, confidence, keys)
    structures = _structures(run, found, confidence)
    doubts = () if found.told is None else found.told.doubts
    doubt_above = doubtful_above(run)
    places = wrong_places(
        maps.probability, maps.suspicion, inputs.mask.array, keys, doubt_above=doubt_above, voxel_ml=inputs.voxel_ml
    )
    return {
        "case": inputs.name,
        "confidence": confidence,
        "image": _image(inputs),
        "mask": _mask(inputs.mask_file),
        "model": _run(run, inputs),
        "opinion": _opinion(run, found.told),
        "error_map": {
            "threshold": found.judgement.map_threshold,
            "rule": "expected" if found.judgement.rule == ThresholdRule.expected else "dice",
        },
        "qi": qi,
        "structures": structures,
        "places": places,
        "work": work_to_do(maps.probability, inputs.mask.array, maps.opinion, keys=keys, voxel_ml=inputs.voxel_ml),
        "outside": {"mask_share": outside},
        "warnings": [*inputs.warnings, *doubts, *_told_outside(outside, found.case), *likeness.warnings],
        "out_of_distribution": likeness.unfamiliar,
        "correction": _correction(found),
        "verdict": verdict_of(
            run,
            qi,
            structures,
            places,
            certainty=found.judgement.certainty,
            doubt_above=doubt_above,
            lost=found.judgement.lost,
            unfamiliar=bool(likeness.unfamiliar),
            outside=outside,
            findings=replace(inputs.findings, mask=(*inputs.findings.mask, *doubts)),
        ),
        "versions": environment(),
        "seconds": {
            "read": moments.read - moments.started,
            "predict": moments.judged - moments.read,
            "total": time.perf_counter() - moments.started,
        },
    }


def _mask(file: InputFile | None) -> GivenMask:
    if file is None:
        return {"path": None, "sha256": None}
    return {"path": str(file.path), "sha256": file.sha256}


def _opinion(run: TrainedRun, told: ToldOpinion | None) -> OpinionSource | None:
    if told is not None:
        return {"source": "probabilities", "program": told.program, **_mask(told.file)}
    if not run.networks[0].module.hears_opinion:
        return None
    return {"source": "segmenters", "program": None, "path": None, "sha256": None}


def _image(inputs: Inputs) -> GivenImage:
    return {
        **_mask(inputs.image_file),
        "shape": [int(n) for n in inputs.image.shape],
        "spacing_mm": [round(float(s), 6) for s in voxel_sizes(inputs.image.affine)],
        "orientation": "".join(nib.aff2axcodes(inputs.image.affine)),
    }


def _run(run: TrainedRun, inputs: Inputs) -> JudgingRun:
    return {
        "run": run.name,
        "cohort": run.cohort,
        "plan": run.plan,
        "folds": list(run.folds),
        "head": cast(Literal["binary", "label"], run.head),
        "modality": inputs.modality,
        "checkpoints": {str(n.fold): n.sha256 for n in run.networks},
    }


def _structures(run: TrainedRun, found: Findings, confidence: float) -> dict[str, JudgedStructure]:
    inputs, maps = found.inputs, found.maps
    scheme = inputs.run_scheme
    expected = expected_dice_by_structure(run, found.judgement, confidence, scheme.keys)
    structures: dict[str, JudgedStructure] = {}
    for index, (key, title) in enumerate(zip(scheme.keys, scheme.titles, strict=True), start=1):
        of_structure = inputs.mask.array == index
        n = int(of_structure.sum())
        structures[key] = {
            "name": title,
            "dice_expected": expected[key].value,
            "dice_interval": expected[key].interval,
            "reason": expected[key].reason,
            "volume_ml": n * inputs.voxel_ml,
            "volume_ml_corrected": int((maps.corrected == index).sum()) * inputs.voxel_ml,
            "wrong_share": float(maps.error_map[of_structure].mean()) if n else None,
            "dice_opinion": _dice_with_opinion(found, index),
            "correction": _structure_correction(found, index),
        }
    return structures


def _dice_with_opinion(found: Findings, index: int) -> float | None:
    """Dice of the mask's structure with that of the second opinion, on the run's grid."""
    opinion = found.judgement.opinion
    if opinion is None:
        return None
    mask, other = found.case.mask == index, opinion.numpy() == index
    size = int(mask.sum()) + int(other.sum())
    return 2 * int((mask & other).sum()) / size if size else None


def _structure_correction(found: Findings, index: int) -> StructureCorrection:
    if found.choice.rule is None:
        return {"applied": False, "gain_expected": None, "reason": found.choice.reason}
    gain = found.corrected.gains[index - 1]
    if np.isnan(gain):
        return {"applied": False, "gain_expected": None, "reason": "left alone: no other label is probable enough"}
    if gain <= 0:
        least = found.choice.rule.gain_of(index)
        if np.isinf(least):
            reason = "left alone: held-back training cases do not show that correcting it does no harm"
            return {"applied": False, "gain_expected": None, "reason": reason}
        reason = f"left alone: its Dice is not expected to gain {least:g}, or only at the cost of another structure"
        return {"applied": False, "gain_expected": None, "reason": reason}
    return {"applied": True, "gain_expected": gain, "reason": f"corrected: its Dice is expected to gain {gain:.2f}"}


def _told_outside(share: float, case: CaseOnGrid) -> list[str]:
    if share <= _TOLD_OUTSIDE:
        return []
    return [
        f"{100 * share:.0f} % of the mask lies outside the box of {case.size_mm} mm that the run judges; "
        "nothing is said about that part"
    ]


def _correction(found: Findings) -> Correction:
    choice, changed = found.choice, int((found.maps.corrected != found.inputs.mask.array).sum())
    return {
        "applied": choice.rule is not None,
        "reason": choice.reason,
        "threshold": None if choice.rule is None else choice.rule.probability,
        "out_of_fold": choice.out_of_fold,
        "changed_voxels": changed,
        "changed_ml": changed * found.inputs.voxel_ml,
    }
