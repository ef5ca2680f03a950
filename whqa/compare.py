"""Finished experiments side by side: `whqa compare runs/a runs/b ...`.

The same folds, judged by other networks: each number of the error-map network as every experiment has it, and how far
the first is ahead of the others in error Dice, mask by mask, over masks that both judged: the same case and kind, and
the same voxels, as the digests in made_from.json say. Everything else comes from the case tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypedDict, cast

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from whqa.config.run_config import refuse_mixed_settings
from whqa.contract.entries import Entry
from whqa.errors import InputError
from whqa.files import as_named
from whqa.masks.made_from import judged_digests, mask_digest, read_made_from, runs_begun
from whqa.report.numbers import show_entry, show_interval
from whqa.report.terminal import print_columns
from whqa.results.breakdown import correction_numbers, expected_dice_mae
from whqa.results.statistics import paired_lead, quality_numbers
from whqa.results.summary_entry import entry_of, mean_entry
from whqa.results.tables import RunTables, read_run, view

_Number = tuple[str, str, int, bool]
_NUMBERS: tuple[_Number, ...] = (
    ("error Dice", "error_dice", 3, False),
    ("the first leads by", "lead", 3, True),
    ("PCC vol", "pcc", 3, False),
    ("MAE vol", "mae", 4, False),
    ("correction", "gain", 3, True),
    ("expected Dice off by", "expected_dice_mae", 3, False),
)
"""Of the columns: head, entry, digits and whether with a sign."""
_NOT_JUDGED = "it judged no such mask"
_OTHER_MASKS = "its masks are others than the first's: a difference would be one of the masks"
_UNKNOWN_MASKS = "an older version made one of both, which kept no digests: nobody knows whether the masks are the same"
_MASK = "mask_digest"


class Compared(TypedDict):
    """One experiment's error-map network on one part of the masks; the keys mean what they do in summary.json.

    Attributes:
        n: masks that it judged.
        error_dice: Dice of predicted and true error map, a mask, then averaged.
        lead: how much higher the first experiment's error Dice is, mask by mask, over the same masks; null for the
            first and where no mask is the same.
        pcc, mae: of QI and Acc over the whole crop.
        gain: mean Dice of a mask by its correction.
        expected_dice_mae: mean of |expected Dice - Dice| of a mask's structures.
    """

    n: int
    error_dice: Entry
    lead: Entry
    pcc: Entry
    mae: Entry
    gain: Entry
    expected_dice_mae: Entry


Comparison = dict[str, dict[str, Compared]]
"""Part of the masks, as in summary.json -> experiment's directory -> numbers."""


def compare(directories: Sequence[Path]) -> Comparison:
    """What finished experiments on the same folds reach, and how far the first is ahead.

    Args:
        directories: runs/<experiment>, two or more; differences are to the first.

    Raises:
        InputError: fewer than two, one that is not finished, or one of another cohort or other folds.
    """
    directories = [as_named(path) for path in directories]
    if len(directories) < 2:
        raise InputError("name two or more finished experiments, such as runs/first and runs/second")
    real = [path.resolve() for path in directories]
    twice = next((path for i, path in enumerate(directories) if real[i] in real[:i]), None)
    if twice is not None:
        raise InputError(f"{twice}: named twice; name each experiment once")
    tables = [read_run(path) for path in directories]
    for path, found in zip(directories, tables, strict=True):
        refuse_mixed_settings(runs_begun(path))
        _refuse_other_folds(directories[0], tables[0], path, found)
        _refuse_other_labels(directories[0], path)
    rows = [_judged(path, one) for path, one in zip(directories, tables, strict=True)]
    parts = dict.fromkeys(chain.from_iterable(one.views for one in tables))
    return {
        masks: {
            str(path): _compared(rows[0], own, masks, one.structures)
            for path, own, one in zip(directories, rows, tables, strict=True)
        }
        for masks in (*(masks for masks in parts if masks != "all"), "all")
    }


