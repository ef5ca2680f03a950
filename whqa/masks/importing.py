"""Another program's masks on the cache grid, stored as the segmenters' own are, and its softmax as an opinion.

    runs/<experiment>/external/<method>/masks/<case>/<method>.npz    as `whqa.masks.store` has them, without entropy
                                                     opinion.npz     see `whqa.masks.external_opinion`
                                        cases.csv                    index as a segmenter's, with two digests a mask
                                                                     and one of its opinion

They serve every fold, as training masks and as test masks. A mask is made again as soon as its prediction, the image,
the reference, the settings or the code that they pass through change (`made_from`); an error-map network remembers
which masks it learned from (`whqa.masks.made_from`), so that a changed prediction is never mixed with older results.
Processes that bring the same masks in at once write the same files, each whole: no lock is needed. Masks of any quality
may be made of them, see `whqa.masks.external_made`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whqa.data.alignment import on_lattice_of
from whqa.data.cache import PreparedCase
from whqa.data.case import Case, Cohort
from whqa.data.folds import Folds
from whqa.data.formats.volume_files import Volume, read_class_maps, read_grid, read_label
from whqa.data.preprocess import preprocess_label
from whqa.data.reading import BINARY_MASK
from whqa.errors import InputError
from whqa.files import sha256, write_rows
from whqa.masks import external_opinion
from whqa.masks.external import ExternalMethod, predictions, probability_files
from whqa.masks.external_opinion import agreement, labels_of_classes, log_probabilities, structures_of_classes
from whqa.masks.opinion import OPINION, Opinion, encode, index_digests, write_opinion
from whqa.masks.store import MaskItem, mask_path, read_arrays, whole_rows, write_mask
from whqa.metrics.mask_row import mask_columns, measure_mask
from whqa.parallel.many import in_processes
from whqa.process import is_first_rank
from whqa.structures import LabelScheme

Row = Mapping[str, Any]
AGREEMENT = 0.9
"""Of each structure: a mask is its program's most probable labels but for what was mended afterwards."""
KEPT = 0.5
"""Of all that is most probably a structure: what a program leaves in its mask at least."""


@dataclass(frozen=True)
class Imported:
    """The masks of one method.

    Attributes:
        name: of the method.
        items: a case each, and those made of them (`whqa.masks.external_made`).
        digests: "<case>/<kind>" -> SHA-256 of the mask's voxels, "<case>/opinion" -> that of the opinion's.
        opinions: by case, where the method gives them.
    """

    name: str
    items: tuple[MaskItem, ...]
    digests: Mapping[str, str]
    opinions: Mapping[str, Opinion]


