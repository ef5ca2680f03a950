"""Preprocessed cases on disk, made once and read memory-mapped.

A case's directory is named by a digest of everything that its arrays follow from: the bytes of its files, the settings,
the label scheme and the source of the modules that make them. So nothing stale is ever read, and cohorts and
experiments share a cache. The directory is filled beside its place and renamed into it, whole; a process that dies
leaves nothing that is taken for an entry.

    <directory>/<case id>-<digest>/image.npy    float16 (D, H, W), C order
                                   label.npy    uint8   (D, H, W), C order, of labelled cases
                                   points.npy   int16   (n, 4), voxels of each structure to centre patches on
                                   case.json    geometry, smallest value, what the crop cut away, SHA-256 of the arrays
    <directory>/hashes/<digest>                 SHA-256 of a file by (path, size, times), so that it is read once
    <directory>/locks/<case id>-<digest>        held while the entry is made, so that no two processes make it
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whqa.data.case import Case, Cohort, Modality
from whqa.data.formats.volume_files import Volume
from whqa.data.points import structure_points
from whqa.data.preprocess import (
    Geometry,
    Preprocess,
    heart_of,
    lost_voxels,
    preprocess_image,
    preprocess_label,
)
from whqa.data.reading import read_case
from whqa.errors import InputError
from whqa.files import sha256, write_json, write_text
from whqa.process import exclusive
from whqa.structures import GREAT_VESSELS

_MAX_LOST = 0.01
# A file younger than this could change once more without a change of its times, which some file systems keep in
# steps of two seconds.
_SETTLED_S = 2.0
_ENTRY = re.compile(r"(\.[0-9a-f]{8}\.)?.+-[0-9a-f]{16}")
# The modules that decide what the arrays are.
_FORMATS = (
    *("volume", "stream", "nifti_header", "nifti_placement", "volume_files"),
    *("itk_header", "itk", "label_values", "file_names"),
)
_MAKERS = (
    *(f"data/formats/{name}" for name in _FORMATS),
    *(
        "structures",
        "data/reading",
        "data/alignment",
        "data/resample",
        "data/preprocess",
        "data/preprocess_settings",
        "data/points",
    ),
)


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
        minimum: smallest value of the image, which stands for what lies outside of it.
        digests: SHA-256 of the files that it was made from: "image", and "label" or "label <structure>" of every part.
    """

    id: str
    patient: str
    modality: Modality
    directory: Path
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    geometry: Geometry
    has_label: bool
    minimum: float
    digests: Mapping[str, str]

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

    def structures(self) -> list[npt.NDArray[np.int16]]:
        """Voxels of each structure that is present, evenly spread, at most `points.POINTS` of each: (n, 3) each."""
        points = np.load(self.directory / "points.npy")
        return [points[points[:, 0] == index, 1:] for index in np.unique(points[:, 0])]


