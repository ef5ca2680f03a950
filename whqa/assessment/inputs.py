"""The two volumes of an assessment, from files or from memory, checked against each other and against the run.

Headers come first: two volumes that do not lie on one grid are refused before a voxel is read. Each file is then
decoded once, and hashed at most once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt

from whqa.assessment.input_findings import InputFindings, input_findings
from whqa.assessment.input_places import (
    InputFile,
    conflict_of,
    file_of,
    name_of_case,
    place_in_memory,
    place_of_scan,
    places_of_mask,
    told_of_series,
)
from whqa.assessment.mask_labels import scheme_of_mask
from whqa.assessment.model import TrainedRun
from whqa.assessment.one_heart import is_one_heart, outline_alone, outline_scheme, why_not
from whqa.assessment.placing import check_place, in_place, stated_axes, with_stated_axes
from whqa.assessment.structure_files import read_structure_files, scheme_of_parts
from whqa.assessment.unlike_labels import explained
from whqa.data.case import Modality
from whqa.data.dicom.series import DicomImage, DicomSource
from whqa.data.formats.volume_files import Grid, LayeredLabels, Volume, image_voxels, label_values
from whqa.data.sources.names import CHAMBERS_INSTEAD
from whqa.errors import InputError
from whqa.structures import LabelScheme, label_scheme


@dataclass(frozen=True)
class InputOptions:
    """How image and mask are read; see `whqa.assessment.pipeline.assess`."""

    modality: str | None = None
    label_map: str | Mapping[str, Any] | LabelScheme | None = None
    resample: bool = False
    orientation: str | None = None
    series: str | None = None
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is to be judged.

    Attributes:
        name: of the case.
        image: float32.
        mask: indices of `run_scheme`.
        values: the mask in the values of its own file, whole numbers of at most 32 bits (X, Y, Z).
        scheme: of `values`.
        run_scheme: of `mask`: the run's, or what it can judge of a mask that has the heart as one structure.
        modality: of the image.
        image_file, mask_file: where they come from; None for what was given as an array.
        warnings: for the user.
        findings: what is odd about image and mask, before any network has seen them.
        mask_place: grid of the mask's file, before the mask was brought to the image's.
        dicom: what results need to be written as DICOM, where the image is; else None.
    """

    name: str
    image: Volume
    mask: Volume
    values: npt.NDArray[np.integer]
    scheme: LabelScheme
    run_scheme: LabelScheme
    modality: Modality
    image_file: InputFile | None
    mask_file: InputFile | None
    warnings: tuple[str, ...]
    findings: InputFindings
    mask_place: Grid | Volume
    dicom: DicomSource | None = None

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.image.affine[:3, :3]))) / 1000

    @property
    def other_organs(self) -> npt.NDArray[np.bool_]:
        """Voxels that the mask gives to what is not of the heart (X, Y, Z); a correction leaves them alone."""
        return (self.values != 0) & (self.mask.array == 0)

    def to_values(self, corrected: npt.NDArray[np.uint8]) -> npt.NDArray[np.integer]:
        """A changed mask in the file's own values: voxels that did not change keep theirs, other organs too."""
        table = np.array([0, *(self.scheme.values[key] for key in self.run_scheme.keys)])
        limits = np.iinfo(self.values.dtype)
        fits = limits.min <= table.min() and table.max() <= limits.max
        values = self.values.astype(self.values.dtype if fits else np.int16)
        changed = corrected != self.mask.array
        values[changed] = table[corrected[changed]]
        return values


def read_inputs(
    image: Any,
    mask: Any,
    run: TrainedRun,
    options: InputOptions,
) -> Inputs:
    """Read and check both volumes, each a path, an `InputFile`, a nibabel image or (array, affine).

    Raises:
        InputError: a file is bad, the two do not lie on one grid, the mask lacks all structures, values are unknown, or
            the modality is missing or foreign.
    """
    stated = None if options.label_map is None else label_scheme(options.label_map)
    _check_scheme(stated or run.scheme, run)
    axes = stated_axes(options.orientation)
    image_file, mask_file = file_of(image), file_of(mask)
    given = (
        place_of_scan(image_file, mask_file, run, options.series)
        if image_file
        else place_in_memory(image, "image", run)
    )
    series = given if isinstance(given, DicomImage) else None
    kind = _modality(options.modality or (series.modality if series else None), run)
    own = places_of_mask(mask_file or mask, given, run, stated)
    place, notes = with_stated_axes(given, axes, next(iter(own.values())))
    own = {key: with_stated_axes(part, axes, place)[0] for key, part in own.items()}
    read = _mask_in_parts if mask_file and mask_file.is_folder_of_parts else _mask_as_map
    scan, found = read(place, own, mask_file, run, stated, options.resample)
    if not found.indices.any():
        raise InputError(f"{found.path}: empty mask, no structure in it; is it the right file and label map?")
    labels = Volume(found.indices, found.affine, found.path, found.header)
    findings = input_findings(place, scan, labels, kind, found.judged.keys)
    findings = replace(findings, mask=(*outline_alone(found.judged), *findings.mask))
    of_image = [f"{place.path.name}: {note}" for note in (*told_of_series(series, kind), *notes)]
    told = (*findings.image, *conflict_of(place), *of_image, *found.notes, *findings.told, *findings.mask)
    return Inputs(
        options.name or name_of_case(scan.path),
        scan,
        labels,
        found.values,
        found.scheme,
        found.judged,
        kind,
        image_file,
        mask_file,
        told,
        findings,
        next(iter(own.values())),
        series.source if series else None,
    )