@dataclass(frozen=True)
class _Task:
    """One mask to bring in: `case` has the program's files in place of its reference."""

    case: Case
    probabilities: Path | None
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
    """Bring a method's masks to the cache grid of their cases, with its probabilities where it states any.

    What is there already is kept.

    Args:
        method: whose masks.
        experiment_dir: runs/<experiment>.
        cohort: labelled cases.
        folds: of the cohort.
        cases: of the cohort, prepared.
        jobs: processes side by side.

    Raises:
        InputError: a mask is missing, bad, not on its image's grid or holds unknown values, or no mask is there at all;
            none has a voxel in common with its reference; or probabilities are missing or bad, or are not those of
            their mask.
    """
    place = experiment_dir / "external" / method.name
    scheme, predicted = method.scheme_for(cohort), predictions(method, cohort)
    softmax = {} if method.probabilities is None else probability_files(method, predicted)
    tasks = [
        _task(method, case, softmax.get(case.id), cohort, scheme, cases[case.id], folds.fold_of(case.id))
        for case in predicted
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
    _refuse_unlikely(method, rows, cohort.scheme.keys)
    opinions = {case: Opinion(case, mask_path(place, case, OPINION), method.name) for case in softmax}
    return Imported(method.name, tuple(_item(method, place, row) for row in rows), index_digests(place), opinions)


def _refuse_unlikely(method: ExternalMethod, rows: Sequence[Row], keys: Sequence[str]) -> None:
    """Masks of a wrong folder, of wrong label values or of another cohort's cases; what is only odd is told."""
    dice = np.array([[float(row[f"dice_{key}"] or "nan") for key in keys] for row in rows])
    known = dice[~np.isnan(dice)]
    if known.size and not known.any():
        raise InputError(
            f"{method.root}: no mask of {method.name} has a structure in common with its reference; are they of these "
            f"cases? correct {method}.root, {method}.pattern or {method}.scheme, or take {method.name} out"
        )
    if is_first_rank():
        for line in _odd(method, rows, dice, keys):
            print(f"note: {method}: {line}", file=sys.stderr)


def _odd(
    method: ExternalMethod, rows: Sequence[Row], dice: npt.NDArray[np.float64], keys: Sequence[str]
) -> Iterator[str]:
    if all(float(row["error_rate"]) == 0 for row in rows):
        yield (
            f"all {len(rows)} masks are the references themselves, to the voxel; if that is not meant, correct "
            f"{method}.root"
        )
    columns = zip(keys, dice.T, strict=True)
    never = [key for key, of_key in columns if len(rows) > 1 and not np.nansum(of_key) and not np.isnan(of_key).all()]
    if never:
        yield (
            f"{', '.join(never)} of its masks meets the reference in none of {len(rows)} cases; if another label value "
            f"stands for it, state {method}.scheme"
        )


def _on_image_grid(case: Case, cohort: Cohort, scheme: LabelScheme) -> Volume:
    """Indices of the cohort's scheme, uint8 (X, Y, Z)."""
    image = read_grid(case.image, cohort.spacing_rule)
    keys = cohort.scheme.keys
    whole: Volume | None = None
    for indices, path, of_file in _files(case, scheme, keys):
        label = on_lattice_of(image, read_label(path, of_file, cohort.spacing_rule, announce=False))
        labels = indices[label.array]
        array = labels if whole is None else np.where(labels != 0, labels, whole.array)
        whole = Volume(array, label.affine, path)
    assert whole is not None
    return whole


def _opinion(method: ExternalMethod, task: _Task, mask: Volume, scheme: LabelScheme, cohort: Cohort) -> Tensor:
    """log p_S (C + 1, D, H, W), once it is known to be of the mask's program.

    Raises:
        InputError: it is not, or cannot be read.
    """
    case, keys = task.case, cohort.scheme.keys
    assert task.probabilities is not None
    assert case.label is not None
    grids = [read_grid(path, cohort.spacing_rule) for path in (case.label, case.image)]
    maps = read_class_maps(task.probabilities, grids, cohort.spacing_rule)
    remedy = f"say what it stands for in ++{method}.scheme, if it is another organ by ignore:[...]"
    structures = structures_of_classes(maps, scheme, keys, remedy)
    shares = agreement(labels_of_classes(maps, structures, grids[1]), mask.array, cohort.scheme.n_classes)
    least = np.nan_to_num(shares, nan=1.0)
    if least[0] < KEPT or (least[1:] < AGREEMENT).any():
        worst = 0 if least[0] < KEPT else 1 + int(least[1:].argmin())
        what = f"structure {keys[worst - 1]}" if worst else "all structures"
        raise InputError(
            f"{task.probabilities}: case {case.id}: its most probable labels and the mask {case.label} have only "
            f"{100 * least[worst]:.0f} % of {what} in common; they are of another prediction, or their axes or classes "
            f"stand in another order than (class, z, y, x) and the label values; give those that {method.name} wrote "
            f"with this mask, or leave {method}.probabilities out"
        )
    return log_probabilities(maps, structures, cohort.scheme.n_classes, grids[1], task.prepared.geometry)


def _files(case: Case, scheme: LabelScheme, keys: Sequence[str]) -> Iterator[tuple[np.ndarray, Path, LabelScheme]]:
    """Each file of a mask with its own scheme and the cohort's index of each of that scheme's indices."""
    if case.label is not None:
        yield _indices(scheme.keys, keys), case.label, scheme
    for key, path in case.parts.items():
        yield _indices((key,), keys), path, BINARY_MASK


def _indices(of_file: Sequence[str], keys: Sequence[str]) -> np.ndarray:
    found = [0, *(keys.index(key) + 1 if key in keys else 0 for key in of_file)]
    return np.array(found, dtype=np.uint8)


def _task(
    method: ExternalMethod,
    case: Case,
    probabilities: Path | None,
    cohort: Cohort,
    scheme: LabelScheme,
    prepared: PreparedCase,
    fold: int,
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
    if probabilities is not None:
        code = [sha256(Path(inspect.getfile(made))) for made in (external_opinion, read_class_maps, encode)]
        followed["probabilities"] = [sha256(probabilities), *code]
    digest = hashlib.sha256(json.dumps(followed, sort_keys=True, default=sorted).encode()).hexdigest()
    return _Task(case, probabilities, prepared, fold, digest[:16])


def _is_sound(method: ExternalMethod, place: Path, task: _Task, known: Mapping[str, Row]) -> bool:
    row, case = known.get(task.case.id), task.case.id
    try:
        stored = str(read_arrays(mask_path(place, case, method.name), "made_from")[0])
        codes = None if task.probabilities is None else read_arrays(mask_path(place, case, OPINION), "log_p")[0]
    except InputError:
        return False
    if row is None or not row["made_from"] == stored == task.made_from:
        return False
    return codes is None or digest_of(codes) == row.get("opinion_sha256")


def _known_rows(place: Path) -> dict[str, Row]:
    return {row["case"]: row for row in whole_rows(place)}


def _bring(method: ExternalMethod, place: Path, cohort: Cohort, scheme: LabelScheme, task: _Task) -> Row:
    """Make and store one mask; its row of the index."""
    case, structures = task.case, cohort.scheme.keys
    labels = _on_image_grid(case, cohort, scheme)
    mask = preprocess_label(labels, task.prepared.geometry)
    said = {} if task.probabilities is None else _keep_opinion(method, place, cohort, scheme, task, labels)
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
        "mask_sha256": digest_of(mask),
        **said,
        "made_from": task.made_from,
    }


def _keep_opinion(
    method: ExternalMethod, place: Path, cohort: Cohort, scheme: LabelScheme, task: _Task, labels: Volume
) -> Row:
    """Make and store the opinion on one case; what the row of its mask says of it."""
    log_p = _opinion(method, task, labels, scheme, cohort)
    write_opinion(place, task.case.id, log_p, method.unseen)
    return {"opinion_sha256": digest_of(encode(log_p))}


def digest_of(array: np.ndarray) -> str:
    """SHA-256 of the values of a mask or an opinion."""
    return hashlib.sha256(array.tobytes()).hexdigest()


def _item(method: ExternalMethod, place: Path, row: Row) -> MaskItem:
    path = mask_path(place, row["case"], method.name)
    return MaskItem(
        row["case"], method.name, path, method.name, method.unseen, float(row["error_rate"]), has_entropy=False
    )