class Cache:
    """Prepared cases of one setting in a directory, which several settings and processes may share."""

    def __init__(self, directory: Path, settings: Preprocess) -> None:
        self.directory = Path(directory)
        self.settings = settings

    def prepare(self, cohort: Cohort, case: Case) -> PreparedCase:
        """The case from the cache, made first where it is missing; waits where another process makes it.

        Raises:
            InputError: a file of the case is bad or changes under our hands, the label map is empty, or the crop leaves
                nothing of a structure.
        """
        result = self.try_prepare(cohort, case, wait=True)
        assert result is not None
        return result[0]

    def try_prepare(self, cohort: Cohort, case: Case, wait: bool = False) -> tuple[PreparedCase, bool] | None:
        """As `prepare`, with whether this call made the case; without `wait` None where another process is at it."""
        digests = self._digests(case)
        place = self._place(cohort, case, digests)
        prepared = _prepared(place, case, digests)
        if prepared is not None and self._unchanged(place):
            return prepared, False
        with exclusive(self.directory / "locks" / place.name, wait) as ours:
            if not ours:
                return None
            prepared = _prepared(place, case, digests)
            if prepared is not None and self._unchanged(place):
                return prepared, False
            if prepared is not None:
                shutil.rmtree(place, ignore_errors=True)
            _remove_leftovers(place)
            self._make(place, cohort, case)
            prepared = _prepared(place, case, digests)
            if prepared is None:
                raise InputError(f"{place}: cache entry vanished while it was made; run again")
            return prepared, True

    def find(self, cohort: Cohort, case: Case) -> PreparedCase | None:
        """The case where it is in the cache as it was made, and its files are known; makes nothing."""
        if any(self._remembered(path) is None for path in case.files):
            return None
        digests = self._digests(case)
        place = self._place(cohort, case, digests)
        prepared = _prepared(place, case, digests)
        return prepared if prepared is not None and self._unchanged(place) else None

    def sizes(self) -> dict[Path, int]:
        """Bytes of every entry, of all settings that share the directory."""
        folders = [p for p in _subfolders(self.directory) if not p.name.startswith(".")]
        return {p: _size(p) for p in folders}

    def prune(self, kept: Iterable[PreparedCase]) -> int:
        """Remove all other entries and what killed processes left; returns how many entries were removed.

        What another process makes at this moment stays.
        """
        wanted, removed = {case.directory.name for case in kept}, 0
        for folder in _subfolders(self.directory):
            name = folder.name[10:] if folder.name.startswith(".") else folder.name
            if folder.name in wanted:
                continue
            with exclusive(self.directory / "locks" / name, wait=False) as ours:
                if ours:
                    removed += not folder.name.startswith(".")
                    shutil.rmtree(folder, ignore_errors=True)
        return removed

    def _digests(self, case: Case) -> dict[str, str]:
        files = {"image": case.image} | {_part(key): path for key, path in case.parts.items()}
        files |= {} if case.label is None else {"label": case.label}
        return {what: self._hash(path) for what, path in files.items()}

    def _place(self, cohort: Cohort, case: Case, digests: Mapping[str, str]) -> Path:
        followed = {
            "code": _code_version(),
            "settings": asdict(self.settings),
            "image": digests["image"],
            "label": digests.get("label"),
            "parts": [[key, digests[_part(key)]] for key in case.parts],
            "modality": case.modality,
            "scheme": [
                list(cohort.scheme.values.items()),
                sorted(cohort.scheme.aliases.items()),
                sorted(cohort.scheme.ignored),
            ],
            "spacing_rule": cohort.spacing_rule,
        }
        digest = hashlib.sha256(json.dumps(followed, sort_keys=True).encode()).hexdigest()[:16]
        return self.directory / f"{case.id}-{digest}"

    def _unchanged(self, place: Path) -> bool:
        """Whether the arrays of an entry hold what was written; they are read only where they changed since."""
        # entries of earlier versions do not say
        known: dict[str, str] = (_read_record(place) or {}).get("sha256", {})
        return all(self._hash(place / name) == digest for name, digest in known.items())

    def _hash(self, path: Path) -> str:
        remembered = self._remembered(path)
        if remembered is not None:
            return remembered
        memo, settled = None, False
        # what is wrong with the file, its digest says
        with suppress(OSError):
            memo, settled = self._memo(path)
        digest = sha256(path)
        if memo and settled:
            with suppress(OSError):
                write_text(memo, digest)
        return digest

    def _remembered(self, path: Path) -> str | None:
        try:
            known = self._memo(path)[0].read_text(encoding="ascii")
        except (OSError, ValueError):
            return None
        # a torn one would say that the file changed
        return known if re.fullmatch("[0-9a-f]{64}", known) else None

    def _memo(self, path: Path) -> tuple[Path, bool]:
        """Where the hash of the file as it is now is kept, and whether the file is old enough for that.

        The time of the last change of status is part of the key because nobody can set it.
        """
        status = path.stat()
        key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}"
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        return self.directory / "hashes" / name, time.time() - max(status.st_mtime, status.st_ctime) > _SETTLED_S

    def _make(self, place: Path, cohort: Cohort, case: Case) -> None:
        image, label = read_case(cohort, case, compact=True)
        keys, round_heart = cohort.scheme.keys, self.settings.centre == "heart"
        heart = heart_of(label, keys) if label is not None and round_heart else None
        values, geometry = preprocess_image(image, case.modality, self.settings, heart)
        arrays: dict[str, npt.NDArray[Any]] = {"image.npy": values.astype(np.float16)}
        lost: dict[str, float] = {}
        if label is not None:
            kept_whole = frozenset(keys) - (GREAT_VESSELS if round_heart else frozenset())
            arrays["label.npy"], lost = _prepared_label(label, geometry, keys, kept_whole, case)
            arrays["points.npy"] = structure_points(arrays["label.npy"])
        if self._place(cohort, case, self._digests(case)) != place:
            raise InputError(f"{case.image}: this file or its label map changed while it was read; run again")
        minimum = float(arrays["image.npy"].min())
        digests = _write_entry(place, arrays, {"geometry": geometry.to_dict(), "minimum": minimum, "lost": lost})
        for name, digest in digests.items():
            with suppress(OSError):
                write_text(self._memo(place / name)[0], digest)


