"""From an image and a mask to an `Assessment`, and from that to files.

    read -> the run's grid -> every fold's network -> back to the input's grid -> intervals, verdict, correction

quality.json: `qi` (volume, heart: value, soft, interval for the true accuracy; null with a reason where there is none),
`error_map` (its threshold, above 1 where no error is expected at all, and the rule that it follows from), `structures`
(expected Dice with interval, volume before and after correction, share predicted wrong), `verdict` (decision, reasons,
rule, its measured risk), `correction`, `out_of_distribution`, `warnings`, `model`, `image`, `mask`, `versions`,
`seconds`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch

from whqa.assessment.ensemble import Judgement, judge_mask
from whqa.assessment.inputs import Inputs, read_inputs
from whqa.assessment.model import TrainedRun, load_run
from whqa.assessment.verdict import LOST, correction_record, intervals_of, population, verdict_of
from whqa.contract.quality_json import Assessment
from whqa.data.formats.volume_files import voxel_sizes, write_volume
from whqa.data.preprocess import (
    Geometry,
    heart_of,
    lost_voxels,
    preprocess_image,
    preprocess_label,
    restore_labels,
    restore_map,
)
from whqa.errors import InputError
from whqa.files import write_json
from whqa.judges.correction import corrected_mask
from whqa.results.environment import environment
from whqa.results.familiarity import better_than_own, load_features, unchecked, unfamiliar
from whqa.results.features import features
from whqa.structures import LabelScheme

BETTER = "the mask is more like the run's references than like the masks of its segmenters"
PROBABILITY, ERROR_MAP, CORRECTED = "error_probability.nii.gz", "error_map.nii.gz", "corrected_mask.nii.gz"
QUALITY, REPORT = "quality.json", "report.html"


@dataclass(frozen=True, eq=False)
class _Restored:
    """Maps on the input's own grid."""

    probability: npt.NDArray[np.float32]
    error_map: npt.NDArray[np.bool_]
    corrected: npt.NDArray[np.uint8]


def assess(
    image: Any,
    mask: Any,
    model: TrainedRun | str | Path,
    *,
    modality: str | None = None,
    label_map: str | Mapping[str, Any] | LabelScheme | None = None,
    confidence: float = 0.9,
    name: str | None = None,
) -> Assessment:
    """Judge one mask of one image.

    Args:
        image: path, nibabel image, or (array (X, Y, Z), affine (4, 4) voxel -> RAS mm).
        mask: the same, of label values.
        model: runs/<experiment>, or what `load_run` made of it.
        modality: "ct" or "mr"; needed only where the run was trained on both.
        label_map: which value of the mask stands for which structure: a scheme, its name, or structure -> value(s).
            None: the values of the run's training cohort.
        confidence: of the intervals, between 0.5 and 0.999.
        name: of the case; by default that of the image file.

    Raises:
        InputError: a file is bad, image and mask do not lie on one grid, or the run cannot be used.
    """
    if not 0.5 <= confidence <= 0.999:
        raise InputError(f"confidence {confidence:g}: must be between 0.5 and 0.999")
    started = time.perf_counter()
    run = model if isinstance(model, TrainedRun) else load_run(model)
    inputs = read_inputs(image, mask, run, modality=modality, label_map=label_map, name=name)
    read = time.perf_counter()
    heart = heart_of(inputs.mask, inputs.run_scheme.keys) if run.preprocess.centre == "heart" else None
    values, geometry = preprocess_image(inputs.image, inputs.modality, run.preprocess, heart)
    indices = preprocess_label(inputs.mask, geometry)
    judgement = judge_mask(
        run.networks, torch.from_numpy(values), torch.from_numpy(indices.astype(np.int64)), geometry.spacing
    )
    judged = time.perf_counter()
    known, numbers = load_features(run.directory, inputs.modality), features(values, indices, geometry, run.scheme.keys)
    better = better_than_own(numbers, known)
    unlike = LOST if not indices.any() else f"{BETTER}, which the gain was measured on" if better else None
    correction = _limited(correction_record(run), unlike)
    restored = _restore(inputs, judgement, geometry, correction["threshold"] if correction["applied"] else None)
    unchecked_because = unchecked(known)
    quality = _quality(run, inputs, judgement, geometry, restored, confidence)
    quality["out_of_distribution"] = unfamiliar(numbers, known)
    quality["correction"] = _changes(correction, inputs, restored)
    quality["warnings"] += [unchecked_because] if unchecked_because else []
    # the figures of a scan unlike the run's own may be off in either direction
    if better and not quality["out_of_distribution"]:
        quality["warnings"].append(f"T{BETTER[1:]}; its figures are probably too low. {better[0]}")
    quality["verdict"] = verdict_of(run, quality, judgement)
    quality["versions"] = environment()
    quality["seconds"] = {
        "read": read - started,
        "predict": judged - read,
        "total": time.perf_counter() - started,
    }
    return Assessment(
        name=inputs.name,
        scheme=run.scheme,
        image=inputs.image.array,
        mask=inputs.mask.array,
        corrected=restored.corrected,
        error_probability=restored.probability,
        error_map=restored.error_map,
        affine=inputs.image.affine,
        header=inputs.image.header,
        quality=quality,
        population=population(run),
        corrected_values=inputs.to_values(restored.corrected),
    )