def print_comparison(comparison: Comparison, console: Console) -> None:
    """The same as a table for people; a narrow terminal gets several instead of cells cut within a number."""
    print_columns(console, _NUMBERS, partial(_table, comparison, console.width // 3))
    console.print(
        "mean [95 % by patient] of the error-map network; differences mask by mask, over the same masks",
        style="dim",
    )


def _table(comparison: Comparison, width_of_name: int, numbers: Sequence[_Number]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("masks", no_wrap=True)
    table.add_column("experiment", overflow="fold", max_width=width_of_name)
    table.add_column("n", justify="right", no_wrap=True)
    for head, *_ in numbers:
        table.add_column(head, justify="right", no_wrap=True)
    directories = next(iter(comparison.values()))
    distinct = len({Path(name).name for name in directories}) == len(directories)
    for masks, experiments in comparison.items():
        for name, found in experiments.items():
            entries: Mapping[str, Any] = found
            cells = [_cell(entries[key], digits, signed) for _, key, digits, signed in numbers]
            table.add_row(masks, escape(Path(name).name if distinct else name), str(found["n"]), *cells)
        table.add_section()
    return table


def _judged(directory: Path, tables: RunTables) -> pd.DataFrame:
    """The network's rows, each with the digest of its mask; "" where an older version kept none."""
    rows = tables.of_first_method
    known = {k: judged_digests(directory / "errormap" / str(k)) for k in rows["fold"].unique()}
    of_rows = zip(*(rows[name].tolist() for name in ("fold", "segmenter", "case", "mask_kind")), strict=True)
    return rows.assign(**{_MASK: [mask_digest(known[k], *mask) for k, *mask in of_rows]})


def _compared(first: pd.DataFrame, other: pd.DataFrame, masks: str, structures: Sequence[str]) -> Compared:
    rows = view(other, masks)
    if not len(rows):
        none = entry_of(float("nan"), None, _NOT_JUDGED)
        return cast(Compared, {"n": 0, **{key: none for _, key, *_ in _NUMBERS}})
    quality = quality_numbers(rows, "volume", "qi_volume")
    ahead = entry_of(float("nan"), None, "it is the first experiment")
    return {
        "n": len(rows),
        "error_dice": mean_entry(rows["error_dice"], rows["patient"], _NOT_JUDGED),
        "lead": ahead if other is first else _lead(view(first, masks), rows),
        "pcc": quality["pcc"],
        "mae": quality["mae"],
        "gain": correction_numbers(rows, structures)["gain"],
        "expected_dice_mae": expected_dice_mae(rows, structures),
    }


def _lead(first: pd.DataFrame, rows: pd.DataFrame) -> Entry:
    names = ("case", "mask_kind", _MASK)
    of_first = {(case, kind): mask for case, kind, mask in zip(*(first[name] for name in names), strict=True)}
    of_rows = zip(*(rows[name] for name in names), strict=True)
    both = [(mask, of_first.get((case, kind), mask)) for case, kind, mask in of_rows]
    same = [bool(mask) and mask == other for mask, other in both]
    unknown = not all(mask and other for mask, other in both)
    why = _UNKNOWN_MASKS if unknown else _OTHER_MASKS
    return paired_lead(first, rows[same]) if any(same) else entry_of(float("nan"), None, why)


def _refuse_other_folds(first: Path, of_first: RunTables, path: Path, found: RunTables) -> None:
    for key, what in (("cohort", "cohort"), ("patients", "patients"), ("folds", "folds")):
        if found.folds[key] != of_first.folds[key]:
            raise InputError(
                f"{path}: other {what} than {first}; compare experiments of one cohort, with the same folds and seed"
            )


def _refuse_other_labels(first: Path, path: Path) -> None:
    """The same mask has other errors against another truth."""
    of_first, found = (_labels(directory) for directory in (first, path))
    other = [case for case in of_first.keys() & found.keys() if of_first[case] != found[case]]
    if other:
        raise InputError(
            f"{path}: other labels than {first} ({len(other)} case(s), such as {min(other)!r}); train both again on "
            "the same data"
        )


def _labels(directory: Path) -> dict[str, dict[str, int | str]]:
    """Case -> digests of its label or of its parts; nothing where an older version made the run."""
    record = read_made_from(directory / "errormap" / "0")
    cases = {} if record is None else record.cases
    return {case: {key: v for key, v in known.items() if key.startswith("label")} for case, known in cases.items()}


def _cell(entry: Entry, digits: int, signed: bool = False) -> str:
    shown = show_interval(entry["ci95"], digits, signed)
    return show_entry(entry, digits, signed) + (escape(f" [{shown}]") if shown else "")
