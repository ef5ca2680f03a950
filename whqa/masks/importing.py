"""Another program's masks on the cache grid, stored as the segmenters' own are.

    runs/<experiment>/external/<method>/masks/<case>/<method>.npz    as `whqa.masks.store` has them, without entropy
                                        cases.csv                    index as a segmenter's, with two digests a mask

They serve every fold, as training masks and as test masks. A mask is made again as soon as its prediction, the image,
the reference, the settings or the code that they pass through change (`made_from`); an error-map network remembers
which masks it learned from (`whqa.masks.made_from`), so that a changed prediction is never mixed with older results.
Processes that bring the same masks in at once write the same files, each whole: no lock is needed.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whqa.data.alignment import on_lattice_of
from whqa.data.cache import PreparedCase
from whqa.data.case import Case, Cohort
from whqa.data.folds import Folds
from whqa.data.formats.volume_files import Volume, read_grid, read_label
from whqa.data.preprocess import preprocess_label
from whqa.errors import InputError
from whqa.files import sha256, write_rows
from whqa.masks.external import ExternalMethod, predictions
from whqa.masks.store import MaskItem, mask_path, read_arrays, read_index, write_mask
from whqa.metrics.mask_row import mask_columns, measure_mask
from whqa.parallel import in_processes
from whqa.structures import LabelScheme

Row = Mapping[str, Any]
_PART = LabelScheme("binary mask", {"structure": 1}, aliases={255: "structure"})


@dataclass(frozen=True)
class Imported:
    """The masks of one method: `items` a case each, `digests` "<case>/<method>" -> SHA-256 of the mask's voxels."""

    name: str
    items: tuple[MaskItem, ...]
    digests: Mapping[str, str]


@dataclass(frozen=True)
class _Task:
    """One mask to bring in: `case` has the program's files in place of its reference."""

    case: Case
    prepared: PreparedCase
    fold: int
    made_from: str


def import_masks(
    method: ExternalMethod,
    experiment_dir: Path,
    cohort: Cohort,
    folds: Folds,
    cases: Mapping[str, PreparedCase],
    jobs: int = 1,
) -> Imported:
    """Bring a method's masks to the cache grid of their cases; those that are there already are kept.

    Args:
        method: whose masks.
        experiment_dir: runs/<experiment>.
        cohort: labelled cases.
        folds: of the cohort.
        cases: of the cohort, prepared.
        jobs: processes side by side.

    Raises:
        InputError: a mask is missing, bad, not on its image's grid or holds unknown values, or no mask is there at all.
    """
    place = experiment_dir / "external" / method.name
    scheme = method.scheme_for(cohort)
    tasks = [
        _task(method, case, cohort, scheme, cases[case.id], folds.fold_of(case.id))
        for case in predictions(method, cohort)
    ]
    known = _known_rows(place)
    missing = [task for task in tasks if not _is_sound(method, place, task, known)]
    work = partial(_bring, method, place, cohort.only(cohort.cases[0]), scheme)
    outcomes = in_processes(work, missing, jobs, f"reading masks of {method.name}")
    for task, outcome in zip(missing, outcomes, strict=True):
        if isinstance(outcome, Exception):
            raise outcome
        known[task.case.id] = outcome
    rows = [known[task.case.id] for task in tasks]
    if rows != list(_known_rows(place).values()):
        write_rows(place / "cases.csv", list(rows[0]), rows)
        # read back, so that the first run and all later ones see the same digits
        table = _known_rows(place)
        rows = [table[task.case.id] for task in tasks]
    digests = {f"{row['case']}/{method.name}": row["mask_sha256"] for row in rows}
    return Imported(method.name, tuple(_item(method, place, row) for row in rows), digests)


