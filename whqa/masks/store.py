"""Masks under judgement on disk: one file a (case, kind), which says who made it and that the case was unseen.

    runs/<experiment>/segmenter/<name>/masks/<case>/<kind>.npz
                                      masks.json    "<case>/<kind>" -> SHA-256 of that file, see `whqa.masks.made_from`
        mask      uint8 (D, H, W)   label indices on the cache grid
        entropy   uint8 (D, H, W)   round(255 * entropy of the segmenter's softmax / log(C + 1)); another program's
                                    mask has none
        segmenter, unseen           who made it; whether the case was outside the segmenter's training folds

The segmenter's `cases.csv` is the index: one row a mask, with its share of wrong voxels (`error_rate`).
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.files import read_json, reading, sha256, write_arrays
from whqa.masks.plan import MaskPlan, choose_kinds, has_entropy
from whqa.masks.run_state import is_complete, made_again, refuse_damaged

MASKS_RECORD = "masks.json"


@dataclass(frozen=True)
class MaskItem:
    """One stored mask.

    Attributes:
        case: case id.
        kind: "final", "side1", ..., "early", or the name of another program.
        path: of the .npz file.
        segmenter: name of the segmenter that made it, e.g. "0-1", or of the other program.
        unseen: whether the case was outside the segmenter's training folds.
        error_rate: share of wrong voxels in the whole crop (1 - Acc).
        has_entropy: whether the segmenter's entropy is stored beside it.
    """

    case: str
    kind: str
    path: Path
    segmenter: str
    unseen: bool
    error_rate: float
    has_entropy: bool = True

    def load(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Mask uint8 (D, H, W) and normalised entropy float32 (D, H, W) in [0, 1], or None where it has none."""
        if not self.has_entropy:
            return self.mask(), None
        mask, entropy = read_arrays(self.path, "mask", "entropy")
        return mask, entropy.astype(np.float32) / 255.0

    def mask(self) -> np.ndarray:
        """Mask alone, uint8 (D, H, W)."""
        return read_arrays(self.path, "mask")[0]


def mask_path(segmenter_dir: Path, case: str, kind: str) -> Path:
    """Where the mask of that kind of that case lies."""
    return segmenter_dir / "masks" / case / f"{kind}.npz"


def stored_mask(run: Path, maker: str, case: str, kind: str) -> Path:
    """The mask that a row of cases.csv is about, of a segmenter of runs/<experiment> or of another program."""
    places = [mask_path(run / stage / maker, case, kind) for stage in ("segmenter", "external")]
    return next((place for place in places if place.is_file()), places[0])


def write_mask(
    path: Path, mask: np.ndarray, entropy: np.ndarray | None, segmenter: str, unseen: bool, **more: np.ndarray
) -> None:
    """Write one mask atomically; `entropy` is normalised to [0, 1], `more` are further arrays by name."""
    if entropy is not None:
        more["entropy"] = np.rint(np.clip(entropy, 0.0, 1.0) * 255.0).astype(np.uint8)
    write_arrays(path, mask=mask.astype(np.uint8), **more, segmenter=segmenter, unseen=unseen)


def collect_masks(
    experiment_dir: Path, plan: MaskPlan, folds: Folds, test_fold: int, kinds: Collection[str] | None = None
) -> list[MaskItem]:
    """All segmenters' masks that serve the error-map network of `test_fold`, training folds and test fold alike.

    Args:
        experiment_dir: runs/<experiment>.
        kinds: segmenters' mask kinds to take; None takes all that were made.

    Raises:
        InputError: a segmenter has not finished, a mask is missing, is not as a segmenter of this name wrote it, or its
            case had been seen in training although the plan forbids it.
    """
    wanted = choose_kinds(kinds).own
    _refuse_unfinished(experiment_dir, plan, test_fold)
    refuse_damaged(experiment_dir / "segmenter" / name for name in plan.needed_by(test_fold))
    items = []
    for case_fold in range(folds.n):
        name = plan.segmenter_of(test_fold, case_fold)
        directory = experiment_dir / "segmenter" / name
        rows, digests = read_index(directory), mask_digests(directory)
        for case in folds.cases(case_fold):
            found = [r for r in rows if r["case"] == case and (wanted is None or r["mask_kind"] in wanted)]
            if not found:
                raise InputError(f"{directory}: no masks of case {case}; {made_again(directory)}")
            must_be_unseen = plan.asserts_unseen or case_fold == test_fold
            made = [_item(directory, name, row, must_be_unseen) for row in found]
            if digests is not None:
                _refuse_replaced(made, digests)
            items += made
    return items


