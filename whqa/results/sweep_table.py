"""Points of a sweep side by side: mean, spread over folds, paired difference to the first, the best first.

Chosen is by validation alone, and only by what can be compared. Where all points judge the same masks, that is the
error Dice of held-back training cases. A setting that changes the segmenters changes the masks: worse ones have larger
errors, which are easier to find, so a higher error Dice would be no praise. Then the segmenters' own validation Dice
comes first, and error Dice decides between points that share their masks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whqa.contract.entries import Entry
from whqa.contract.sweep_json import ChosenBy, SweepFigure, SweepPoint, SweepTestFigures, SweepValidationFigures
from whqa.errors import InputError
from whqa.masks.made_from import judged_digests, mask_digest
from whqa.masks.plan import is_delivered
from whqa.masks.run_state import made_again
from whqa.results.mean_dice import mean_dice
from whqa.results.run_folds import folds_to_summarize
from whqa.results.summary_entry import entry_of, mean_entry
from whqa.results.tables import read_run
from whqa.results.validation_table import VALIDATION, read_validation

_KEY = ["run", "case", "mask_kind"]
_OTHER_MASKS = "other masks than the first point's: a difference of error Dice would be one of the masks"
_SAME_MASKS = "all points judge the same masks: by the error Dice of held-back training cases"
_BY_SEGMENTER = (
    "the settings change the segmenters and so the masks: by the segmenters' Dice of held-back training cases, points "
    "of the same masks by error Dice"
)
_NOTHING = (
    "the points judge other masks of segmenters that are equally good: no validation number compares them, so they "
    "stand in the order of the command"
)
_OTHER_CASES = (
    "the points hold other training cases back, and each number is of its own: none compares them, so they stand in "
    "the order of the command"
)
_FIRST = "it is the first point"


@dataclass(frozen=True, eq=False)
class PointRows:
    """What a finished point is measured by: a row a mask, with run, case, mask_kind, patient, value and digest.

    Attributes:
        validation: error Dice of the masks of held-back training cases that somebody would use.
        segmenter_validation: mean Dice of those of the segmenters; empty where these hold no case back.
        test: error Dice of the test's masks, all kinds.
        segmented: mean Dice of the segmenters' final masks of the test; empty without segmenters.
    """

    validation: pd.DataFrame
    segmenter_validation: pd.DataFrame
    test: pd.DataFrame
    segmented: pd.DataFrame


def read_point(directory: Path) -> PointRows:
    """A finished point's rows.

    Raises:
        InputError: it is not finished, or a table is missing or damaged.
    """
    # beside these columns, which it is measured by, its summary has checked all others
    structures = folds_to_summarize(directory)["cohort"]["structures"]
    tables = read_run(directory, columns=["error_dice"], segmenter_columns=[f"dice_{key}" for key in structures])
    folds = range(len(tables.folds["folds"]))
    judges, segmenters = ([directory / stage / str(k) for k in folds] for stage in ("errormap", "segmenter"))
    validation = [read_validation(run_dir) for run_dir in judges]
    for run_dir, table in zip(judges, validation, strict=True):
        if table is None:
            path = run_dir / VALIDATION
            raise InputError(f"{path}: no such file, as an older version made this run; {made_again(run_dir)}")
    digests = {k: judged_digests(run_dir) for k, run_dir in zip(folds, judges, strict=True)}
    own = [read_validation(run_dir) for run_dir in segmenters]
    final = tables.segmented[tables.segmented["mask_kind"] == "final"]
    return PointRows(
        _validation_rows(validation, "error_dice", digests),
        _validation_rows(own, "dice"),
        _rows(_lists(tables.of_first_method), "error_dice", digests),
        _rows(_lists(final.assign(dice=mean_dice(final, tables.structures))), "dice"),
    )


def sweep_points(
    names: Sequence[str], settings: Mapping[str, dict[str, str]], done: Mapping[str, PointRows], why: Mapping[str, str]
) -> tuple[list[SweepPoint], ChosenBy | None, str]:
    """All points in the order of their choice, what they are chosen by, and why.

    Args:
        names: in the order of the command; differences are to the first.
        settings: of each, those that vary.
        done: rows of the finished ones.
        why: of the others.
    """
    first = done.get(names[0])
    points = {name: _point(name, settings[name], done.get(name), first, why.get(name), names[0]) for name in names}
    finished = [name for name in names if name in done]
    order, chosen_by, reason = _chosen(finished, done, points)
    return [points[name] for name in [*order, *(n for n in names if n not in done)]], chosen_by, reason


def _chosen(
    names: Sequence[str], done: Mapping[str, PointRows], points: Mapping[str, SweepPoint]
) -> tuple[list[str], ChosenBy | None, str]:
    if not names:
        return [], None, "no point is finished"
    error_dice = {name: _validated(points[name], "error_dice") for name in names}
    segmenter_dice = {name: _validated(points[name], "segmenter_dice") for name in names}
    masks = {name: _masks_of(done[name].validation) for name in names}
    if all(masks[name] == masks[names[0]] for name in names):
        return sorted(names, key=lambda name: -error_dice[name]), "validation.error_dice", _SAME_MASKS
    held_back = [_masks_of(done[name].segmenter_validation) for name in names]
    if any(cases != held_back[0] for cases in held_back):
        return list(names), None, _OTHER_CASES
    if len(set(segmenter_dice.values())) == 1 or not all(map(math.isfinite, segmenter_dice.values())):
        return list(names), None, _NOTHING
    order: list[str] = []
    for value in sorted(set(segmenter_dice.values()), reverse=True):
        tied = [name for name in names if segmenter_dice[name] == value]
        comparable = all(masks[name] == masks[tied[0]] for name in tied)
        order += sorted(tied, key=lambda name: -error_dice[name]) if comparable else tied
    return order, "validation.segmenter_dice", _BY_SEGMENTER


def _validated(point: SweepPoint, what: str) -> float:
    validation: Mapping[str, SweepFigure] = point["validation"] or {}  # type: ignore[assignment]
    mean = validation[what]["mean"] if what in validation else None
    return math.nan if mean is None else mean


def _point(
    name: str, settings: dict[str, str], rows: PointRows | None, first: PointRows | None, why: str | None, to: str
) -> SweepPoint:
    if rows is None:
        return {"name": name, "settings": settings, "state": "failed", "why": why, "validation": None, "test": None}

    def figure(what: str, delivered: bool, reason: str) -> SweepFigure:
        own, other = _part(rows, what, delivered), None if first is None else _part(first, what, delivered)
        return _figure(own, other, rows is first, reason, to)

    validation: SweepValidationFigures = {
        "error_dice": figure("validation", False, "no case was held back"),
        "segmenter_dice": figure("segmenter_validation", False, "segmenter.validation_fraction=0 holds no case back"),
    }
    test: SweepTestFigures = {
        "error_dice": figure("test", True, "no such mask"),
        "error_dice_all": figure("test", False, "no mask"),
        "segmentation_dice": figure("segmented", False, "no segmenter was trained"),
    }
    return {"name": name, "settings": settings, "state": "done", "why": None, "validation": validation, "test": test}


def _part(rows: PointRows, what: str, delivered: bool) -> pd.DataFrame:
    found: pd.DataFrame = getattr(rows, what)
    return found[[is_delivered(kind) for kind in found["mask_kind"].tolist()]] if delivered else found


def _figure(rows: pd.DataFrame, first: pd.DataFrame | None, is_first: bool, reason: str, to: str) -> SweepFigure:
    entry = mean_entry(rows["value"], rows["patient"], reason)
    of_folds = rows.groupby("run")["value"].mean()
    std = float(of_folds.std(ddof=1)) if len(of_folds) > 1 else None
    if is_first:
        difference = entry_of(math.nan, None, _FIRST)
    elif first is None:
        difference = entry_of(math.nan, None, f"the first point, {to}, is not finished")
    else:
        difference = _difference(rows, first, reason)
    return {**entry, "fold_std": std, "difference": difference}


def _difference(rows: pd.DataFrame, first: pd.DataFrame, reason: str) -> Entry:
    own, other = _keys(rows), dict(zip(_keys(first), first["value"].tolist(), strict=True))
    if set(own) != other.keys():
        return entry_of(math.nan, None, _OTHER_MASKS)
    values = rows["value"] - np.array([other[key] for key in own], float)
    return mean_entry(values, rows["patient"], reason)


def _masks_of(rows: pd.DataFrame) -> set[tuple[object, ...]]:
    return set(_keys(rows))


def _keys(rows: pd.DataFrame) -> list[tuple[object, ...]]:
    return list(zip(*(rows[name].tolist() for name in (*_KEY, "digest")), strict=True))


def _lists(table: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): table[name].tolist() for name in table} | {"run": table["fold"].tolist()}


def _rows(
    table: Mapping[str, list[Any]], column: str, digests: Mapping[int, Mapping[str, str]] | None = None
) -> pd.DataFrame:
    """With the digest of each mask where it matters which mask it is."""
    if not table["case"]:
        return pd.DataFrame(columns=[*_KEY, "patient", "value", "digest"])
    found = {name: table[name] for name in (*_KEY, "patient")} | {"value": table[column]}
    if digests is None:
        return pd.DataFrame({**found, "digest": ""})
    keys = zip(found["run"], table["segmenter"], found["case"], found["mask_kind"], strict=True)
    return pd.DataFrame({**found, "digest": [mask_digest(digests[of], *mask) for of, *mask in keys]})


def _validation_rows(
    tables: Sequence[pd.DataFrame | None], column: str, digests: Mapping[int, Mapping[str, str]] | None = None
) -> pd.DataFrame:
    known = {k: table for k, table in enumerate(tables) if table is not None}
    names = ("case", "mask_kind", "patient", "segmenter", column)
    joined = {name: [value for table in known.values() for value in table[name].tolist()] for name in names}
    runs = [k for k, table in known.items() for _ in range(len(table))]
    return _rows({**joined, "run": runs}, column, digests)