@dataclass(frozen=True, eq=False)
class _Mask:
    """A mask on the image's grid: in its own values, as indices of what is judged of it, with notes for the user."""

    path: Path
    values: npt.NDArray[np.integer]
    indices: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    header: nib.Nifti1Header | None
    scheme: LabelScheme
    judged: LabelScheme
    notes: tuple[str, ...]


def _mask_as_map(
    place: Grid | Volume,
    places: Mapping[str, Grid | Volume],
    mask: InputFile | None,
    run: TrainedRun,
    stated: LabelScheme | None,
    resample: bool,
) -> tuple[Volume, _Mask]:
    """The image's voxels, and a label map; the headers of both are compared first."""
    (own,) = places.values()
    check_place(place, own, resample)
    scheme, notes = scheme_of_mask(own, stated, run.scheme)
    judged = _judged(scheme, run, own.path)
    try:
        laid = in_place(place, label_values(own, scheme), resample)
        indices = reindexed(scheme.to_indices(laid.array, str(own.path)), scheme, judged)
    except InputError as error:
        raise explained(error, place, own, scheme) from None
    scan = _image(place)
    told = own.notes if isinstance(own, LayeredLabels) else ()
    notes = (*conflict_of(own), *(f"{own.path.name}: {n}" for n in (*told, *laid.notes[len(own.notes) :], *notes)))
    return scan, _Mask(own.path, laid.array, indices, laid.affine, laid.header, scheme, judged, notes)


def _mask_in_parts(
    place: Grid | Volume,
    places: Mapping[str, Grid | Volume],
    mask: InputFile | None,
    run: TrainedRun,
    stated: LabelScheme | None,
    resample: bool,
) -> tuple[Volume, _Mask]:
    """The image's voxels, and a folder of structure files as a label map in the run's values."""
    assert mask is not None
    if stated is not None:
        raise InputError(
            f"{mask.path}: a folder of structure files has no label values, their names say it; leave --label-map out"
        )
    judged = _judged(scheme_of_parts(places, run.scheme), run, mask.path)
    laid = read_structure_files(mask.path, places, place, judged, resample)
    values = judged.to_values(laid.array)
    notes = tuple(f"{mask.path.name}: {note}" for note in laid.notes)
    return _image(place), _Mask(mask.path, values, laid.array, laid.affine, laid.header, judged, judged, notes)


def _judged(scheme: LabelScheme, run: TrainedRun, path: Path) -> LabelScheme:
    """What the run judges of a mask of this scheme."""
    if not is_one_heart(scheme):
        return run.scheme
    reason = why_not(run)
    if reason is not None:
        raise InputError(f"{path}: has the heart as one structure, and {reason}; {CHAMBERS_INSTEAD}")
    return outline_scheme(scheme, run.scheme)


def _check_scheme(scheme: LabelScheme, run: TrainedRun) -> None:
    lacking = [key for key in run.scheme.keys if key not in scheme.keys]
    if lacking and not is_one_heart(scheme):
        raise InputError(
            f"label map {scheme.name!r}: does not say which value stands for {', '.join(lacking)}, which the run "
            f"{run.path} judges; {_pairs_with(lacking, scheme, run.scheme)}"
        )


def _pairs_with(lacking: Sequence[str], scheme: LabelScheme, of_run: LabelScheme) -> str:
    """What helps where a label map lacks structures: pairs, with its one value of another name in place of the one."""
    of_others = {key: value for key, value in scheme.values.items() if key not in of_run.keys}
    others = [*of_others.values(), *sorted(scheme.ignored)]
    if len(lacking) == len(others) == 1:
        pairs = {k: v for k, v in scheme.values.items() if k not in of_others} | {lacking[0]: others[0]}
        known = ",".join(f"{key}={value}" for key, value in pairs.items())
        return f"if its value {others[0]}, which has another name, is that: --label-map {known}"
    return "write all pairs, such as --label-map " + ",".join(f"{key}={v}" for key, v in of_run.values.items())


def _modality(modality: str | None, run: TrainedRun) -> Modality:
    if modality is None:
        if len(run.modalities) != 1:
            raise InputError(f"{run.path}: was trained on {' and '.join(run.modalities)}; state the modality")
        return cast(Modality, run.modalities[0])
    if modality not in run.modalities:
        raise InputError(f"modality {modality!r}: the run {run.path} was trained on {', '.join(run.modalities)}")
    return cast(Modality, modality)


def _image(place: Grid | Volume) -> Volume:
    if isinstance(place, Grid):
        return Volume(image_voxels(place), place.affine, place.path, place.header, place.notes)
    values = np.asarray(place.array, dtype=np.float32)
    if not np.isfinite(values).all() or values.min() == values.max():
        raise InputError("image: holds NaN or infinite voxels, or is all of one value")
    return Volume(values, place.affine, place.path, place.header)


def reindexed(indices: npt.NDArray[np.uint8], scheme: LabelScheme, wanted: LabelScheme) -> npt.NDArray[np.uint8]:
    """Indices of one scheme in those of another; structures that the run does not know are background to it."""
    if scheme.keys == wanted.keys:
        return indices
    table = [0, *(wanted.keys.index(key) + 1 if key in wanted.keys else 0 for key in scheme.keys)]
    return np.array(table, dtype=np.uint8)[indices]