def mask_digests(segmenter_dir: Path) -> dict[str, str] | None:
    """ "<case>/<kind>" -> SHA-256 of the mask's file as the segmenter wrote it; None where an older version did.

    Raises:
        InputError: the record is damaged.
    """
    path = segmenter_dir / MASKS_RECORD
    if not path.is_file():
        return None
    remedy = made_again(segmenter_dir)
    with reading(path, "digests of masks", remedy):
        return {str(name): str(digest) for name, digest in read_json(path, remedy).items()}


def _refuse_replaced(items: Collection[MaskItem], digests: Mapping[str, str]) -> None:
    for item in items:
        if sha256(item.path) != digests.get(f"{item.case}/{item.kind}"):
            directory = item.path.parents[2]
            raise InputError(f"{item.path}: not the mask that the segmenter wrote here; {made_again(directory)}")


def _refuse_unfinished(experiment_dir: Path, plan: MaskPlan, test_fold: int) -> None:
    names = plan.needed_by(test_fold)
    missing = [n for n in names if not is_complete(experiment_dir / "segmenter" / n)]
    if missing:
        raise InputError(
            f"{experiment_dir}: the error-map network of fold {test_fold} needs the segmenters {', '.join(missing)}, "
            f"which have not finished; `whqa cv ...` trains them first"
        )


def read_index(directory: Path, name: str = "cases.csv") -> list[dict[str, str]]:
    """The rows of the index of a segmenter's masks, or of another program's or those made of them (`name`).

    Raises:
        InputError: there is no such table, or it is damaged.
    """
    path = directory / name
    with reading(path, "a table of masks", _remade(directory)):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        for row in rows:
            if not row["case"] or None in row or None in row.values():
                raise ValueError("a row is not whole")
            float(row.get("error_rate", "0"))
        return rows


def whole_rows(directory: Path, name: str = "cases.csv") -> list[dict[str, str]]:
    """Those of an index of masks that were brought in or made here; what is not readable is not known."""
    try:
        rows = read_index(directory, name)
    except (InputError, UnicodeDecodeError, csv.Error):
        return []
    return [row for row in rows if all(row.get(key) for key in ("case", "mask_kind", "made_from", "mask_sha256"))]


def _remade(directory: Path) -> str:
    """What writes masks again, those of a segmenter or those brought from another program."""
    if directory.parent.name == "external":
        return f"bring these masks anew: rm -r {shlex.quote(str(directory))}, then the same `whqa cv ...`"
    return made_again(directory)


def unseen_by_maker(path: Path, case: str, must_be_unseen: bool) -> bool:
    """Whether the case was outside the training folds of the segmenter in whose directory this mask or opinion lies.

    Raises:
        InputError: the file is another segmenter's, or the case had been seen although that must not be.
    """
    segmenter_dir = path.parents[2]
    maker, unseen = read_arrays(path, "segmenter", "unseen")
    if str(maker) != segmenter_dir.name:
        raise InputError(
            f"{path}: made by segmenter {str(maker)!r}, expected {segmenter_dir.name!r}; {made_again(segmenter_dir)}"
        )
    if must_be_unseen and not bool(unseen):
        raise InputError(
            f"{path}: segmenter {str(maker)!r} was trained on case {case}; its masks and opinions must not be used here"
        )
    return bool(unseen)


def _item(segmenter_dir: Path, name: str, row: dict[str, str], must_be_unseen: bool) -> MaskItem:
    path = mask_path(segmenter_dir, row["case"], row["mask_kind"])
    unseen = unseen_by_maker(path, row["case"], must_be_unseen)
    return MaskItem(
        row["case"], row["mask_kind"], path, name, unseen, float(row["error_rate"]), has_entropy(row["mask_kind"])
    )


def read_arrays(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of a mask's file by name; only these are read.

    Raises:
        InputError: the file is missing or damaged, or lacks one of them.
    """
    # opened here because np.load forgets to close a file that is no archive
    with (
        reading(path, "a mask", _remade(path.parents[2])),
        path.open("rb") as file,
        np.load(file, allow_pickle=False) as arrays,
    ):
        return [arrays[name] for name in names]
