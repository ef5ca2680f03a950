"""Masks of any quality made of other programs' masks, in an experiment whose segmenters make none.

    runs/<experiment>/external/<method>/masks/<case>/<kind>.npz    as a segmenter's, see `whqa.masks.faulty`
                                        made.csv                   their index, as that of the method's masks

A judge that learned from one program's masks alone would take every mask for one of these. So of every case there are
the reference itself and all that is made of it and of a program's mask, in the place of a segmenter's final one; where
several programs have masks of a case, one is drawn from (seed, case), of those that are learned from if any is named.
Where a program gives its softmax, masks drawn from it (`whqa.masks.drawn`) take the place of those of augmented images.
They are as unseen as the mask they are made of, and are made again as soon as it, the softmax, the case, the seed or
the code that they pass through changes.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from whqa.data.cache import PreparedCase
from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.files import sha256, write_rows
from whqa.masks import corruption, drawn, faults, faulty, opinion
from whqa.masks.corruption import Labels
from whqa.masks.drawn import drawn_masks
from whqa.masks.faulty import faulty_masks
from whqa.masks.importing import Imported, digest_of
from whqa.masks.opinion import MADE_INDEX, OPINION, Opinion, index_digests
from whqa.masks.plan import AUGMENTED_KINDS
from whqa.masks.store import MaskItem, mask_path, read_arrays, whole_rows, write_mask
from whqa.metrics.mask_row import mask_columns, measure_mask
from whqa.parallel.many import in_processes

Row = Mapping[str, Any]
Key = tuple[str, str]
"""Case and mask kind."""


@dataclass(frozen=True)
class _Task:
    """The masks to make of one case: `base` is the program's mask, `opinion` what a program's softmax says."""

    base: MaskItem
    opinion: Opinion | None
    prepared: PreparedCase
    fold: int
    made_from: str

    def fitting(self, kinds: Sequence[str]) -> list[str]:
        """Those that can be made: without a softmax none is drawn."""
        return [kind for kind in kinds if self.opinion is not None or kind not in AUGMENTED_KINDS]

    @property
    def place(self) -> Path:
        """Directory of the program."""
        return self.base.path.parents[2]


def with_made_masks(
    imported: Sequence[Imported],
    kinds: Sequence[str],
    experiment_dir: Path,
    structures: Sequence[str],
    folds: Folds,
    cases: Mapping[str, PreparedCase],
    seed: int,
    learned_from: Collection[str] | None = None,
    jobs: int = 1,
) -> list[Imported]:
    """The programs' masks with those of `kinds` made of them; what is there already is kept.

    Args:
        imported: by program.
        kinds: to make of every case that a program has a mask of; none leaves all as it is.
        experiment_dir: runs/<experiment>.
        structures: keys in index order.
        folds: of the cases.
        cases: prepared, by id.
        seed: of the faults.
        learned_from: `errormap.train_kinds`. Where it names programs, masks are made of theirs alone, and drawn from
            their softmax: one that is only judged must have no part in what is learned from.
        jobs: processes side by side.
    """
    if not kinds:
        return list(imported)
    bases = [one for one in imported if one.name in (learned_from or ())] or imported
    tasks = list(_tasks(bases, structures, folds, cases, seed))
    places = {one.name: experiment_dir / "external" / one.name for one in imported}
    known = {name: _known_rows(place) for name, place in places.items()}
    missing = [task for task in tasks if not _is_sound(task, kinds, known[task.base.segmenter])]
    outcomes = in_processes(partial(_make, kinds, structures, seed), missing, jobs, "making masks of any quality")
    for task, outcome in zip(missing, outcomes, strict=True):
        if isinstance(outcome, Exception):
            raise outcome
        known[task.base.segmenter] |= {(row["case"], row["mask_kind"]): row for row in outcome}
    found = []
    for one in imported:
        keys = [(t.base.case, kind) for t in tasks if t.base.segmenter == one.name for kind in t.fitting(kinds)]
        rows = _written(places[one.name], [known[one.name][key] for key in keys])
        items = [_item(places[one.name], row) for row in rows]
        found.append(replace(one, items=(*one.items, *items), digests=index_digests(places[one.name])))
    return found


def _tasks(
    bases: Sequence[Imported],
    structures: Sequence[str],
    folds: Folds,
    cases: Mapping[str, PreparedCase],
    seed: int,
) -> Iterator[_Task]:
    """One for each case that one of `bases` has a mask of, with a digest of everything that its masks follow from."""
    code = [sha256(path) for path in _code()]
    for case in dict.fromkeys(item.case for one in bases for item in one.items):
        there = [(item, one.digests) for one in bases for item in one.items if item.case == case]
        told = [(one.opinions[case], one.digests[f"{case}/{OPINION}"]) for one in bases if case in one.opinions]
        heard, *said = told[0] if told else (None,)
        base, digests = there[int(np.random.default_rng((seed, zlib.crc32(case.encode()))).integers(len(there)))]
        fold, prepared = folds.fold_of(case), cases[case]
        followed = [code, prepared.directory.name, digests[f"{case}/{base.kind}"], base.unseen, fold, seed]
        text = json.dumps([*followed, list(structures), *said])
        yield _Task(base, heard, prepared, fold, hashlib.sha256(text.encode()).hexdigest()[:16])


def _code() -> Iterator[Path]:
    yield from (Path(str(module.__file__)) for module in (faulty, corruption, drawn, opinion))
    yield from sorted(Path(str(faults.__file__)).parent.glob("*.py"))
    yield Path(__file__)


def _is_sound(task: _Task, kinds: Sequence[str], known: Mapping[Key, Row]) -> bool:
    case = task.base.case
    for kind in task.fitting(kinds):
        try:
            stored = str(read_arrays(mask_path(task.place, case, kind), "made_from")[0])
        except InputError:
            return False
        row = known.get((case, kind))
        if row is None or not row["made_from"] == stored == task.made_from:
            return False
    return True


def _known_rows(place: Path) -> dict[Key, Row]:
    return {(row["case"], row["mask_kind"]): row for row in whole_rows(place, MADE_INDEX)}


def _make(kinds: Sequence[str], structures: Sequence[str], seed: int, task: _Task) -> list[Row]:
    """Make and store the masks of one case; their rows of the index."""
    base, label, spacing = task.base, np.array(task.prepared.label()), task.prepared.spacing
    from_softmax = dict(drawn_masks(base.case, task.opinion.codes(), spacing, seed)) if task.opinion else {}
    made = faulty_masks(base.case, label, {"final": base.mask()} | from_softmax, spacing, structures, seed)
    faultless = [*from_softmax.items(), ("reference", label)]
    every = chain(((kind, mask, json.dumps([])) for kind, mask in faultless), made)
    return [_keep(task, kind, mask, record, label, structures) for kind, mask, record in every if kind in kinds]


def _keep(task: _Task, kind: str, mask: Labels, record: str, label: Labels, structures: Sequence[str]) -> Row:
    base = task.base
    path, more = mask_path(task.place, base.case, kind), {"made_from": task.made_from, "faults": record}
    write_mask(path, mask, None, base.segmenter, base.unseen, **{key: np.array(text) for key, text in more.items()})
    both = (torch.from_numpy(mask), torch.from_numpy(label))
    numbers = measure_mask(*both, task.prepared.spacing, structures, surfaces=False)
    return {
        "case": base.case,
        "patient": task.prepared.patient,
        "fold": task.fold,
        "mask_kind": kind,
        "segmenter": base.segmenter,
        "unseen": int(base.unseen),
        **{column: numbers[column] for column in mask_columns(structures)},
        "mask_sha256": digest_of(mask),
        "made_from": task.made_from,
    }


def _written(place: Path, rows: Sequence[Row]) -> list[Row]:
    """The rows as they stand in the index, so that the first run and all later ones see the same digits."""
    if rows and list(rows) != list(_known_rows(place).values()):
        write_rows(place / MADE_INDEX, list(rows[0]), rows)
    known = _known_rows(place)
    return [known[row["case"], row["mask_kind"]] for row in rows]


def _item(place: Path, row: Row) -> MaskItem:
    path, rate = mask_path(place, row["case"], row["mask_kind"]), float(row["error_rate"])
    return MaskItem(
        row["case"], row["mask_kind"], path, row["segmenter"], bool(int(row["unseen"])), rate, has_entropy=False
    )