def _on_cache_grid(case: Case, cohort: Cohort, scheme: LabelScheme, prepared: PreparedCase) -> np.ndarray:
    """Indices of the cohort's scheme, uint8 (D, H, W)."""
    image = read_grid(case.image, cohort.spacing_rule)
    keys = cohort.scheme.keys
    whole: Volume | None = None
    for indices, path, of_file in _files(case, scheme, keys):
        label = on_lattice_of(image, read_label(path, of_file, cohort.spacing_rule, announce=False))
        labels = indices[label.array]
        array = labels if whole is None else np.where(labels != 0, labels, whole.array)
        whole = Volume(array, label.affine, path)
    assert whole is not None
    return preprocess_label(whole, prepared.geometry)


def _files(case: Case, scheme: LabelScheme, keys: Sequence[str]) -> Iterator[tuple[np.ndarray, Path, LabelScheme]]:
    """Each file of a mask with its own scheme and the cohort's index of each of that scheme's indices."""
    if case.label is not None:
        yield _indices(scheme.keys, keys), case.label, scheme
    for key, path in case.parts.items():
        yield _indices((key,), keys), path, _PART


def _indices(of_file: Sequence[str], keys: Sequence[str]) -> np.ndarray:
    found = [0, *(keys.index(key) + 1 if key in keys else 0 for key in of_file)]
    return np.array(found, dtype=np.uint8)


def _task(
    method: ExternalMethod, case: Case, cohort: Cohort, scheme: LabelScheme, prepared: PreparedCase, fold: int
) -> _Task:
    """With a digest of everything that the stored mask follows from; the case's directory is named by the rest."""
    followed = {
        "code": sha256(Path(__file__)),
        "case": prepared.directory.name,
        "files": {str(key): sha256(path) for key, path in {"": case.label, **case.parts}.items() if path is not None},
        "scheme": [scheme.keys, asdict(scheme)],
        "structures": cohort.scheme.keys,
        "spacing_rule": cohort.spacing_rule,
        "unseen": method.unseen,
        "fold": fold,
    }
    digest = hashlib.sha256(json.dumps(followed, sort_keys=True, default=sorted).encode()).hexdigest()
    return _Task(case, prepared, fold, digest[:16])


def _is_sound(method: ExternalMethod, place: Path, task: _Task, known: Mapping[str, Row]) -> bool:
    row = known.get(task.case.id)
    try:
        stored = str(read_arrays(mask_path(place, task.case.id, method.name), "made_from")[0])
    except InputError:
        return False
    return row is not None and row["made_from"] == stored == task.made_from


def _known_rows(place: Path) -> dict[str, Row]:
    """The index by case; what is not readable is not known."""
    try:
        rows = read_index(place)
    except (InputError, UnicodeDecodeError, csv.Error):
        return {}
    return {row["case"]: row for row in rows if all(row.get(key) for key in ("case", "made_from", "mask_sha256"))}


def _bring(method: ExternalMethod, place: Path, cohort: Cohort, scheme: LabelScheme, task: _Task) -> Row:
    """Make and store one mask; its row of the index."""
    case, structures = task.case, cohort.scheme.keys
    mask = _on_cache_grid(case, cohort, scheme, task.prepared)
    path = mask_path(place, case.id, method.name)
    write_mask(path, mask, None, method.name, method.unseen, made_from=np.array(task.made_from))
    reference = torch.from_numpy(np.array(task.prepared.label()))
    numbers = measure_mask(torch.from_numpy(mask), reference, task.prepared.spacing, structures, surfaces=True)
    return {
        "case": case.id,
        "patient": case.patient,
        "fold": task.fold,
        "mask_kind": method.name,
        "segmenter": method.name,
        "unseen": int(method.unseen),
        **{column: numbers[column] for column in mask_columns(structures)},
        "mask_sha256": hashlib.sha256(mask.tobytes()).hexdigest(),
        "made_from": task.made_from,
    }


def _item(method: ExternalMethod, place: Path, row: Row) -> MaskItem:
    path = mask_path(place, row["case"], method.name)
    return MaskItem(
        row["case"], method.name, path, method.name, method.unseen, float(row["error_rate"]), has_entropy=False
    )
