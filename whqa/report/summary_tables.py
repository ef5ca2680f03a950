"""The tables of summary.html as plain rows of text, made from summary.json; the template only draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from whqa.judges.constant import REGIONS
from whqa.report.numbers import Columns, show_interval, show_number, show_share
from whqa.results.failure_score import SCORES
from whqa.results.summary_entry import at_path
from whqa.results.tables import ABLATIONS

LOWER_IS_BETTER = ("mae", "aurc", "e_aurc")
UNRATED = ("mae_constant", "seconds_per_case", "lead", "false_per_mask")
ERROR_COLUMNS: Columns = (
    ("error_dice", "error Dice", 3),
    ("lead", "the network leads by", 3),
    ("error_auprc", "error AUPRC", 3),
    ("places.recall", "places found", 2),
    ("places.false_per_mask", "false places", 2),
    ("failure.aurc", "AURC", 4),
    ("failure.e_aurc", "e-AURC", 4),
    ("failure.auroc", "AUROC", 3),
    ("seconds_per_case", "seconds", 2),
)
QUALITY_COLUMNS: Columns = tuple(
    (f"{region}.{key}", f"{title} ({region})", digits)
    for region in REGIONS
    for key, title, digits in (
        ("pcc", "PCC", 3),
        ("spearman", "Spearman", 3),
        ("mae", "MAE", 5),
        ("mae_constant", "MAE of a constant", 5),
    )
)
CORRECTION_COLUMNS: Columns = (
    ("dice_before", "Dice before", 3),
    ("dice_after", "Dice after", 3),
    ("gain", "gain", 3),
)


@dataclass(frozen=True)
class Cell:
    """What stands in a cell: a number, below it an interval; why it is missing; whether it is its column's best."""

    text: str
    interval: str = ""
    reason: str = ""
    best: bool = False


@dataclass(frozen=True)
class TableRow:
    """A line of a table; `highlighted` marks the method or the sum that the page is about."""

    name: str
    cells: tuple[Cell, ...]
    highlighted: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table with its caption and the headings of its columns, the first being that of the rows' names."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[TableRow, ...]


def cell(entry: Mapping[str, Any], digits: int, signed: bool = False) -> Cell:
    """An entry of summary.json."""
    return Cell(
        minus(show_number(entry["mean"], digits, signed)),
        minus(show_interval(entry["ci95"], digits, signed)),
        "" if entry["mean"] is not None else entry.get("reason", ""),
    )


def minus(text: str) -> str:
    """A true minus sign, which does not break from its number."""
    return text.replace("-", "\N{MINUS SIGN}")


def method_table(methods: Mapping[str, Mapping[str, Any]], part: str, columns: Columns, caption: str) -> PageTable:
    """Methods against columns; the first method is what the page is about."""
    with_counts = columns is ERROR_COLUMNS
    names = [name for name in methods if methods[name][part]["n"]]
    best = {path: _best([at_path(methods[name][part], path) for name in names], names, path) for path, _, _ in columns}
    rows = []
    for i, name in enumerate(names):
        numbers = methods[name][part]
        cells = [_rated(at_path(numbers, path), digits, i in best[path]) for path, _, digits in columns]
        if with_counts:
            cells[:0] = [Cell(str(numbers["n"]))]
            cells.insert(2, Cell(show_number(numbers["error_dice"]["pooled"], 3)))
            cells.insert(7, Cell(SCORES[numbers["failure"]["score"]]))
        rows.append(TableRow(name, tuple(cells), highlighted=i == 0))
    heads = [title for _, title, _ in columns]
    if with_counts:
        heads[:0] = ["masks"]
        heads.insert(2, "error Dice, pooled")
        heads.insert(7, "ranked by")
    return PageTable(caption, ("method", *heads), tuple(rows))


def split_table(
    methods: Mapping[str, Mapping[str, Any]], part: str, by: str, titles: Mapping[str, str], caption: str
) -> PageTable | None:
    """Error Dice of every method by structure ("by_structure") or kind ("by_kind"); None where there is nothing."""
    names = [name for name in methods if methods[name][part]["n"]]
    keys = list(dict.fromkeys(key for name in names for key in methods[name][part][by]))
    null = {"mean": None, "ci95": None, "reason": "the method judged no such mask"}
    rows = []
    for key in keys:
        entries = [methods[name][part][by].get(key, {"error_dice": null})["error_dice"] for name in names]
        best = _best(entries, names, "error_dice")
        rows.append(
            TableRow(titles.get(key, key), tuple(_rated(entry, 3, i in best) for i, entry in enumerate(entries)))
        )
    if not any(c.reason == "" for row in rows for c in row.cells):
        return None
    return PageTable(caption, ("structure" if by == "by_structure" else "kind", *names), tuple(rows))


