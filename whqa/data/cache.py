"""Preprocessed cases on disk, made once and read memory-mapped.

A case's directory is named by a digest of everything that its arrays follow from: the bytes of its files, the settings,
the label scheme and the source of the modules that make them. So nothing stale is ever read, and cohorts and
experiments share a cache. The directory is filled beside its place and renamed into it, whole; of two processes that
prepare one case the first wins.

    <directory>/<case id>-<digest>/image.npy    float16 (D, H, W)
                                   label.npy    uint8   (D, H, W), of labelled cases
                                   case.json    shape, spacing, geometry, what the crop cut away
    <directory>/hashes/<digest>                 SHA-256 of a file by (path, size, time), so that it is read once
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import sys
import uuid
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from whqa.data import nifti, nifti_header, preprocess, reading, resample, stream, volume
from whqa.data.case import Case, Cohort, Modality
from whqa.data.nifti import Volume
from whqa.data.preprocess import Geometry, Preprocess, lost_voxels, preprocess_image, preprocess_label
from whqa.data.reading import read_case
from whqa.errors import InputError
from whqa.files import write_json, write_text

_MAX_LOST = 0.01


class CropWarning(UserWarning):
    """Preprocessing cut a visible part of a structure away."""


@dataclass(frozen=True)
class PreparedCase:
    """A case in the cache; small enough to send to workers, its arrays stay on disk.

    Attributes:
        id, patient, modality: of the case.
        directory: of its arrays.
        shape: of the cache grid (D, H, W).
        spacing: mm along D, H, W.
        geometry: the way back to the original grid.
        has_label: whether there is a reference.
    """

    id: str
    patient: str
    modality: Modality
    directory: Path
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    geometry: Geometry
    has_label: bool

    def image(self) -> np.memmap[Any, np.dtype[np.float16]]:
        """Normalised image, float16 (D, H, W), memory-mapped."""
        return _mapped(self.directory / "image.npy")

    def label(self) -> np.memmap[Any, np.dtype[np.uint8]]:
        """Reference indices, uint8 (D, H, W), memory-mapped.

        Raises:
            InputError: the case has no reference.
        """
        if not self.has_label:
            raise InputError(f"case {self.id!r} has no reference label map")
        return _mapped(self.directory / "label.npy")


class Cache:
    """Prepared cases of one setting in a directory, which several settings and processes may share."""

    def __init__(self, directory: Path, settings: Preprocess) -> None:
        self.directory = Path(directory)
        self.settings = settings

    def prepare(self, cohort: Cohort, case: Case) -> PreparedCase:
        """The case from the cache, made first where it is missing.

        Raises:
            InputError: a file of the case is bad, the label map is empty, or the crop leaves nothing of a structure.
        """
        place = self.directory / f"{case.id}-{self._digest(cohort, case)}"
        record = _read_record(place)
        if record is None:
            self._make(place, cohort, case)
            record = _read_record(place)
            if record is None:
                raise InputError(f"{place}: cache entry vanished while it was made; run again")
        geometry = Geometry.from_dict(record["geometry"])
        return PreparedCase(
            case.id,
            case.patient,
            case.modality,
            place,
            geometry.shape,
            geometry.spacing,
            geometry,
            "label.npy" in record["bytes"],
        )

    def _digest(self, cohort: Cohort, case: Case) -> str:
        followed = {
            "code": _code_version(),
            "settings": asdict(self.settings),
            "image": self._hash(case.image),
            "label": None if case.label is None else self._hash(case.label),
            "parts": {key: self._hash(path) for key, path in case.parts.items()},
            "modality": case.modality,
            "scheme": [
                list(cohort.scheme.values.items()),
                sorted(cohort.scheme.aliases.items()),
                sorted(cohort.scheme.ignored),
            ],
            "spacing_rule": cohort.spacing_rule,
        }
        return hashlib.sha256(json.dumps(followed, sort_keys=True).encode()).hexdigest()[:16]

    def _hash(self, path: Path) -> str:
        try:
            status = path.stat()
            key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}"
            memo = self.directory / "hashes" / hashlib.sha256(key.encode()).hexdigest()[:32]
            if memo.exists():
                return memo.read_text(encoding="ascii")
            with open(path, "rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise InputError(f"{path}: not readable ({error.strerror}); was it moved?") from None
        write_text(memo, digest)
        return digest

    def _make(self, place: Path, cohort: Cohort, case: Case) -> None:
        image, label = read_case(cohort, case)
        values, geometry = preprocess_image(image, case.modality, self.settings)
        arrays: dict[str, npt.NDArray[Any]] = {"image.npy": values.astype(np.float16)}
        lost: dict[str, float] = {}
        if label is not None:
            arrays["label.npy"], lost = _prepared_label(label, geometry, cohort, case)
        _write_entry(place, arrays, {"geometry": geometry.to_dict(), "lost": lost})


def prepare_cohort(cohort: Cohort, cache: Cache, progress: bool = True) -> dict[str, PreparedCase]:
    """All cases of a cohort by id, in its order; a progress bar shows on a terminal only.

    Raises:
        InputError: the first bad case.
    """
    console = Console(file=sys.stderr)
    return {
        case.id: cache.prepare(cohort, case)
        for case in track(
            cohort.cases,
            description=f"preparing {cohort.name}",
            console=console,
            transient=True,
            disable=not (progress and console.is_terminal),
        )
    }


@functools.cache
def _code_version() -> str:
    """Digest of the modules that decide what the arrays are: a number raised by hand would be forgotten one day."""
    modules = (nifti, nifti_header, stream, volume, reading, preprocess, resample)
    return hashlib.sha256(b"".join(Path(str(m.__file__)).read_bytes() for m in modules)).hexdigest()


def _prepared_label(
    label: Volume, geometry: Geometry, cohort: Cohort, case: Case
) -> tuple[npt.NDArray[np.uint8], dict[str, float]]:
    """Label indices on the cache grid, and the share of each structure that the crop cuts away."""
    keys = cohort.scheme.keys
    lost = {keys[index - 1]: share for index, share in lost_voxels(label, geometry).items()}
    if not lost:
        raise InputError(f"{label.path}: empty label map, all background; add the structures or remove the case")
    gone = [key for key, share in lost.items() if share >= 1]
    if gone:
        raise InputError(
            f"{label.path}: the crop of case {case.id!r} leaves nothing of {', '.join(gone)}; enlarge crop_mm or "
            "choose another centre"
        )
    array = preprocess_label(label, geometry)
    cut = [f"{100 * share:.1f} % of {key}" for key, share in lost.items() if share > _MAX_LOST]
    present = np.bincount(array.ravel(), minlength=len(keys) + 1)
    cut += [f"all of {key} (thinner than the grid)" for key in lost if not present[keys.index(key) + 1]]
    if cut:
        warnings.warn(f"case {case.id!r}: preprocessing cuts away {', '.join(cut)}", CropWarning, stacklevel=4)
    return array, lost


def _write_entry(place: Path, arrays: dict[str, npt.NDArray[Any]], record: dict[str, Any]) -> None:
    temporary = place.parent / f".{uuid.uuid4().hex[:8]}.{place.name}"
    temporary.mkdir(parents=True)
    try:
        for name, array in arrays.items():
            np.save(temporary / name, array)
        sizes = {name: (temporary / name).stat().st_size for name in arrays}
        write_json(temporary / "case.json", {**record, "bytes": sizes})
        if place.exists() and _read_record(place) is None:
            # somebody removed files from the entry: it is of no use to anyone
            shutil.rmtree(place, ignore_errors=True)
        os.rename(temporary, place)
    except OSError:
        # another process was first if its entry is sound; anything else is a real failure
        if _read_record(place) is None:
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read_record(place: Path) -> dict[str, Any] | None:
    """The record of a sound entry, or None."""
    try:
        record: dict[str, Any] = json.loads((place / "case.json").read_text(encoding="utf-8"))
        sound = all((place / name).stat().st_size == size for name, size in record["bytes"].items())
    except (OSError, ValueError, KeyError):
        return None
    return record if sound else None


def _mapped(path: Path) -> np.memmap[Any, Any]:
    array = np.load(path, mmap_mode="r")
    assert isinstance(array, np.memmap)
    return array