def write_assessment(assessment: Assessment, out: Path, *, report: bool = True, preview: Path | None = None) -> None:
    """Write the files of the contract into `out`; quality.json comes last and says that the rest is whole."""
    out.mkdir(parents=True, exist_ok=True)
    (out / QUALITY).unlink(missing_ok=True)
    header = assessment.header
    affine = assessment.affine if header is None else None
    corrected = assessment.corrected if assessment.corrected_values is None else assessment.corrected_values
    write_volume(out / PROBABILITY, assessment.error_probability, affine, header)
    write_volume(out / ERROR_MAP, assessment.error_map.astype(np.uint8), affine, header)
    write_volume(out / CORRECTED, corrected, affine, header)
    if report or preview:
        from whqa.report.assessment_page import write_preview, write_report  # matplotlib

        if report:
            write_report(assessment, out / REPORT)
        if preview:
            write_preview(assessment, preview)
    write_json(out / QUALITY, assessment.quality)


def _restore(inputs: Inputs, judgement: Judgement, geometry: Geometry, threshold: float | None) -> _Restored:
    probability = np.clip(restore_map(judgement.probability.numpy(), geometry), 0, 1)
    error_map = probability >= _tau(judgement)
    corrected = inputs.mask.array
    if threshold is not None and judgement.other is not None:
        other = restore_labels(judgement.other.numpy(), geometry)
        inside = restore_map(np.ones(geometry.shape, np.float32), geometry) > 0.5
        score = torch.from_numpy(np.where(inside, probability, -1.0))
        corrected = corrected_mask(torch.from_numpy(corrected), torch.from_numpy(other), score, threshold).numpy()
        corrected = np.where(inputs.other_organs, inputs.mask.array, corrected)
    return _Restored(probability, error_map, corrected)


def _quality(
    run: TrainedRun,
    inputs: Inputs,
    judgement: Judgement,
    geometry: Geometry,
    restored: _Restored,
    confidence: float,
) -> dict[str, Any]:
    ml = float(abs(np.linalg.det(inputs.image.affine[:3, :3]))) / 1000
    outside = _outside_share(inputs, geometry)
    quality: dict[str, Any] = {
        "case": inputs.name,
        "confidence": confidence,
        "image": {
            **_source(inputs.image.path, inputs.from_file),
            "shape": [int(n) for n in inputs.image.shape],
            "spacing_mm": [round(float(s), 6) for s in voxel_sizes(inputs.image.affine)],
            "orientation": "".join(nib.aff2axcodes(inputs.image.affine)),
        },
        "mask": _source(inputs.mask.path, inputs.from_file),
        "model": {
            "run": run.directory.resolve().name,
            "cohort": run.cohort,
            "plan": run.plan,
            "folds": list(run.folds),
            "head": run.head,
            "modality": inputs.modality,
            "checkpoints": {str(n.fold): n.sha256 for n in run.networks},
        },
        "error_map": {"threshold": _tau(judgement), "rule": judgement.rule},
        **intervals_of(run, judgement, confidence),
        "outside": {"mask_share": outside},
        "warnings": list(inputs.warnings),
    }
    for index, (key, title) in enumerate(zip(run.scheme.keys, run.scheme.titles, strict=True), start=1):
        of_structure = inputs.mask.array == index
        n = int(of_structure.sum())
        quality["structures"][key] = {
            "name": title,
            **quality["structures"][key],
            "volume_ml": n * ml,
            "volume_ml_corrected": int((restored.corrected == index).sum()) * ml,
            "wrong_share": float(restored.error_map[of_structure].mean()) if n else None,
        }
    if outside > 0.01:
        quality["warnings"].append(
            f"{100 * outside:.0f} % of the mask lies outside the box of {_size_mm(geometry)} mm that the run judges; "
            "nothing is said about that part"
        )
    return quality


def _tau(judgement: Judgement) -> float:
    # above 0, as nothing is said about voxels outside the box that was judged
    return max(judgement.threshold, 1e-6)


def _limited(record: dict[str, Any], unlike: str | None) -> dict[str, Any]:
    """The correction, but for masks unlike those on which its gain was measured."""
    if not record["applied"] or unlike is None:
        return record
    return {**record, "applied": False, "reason": f"left alone: {unlike}"}


def _changes(record: dict[str, Any], inputs: Inputs, restored: _Restored) -> dict[str, Any]:
    changed = int((restored.corrected != inputs.mask.array).sum())
    ml = float(abs(np.linalg.det(inputs.image.affine[:3, :3]))) / 1000
    return {**record, "changed_voxels": changed, "changed_ml": changed * ml}


def _outside_share(inputs: Inputs, geometry: Geometry) -> float:
    count = np.bincount(inputs.mask.array.ravel(order="K"))
    total = int(count[1:].sum())
    lost = sum(share * int(count[i]) for i, share in lost_voxels(inputs.mask, geometry).items())
    return float(lost / total) if total else 0.0


def _source(path: Path, from_file: bool) -> dict[str, Any]:
    if not from_file:
        return {"path": None, "sha256": None}
    with path.open("rb") as stream:
        return {"path": str(path), "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _size_mm(geometry: Geometry) -> str:
    return " x ".join(f"{n * s:.0f}" for n, s in zip(geometry.shape, geometry.spacing, strict=True))