def structure_failure_table(
    methods: Mapping[str, Mapping[str, Any]], part: str, titles: Mapping[str, str], caption: str
) -> PageTable | None:
    """AUROC of every structure's failure by method; None where no structure fails in some masks only."""
    names = [name for name in methods if methods[name][part]["n"]]
    null = {"mean": None, "ci95": None, "reason": "no judged mask has a Dice", "positives": 0}
    rows = []
    for key, title in titles.items():
        entries = [methods[name][part]["failure"]["auroc_per_structure"].get(key, null) for name in names]
        best = _best(entries, names, "auroc")
        cells = (_rated(entry, 3, i in best) for i, entry in enumerate(entries))
        rows.append(TableRow(title, (Cell(str(entries[0]["positives"])), *cells)))
    if not any(cell.interval for row in rows for cell in row.cells):
        return None
    return PageTable(caption, ("structure", "masks that fail", *names), tuple(rows))


def correction_table(numbers: Mapping[str, Any], titles: Mapping[str, str], caption: str) -> PageTable:
    """Dice before and after correction: over all structures, then for each."""
    lines = [("mean of structures", numbers["correction"])]
    lines += [(titles[key], found) for key, found in numbers["by_structure"].items()]
    return PageTable(caption, ("structure", *_heads(CORRECTION_COLUMNS)), _correction_rows(lines))


def correction_by_kind_table(numbers: Mapping[str, Any], caption: str) -> PageTable:
    """Mean Dice before and after correction of each mask kind, with the shares of masks that it changes."""
    rows = []
    kinds = {kind: found["correction"] for kind, found in numbers["by_kind"].items()}
    for kind, row in zip(kinds, _correction_rows(list(kinds.items()), highlighted=False), strict=True):
        shares = [kinds[kind].get(name) for name in ("improved_share", "worsened_share")]
        rows.append(TableRow(kind, (*row.cells, *(Cell(show_share(s)) for s in shares))))
    return PageTable(caption, ("kind", *_heads(CORRECTION_COLUMNS), "better", "worse"), tuple(rows))


def segmentation_table(numbers: Mapping[str, Any], titles: Mapping[str, str], caption: str) -> PageTable:
    """Dice and HD95 of the final masks."""
    columns = (("dice", 3), ("hd95_mm", 1))
    rows = [
        TableRow("mean of structures", tuple(cell(numbers[name], digits) for name, digits in columns), highlighted=True)
    ]
    rows += [
        TableRow(title, tuple(cell(numbers[name]["per_structure"][key], digits) for name, digits in columns))
        for key, title in titles.items()
    ]
    return PageTable(caption, ("structure", "Dice", "HD95 in mm"), tuple(rows))


def coverage_table(
    intervals: Mapping[str, Any], parts: Mapping[str, str], titles: Mapping[str, str], caption: str
) -> PageTable | None:
    """How many intervals hold the truth, and how wide they are; None where that was not measured."""
    shown = {part: title for part, title in parts.items() if intervals.get(part)}
    if not shown:
        return None
    names = {"acc_volume": "Acc (volume)", "acc_heart": "Acc (heart)"}
    names |= {f"dice_{key}": f"Dice, {title}" for key, title in titles.items()}
    quantities = list(dict.fromkeys(key for part in shown for key in intervals[part]))
    rows = []
    for key in quantities:
        cells: list[Cell] = []
        for part in shown:
            found = intervals[part].get(key)
            cells += (
                [Cell("n/a"), Cell("n/a")]
                if found is None
                else [share_cell(found["coverage"]), cell(found["width"], 3)]
            )
        rows.append(TableRow(names.get(key, key), tuple(cells)))
    heads = [f"{what}, {title}" for title in shown.values() for what in ("inside", "mean width")]
    return PageTable(caption, ("interval for", *heads), tuple(rows))


def share_cell(entry: Mapping[str, Any]) -> Cell:
    """A share as a percentage."""
    if entry["mean"] is None:
        return Cell("n/a", reason=entry.get("reason", ""))
    ends = entry["ci95"]
    return Cell(show_share(entry["mean"]), "" if ends is None else f"{show_share(ends[0])} to {show_share(ends[1])}")


def rank(value: float | None, path: str) -> float:
    """A number that is the higher, the better the value of that column is."""
    if value is None:
        return float("-inf")
    return -value if path.split(".")[-1] in LOWER_IS_BETTER else value


def _best(entries: Sequence[Mapping[str, Any]], names: Sequence[str], path: str) -> set[int]:
    """Places of the best values as they are shown, ablations apart; none where there is nothing to choose from."""
    means = [None if name in ABLATIONS else entry["mean"] for entry, name in zip(entries, names, strict=True)]
    known = [rank(value, path) for value in means if value is not None]
    if len(known) < 2 or path.split(".")[-1] in UNRATED or len(set(known)) == 1:
        return set()
    return {i for i, value in enumerate(means) if value is not None and rank(value, path) == max(known)}


def _rated(entry: Mapping[str, Any], digits: int, best: bool) -> Cell:
    plain = cell(entry, digits)
    return Cell(plain.text, plain.interval, plain.reason, best)


def _correction_rows(lines: Sequence[tuple[str, Mapping[str, Any]]], highlighted: bool = True) -> tuple[TableRow, ...]:
    return tuple(
        TableRow(
            name,
            tuple(cell(found[key], digits, signed=key == "gain") for key, _, digits in CORRECTION_COLUMNS),
            highlighted=highlighted and i == 0,
        )
        for i, (name, found) in enumerate(lines)
    )


def _heads(columns: Columns) -> tuple[str, ...]:
    return tuple(title for _, title, _ in columns)
