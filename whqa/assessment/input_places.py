"""The files of an assessment and what their headers say: of a scan, of a mask, or of the parts of one.

DICOM has no header of a volume: its voxels are read with its place.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from whqa.assessment.in_memory import in_memory
from whqa.assessment.model import TrainedRun
from whqa.assessment.structure_files import is_structure_folder, structure_files
from whqa.data.case import Modality
from whqa.data.dicom.dicom_files import folder_digest, require_dicom
from whqa.data.dicom.dicom_masks import read_dicom_mask, series_of_mask
from whqa.data.dicom.series import DicomImage, read_series
from whqa.data.formats.file_names import case_name
from whqa.data.formats.volume_files import Grid, SpacingRule, Volume, by_affine, holds_dicom, read_grid, read_layers
from whqa.data.sources.names import APPENDAGE, HEART
from whqa.errors import InputError
from whqa.files import sha256
from whqa.structures import LabelScheme

_Place = TypeVar("_Place", bound=Grid | Volume)


@dataclass(frozen=True)
class InputFile:
    """A file that is to be judged, or that holds a mask; it is hashed when its digest is first asked for.

    A mask may be a folder of structure files, both may be folders of DICOM files; the digest then is that of names and
    digests.
    """

    path: Path

    @cached_property
    def is_dicom(self) -> bool:
        """Whether it is DICOM, or a folder or a zip archive of it; a folder of structure files is none."""
        return not (self.path.is_dir() and is_structure_folder(self.path)) and holds_dicom(self.path)

    @property
    def is_folder_of_parts(self) -> bool:
        """Whether it is a folder with one file for each structure."""
        return self.path.is_dir() and not self.is_dicom

    @cached_property
    def sha256(self) -> str:
        """Hexadecimal digest of its bytes.

        Raises:
            InputError: there is no such file, or it cannot be read.
        """
        if not self.path.is_dir():
            return sha256(self.path)
        if self.is_dicom:
            return folder_digest(self.path)
        lines = [f"{path.name} {sha256(path)}\n" for path in structure_files(self.path).values()]
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def file_of(given: Any) -> InputFile | None:
    """The file that a path or an `InputFile` names; None for what is in memory."""
    if isinstance(given, str | Path):
        return InputFile(Path(given))
    return given if isinstance(given, InputFile) else None


def conflict_of(place: Grid | Volume) -> list[str]:
    """How a header contradicts itself, in a sentence."""
    if not place.conflict:
        return []
    return [f"the header of {place.path.name} contradicts itself, {place.conflict}; using {place.spacing_rule}"]


def _grid(path: Path, run: TrainedRun) -> Grid:
    return _refused(read_grid(path, _reading_rule(run)), run, f"write the file by it: {by_affine(path)}")


def place_in_memory(given: Any, what: str, run: TrainedRun) -> Volume:
    """A volume that is no file, placed by the run's rule.

    Raises:
        InputError: see `whqa.assessment.in_memory.in_memory`; or the header contradicts itself, which the run refuses.
    """
    remedy = f"make it anew: nibabel.Nifti1Image({what}.dataobj, {what}.affine)"
    return _refused(in_memory(given, what, _reading_rule(run)), run, remedy)


def _reading_rule(run: TrainedRun) -> SpacingRule:
    return "pixdim" if run.spacing_rule == "refuse" else run.spacing_rule


def _refused(place: _Place, run: TrainedRun, remedy: str) -> _Place:
    """The place, unless its header contradicts itself and the run refuses that."""
    if place.conflict and run.spacing_rule == "refuse":
        raise InputError(
            f"{place.path}: {place.conflict}, which the run {run.path} refuses; if the affine is right, {remedy}",
            "header-conflict",
        )
    return place


def place_of_scan(image: InputFile, mask: InputFile | None, run: TrainedRun, series: str | None) -> Grid | Volume:
    """Header of a scan, or a DICOM series with its voxels: the one that `series` names, or the mask.

    Raises:
        InputError: the file is bad, or holds several series.
    """
    if image.is_dicom:
        require_dicom(image.path)
        return read_series(image.path, series, series_of_mask(mask.path) if mask and mask.is_dicom else ())
    if series is not None:
        raise InputError(f"{image.path}: is no DICOM, so there is no series to choose; leave --series {series} out")
    return _grid(image.path, run)


def told_of_series(place: DicomImage | None, kind: Modality) -> tuple[str, ...]:
    """What reading a DICOM series had to assume, to stand behind its name; it is judged as `kind`."""
    if place is None:
        return ()
    notes = place.notes
    if kind != place.modality:
        notes += (f"its files say {place.modality.upper()}, it is judged as {kind.upper()}, as was stated",)
    if not place.source.frame_of_reference:
        notes += ("its files name no frame of reference, so that there are no results as DICOM",)
    return notes


def name_of_case(path: Path) -> str:
    """Of a case: that of its file, or of the folder or archive of a series."""
    path = path if path.name else path.resolve()
    return case_name(path.stem if path.suffix.lower() in (".dcm", ".zip") else path.name)


def _map(path: Path, run: TrainedRun) -> Grid | Volume:
    """Header of a label map, or what was made of its layers."""
    try:
        return _grid(path, run)
    except InputError as error:
        layers = read_layers(path, run.spacing_rule) if error.code == "several-volumes" else None
        if layers is None:
            raise
        return layers


def places_of_mask(
    mask: Any, image: Grid | Volume, run: TrainedRun, stated: LabelScheme | None
) -> dict[str, Grid | Volume]:
    """Headers of the mask's files: of each structure where it is a folder of them, else of the whole, under ""."""
    if not isinstance(mask, InputFile):
        return {"": place_in_memory(mask, "mask", run)}
    if mask.is_dicom:
        return {"": read_dicom_mask(mask.path, image, run.scheme.keys, stated)}
    if not mask.is_folder_of_parts:
        return {"": _map(mask.path, run)}
    files = structure_files(mask.path)
    judged = {key: path for key, path in files.items() if key in (*run.scheme.keys, HEART, APPENDAGE)}
    if not judged:
        raise InputError(
            f"{mask.path}: holds {', '.join(files)}, and nothing of what the run {run.path} judges "
            f"({', '.join(run.scheme.keys)}); give a mask of these, or another --model"
        )
    return {key: _grid(path, run) for key, path in judged.items()}