@functools.cache
def _code_version() -> str:
    """Digest of the modules that decide what the arrays are: a number raised by hand would be forgotten one day."""
    package = Path(__file__).parents[1]
    return hashlib.sha256(b"".join((package / f"{name}.py").read_bytes() for name in _MAKERS)).hexdigest()


def _part(structure: str) -> str:
    return f"label {structure}"


def _prepared(place: Path, case: Case, digests: Mapping[str, str]) -> PreparedCase | None:
    record = _read_record(place)
    if record is None:
        return None
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
        float(record["minimum"]),
        digests,
    )


def _prepared_label(
    label: Volume, geometry: Geometry, keys: tuple[str, ...], kept_whole: frozenset[str], case: Case
) -> tuple[npt.NDArray[np.uint8], dict[str, float]]:
    """Label indices on the cache grid, and the share of each structure that the crop cuts away."""
    lost = {keys[index - 1]: share for index, share in lost_voxels(label, geometry).items()}
    if not lost:
        raise InputError(f"{label.path}: empty label map, all background; add the structures or remove the case")
    gone = [key for key, share in lost.items() if share >= 1 and key in kept_whole]
    if gone:
        raise InputError(
            f"{label.path}: the crop of case {case.id!r} leaves nothing of {', '.join(gone)}; enlarge "
            "preprocess.crop_mm or choose another preprocess.centre"
        )
    array = preprocess_label(label, geometry)
    cut = [f"{100 * share:.1f} % of {key}" for key, share in lost.items() if share > _MAX_LOST and key in kept_whole]
    present = np.bincount(array.ravel(), minlength=len(keys) + 1)
    cut += [
        f"all of {key} (thinner than the grid)"
        for key, share in lost.items()
        if not present[keys.index(key) + 1] and (share < 1 or key in kept_whole)
    ]
    if cut:
        warnings.warn(f"case {case.id!r}: preprocessing cuts away {', '.join(cut)}", CropWarning, stacklevel=5)
    return array, lost


def _write_entry(place: Path, arrays: dict[str, npt.NDArray[Any]], record: dict[str, Any]) -> dict[str, str]:
    """Digests of the arrays as they were written."""
    temporary = place.parent / f".{uuid.uuid4().hex[:8]}.{place.name}"
    try:
        temporary.mkdir(parents=True)
        for name, array in arrays.items():
            np.save(temporary / name, array)
        sizes = {name: (temporary / name).stat().st_size for name in arrays}
        digests = {name: sha256(temporary / name) for name in arrays}
        write_json(temporary / "case.json", {**record, "bytes": sizes, "sha256": digests})
        if place.exists() and _read_record(place) is None:
            # somebody removed files from the entry: it is of no use to anyone
            shutil.rmtree(place, ignore_errors=True)
        os.rename(temporary, place)
        return digests
    except OSError as error:
        # where the file system has no locks another process may have been first; anything else is a real failure
        if _read_record(place) is None:
            why = error.strerror or error
            raise InputError(f"{place}: cannot be written ({why}); make room, or choose another cache_dir") from None
        return {}
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(place: Path) -> None:
    """What killed processes left of this entry; to be called while its lock is held."""
    for folder in _subfolders(place.parent):
        if folder.name.startswith(".") and folder.name[10:] == place.name:
            shutil.rmtree(folder, ignore_errors=True)


def _subfolders(directory: Path) -> Iterator[Path]:
    """Entries, and entries in the making, whose names are those of entries behind a dot, 8 letters and a dot."""
    found = list(os.scandir(directory)) if directory.is_dir() else []
    # a cache directory may hold what is not ours
    return (Path(entry.path) for entry in found if _ENTRY.fullmatch(entry.name) and entry.is_dir())


def _size(folder: Path) -> int:
    total = 0
    for path in folder.iterdir():
        # another process may be at it
        with suppress(OSError):
            total += path.stat().st_size
    return total


def _read_record(place: Path) -> dict[str, Any] | None:
    """The record of a sound entry, or None: what is damaged is made again, whatever is wrong with it."""
    try:
        record: dict[str, Any] = json.loads((place / "case.json").read_text(encoding="utf-8"))
        shape, _ = Geometry.from_dict(record["geometry"]).shape, float(record["minimum"])
        sound = {"image.npy"} <= record["bytes"].keys()
        for name, size in record["bytes"].items():
            sound &= (place / name).stat().st_size == size
            sound &= name == "points.npy" or _mapped(place / name).shape == shape
    except Exception:
        return None
    return record if sound else None


def _mapped(path: Path) -> np.memmap[Any, Any]:
    array = np.load(path, mmap_mode="r")
    assert isinstance(array, np.memmap)
    return array
