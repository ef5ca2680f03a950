"""The tables of an experiment as Markdown, made from summary.json and comparisons: what README and docs show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from whqa.quality import LOWEST_DICE
from whqa.report.numbers import Columns, show_entry, show_interval, show_share
from whqa.results.summary_entry import at_path, shown_views
from whqa.results.tables import ABLATIONS, in_order

ORDER = (
    "errormap",
    "opinion",
    "tta",
    "ensemble",
    "ensemble_by_doubt",
    "entropy",
    "boundary",
    "constant",
    "dice_regressor",
    "joint",
    "reverse",
)
"""Rivals by how much they are worth beating."""
NUMBERS: Columns = (
    ("error_auprc", "AUPRC", 3),
    ("volume.pcc", "PCC", 3),
    ("volume.mae", "MAE", 4),
    ("volume.mae_constant", "MAE of a constant", 4),
    ("failure.aurc", "AURC", 3),
)
SIZE_TITLES = {"thin": "thin, along borders", "blob": "blobs", "missing": "missing structures"}
Methods = Mapping[str, Mapping[str, Any]]
Entries = Mapping[str, Any]


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a cell's bar and line ends are its text's."""
    lines = ["| " + " | ".join(map(_plain, line)) + " |" for line in (heads, *rows)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def methods_table(methods: Methods) -> str:
    """Every method on every part of the masks, QI and Acc over the volume."""
    rows = [
        [
            name,
            _part(part),
            show_entry(numbers["error_dice"], 3),
            "" if name == next(iter(methods)) else signed(numbers["lead"]),
            *(show_entry(at_path(numbers, path), digits) for path, _, digits in NUMBERS),
        ]
        for part in shown_views(methods)
        for name, numbers in _judged(methods, part)
        if name not in ABLATIONS
    ]
    return markdown(("method", "masks", "error Dice", "the network leads by", *(head for _, head, _ in NUMBERS)), rows)


def leads_table(methods: Methods) -> str:
    """Error Dice of the network, and its lead over every rival and over itself with an input of another patient."""
    first = next(iter(methods))
    parts = [part for part in shown_views(methods) if methods[first][part]["n"]]
    others = [name for name in in_order(methods, (*ORDER, *ABLATIONS)) if name != first and _has_lead(methods[name])]
    rows = [
        [
            _part(part),
            show_entry(methods[first][part]["error_dice"], 3),
            *(signed(methods[name][part]["lead"]) if methods[name][part]["n"] else "" for name in others),
        ]
        for part in parts
    ]
    return markdown(("masks", first, *(f"lead over {name}" for name in others)), rows)


def places_table(methods: Methods) -> str:
    """Share of the wrong places that each error map shows / false places a mask, on every part of the masks."""
    names = [name for name, parts in _in_order(methods) if any(_shows_places(numbers) for numbers in parts.values())]
    rows = [
        [_part(part), *(_places(methods[name][part]) for name in names)]
        for part in shown_views(methods)
        if any(_shows_places(methods[name][part]) for name in names)
    ]
    return markdown(("masks", *names), rows)


def sizes_table(methods: Methods) -> str:
    """Of the wrong voxels of each size the share that each error map shows / of its places that which is found."""
    names = [name for name, parts in _in_order(methods) if any(_shows_places(numbers) for numbers in parts.values())]
    rows = [
        [
            _part(part),
            SIZE_TITLES[size],
            show_share(_of_size(methods, names, part, size)["share"]["mean"]),
            *(_recalls(methods[name][part]["places"]["by_size"][size]) for name in names),
        ]
        for part in shown_views(methods)
        for size in SIZE_TITLES
        if names and _of_size(methods, names, part, size)["share"]["mean"]
    ]
    return markdown(("masks", "errors", "of the wrong voxels", *names), rows)


def expected_dice_table(methods: Methods, structures: Sequence[str]) -> str:
    """Mean of |expected Dice - Dice| of every structure and over structures, by every method that expects any."""
    rows = []
    for part in shown_views(methods):
        for name, numbers in _judged(methods, part):
            entries = [numbers["by_structure"][key]["expected_dice_mae"] for key in structures]
            if numbers["expected_dice_mae"]["mean"] is not None:
                over_all = numbers["expected_dice_mae"]
                rows.append([name, _part(part), _with_ends(over_all), *(show_entry(entry, 3) for entry in entries)])
    return markdown(("method", "masks", "mean of structures", *structures), rows)


def true_quality_table(numbers: Entries) -> str:
    """One method on all kinds of masks by their true quality."""
    rows = [
        [
            _stratum(name),
            str(found["n"]),
            show_entry(found["volume"]["bias"], 4, signed=True),
            show_entry(found["bias"], 3, signed=True),
            show_share(found["volume"]["coverage"]["mean"]),
            show_share(found["coverage"]["mean"]),
            show_entry(found["error_dice"], 3),
            show_entry(found["correction"], 3, signed=True),
        ]
        for name, found in numbers["strata"].items()
        if found["n"]
    ]
    heads = ["masks by their true mean Dice", "n", "QI - Acc, volume", "heart"]
    heads += ["intervals for Acc that hold, volume", "heart", "error Dice", "mean Dice by correction"]
    return markdown(heads, rows)


def structures_table(methods: Methods, part: str, structures: Sequence[str]) -> str:
    """Error Dice of every method within every structure, on one part of the masks."""
    named = [(name, numbers) for name, numbers in _judged(methods, part) if name not in ABLATIONS]
    rows = [[key, *(show_entry(n["by_structure"][key]["error_dice"], 3) for _, n in named)] for key in structures]
    return markdown(("structure", *(name for name, _ in named)), rows)


def variants_table(comparison: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """Experiments with other networks on the same masks, as `whqa.compare` has them.

    Args:
        comparison: part -> experiment -> numbers.
        names: of the experiments, as they are shown.
    """
    rows = [
        [
            _part(part),
            names[experiment],
            show_entry(found["error_dice"], 3),
            "" if i == 0 else signed(found["lead"]),
            show_entry(found["pcc"], 3),
            show_entry(found["mae"], 4),
            show_entry(found["gain"], 3, signed=True),
            show_entry(found["expected_dice_mae"], 3),
        ]
        for part, experiments in comparison.items()
        for i, (experiment, found) in enumerate(experiments.items())
        if found["n"]
    ]
    heads = ("masks", "variant", "error Dice", "the first leads by", "PCC", "MAE", "correction", "expected Dice off by")
    return markdown(heads, rows)


def signed(entry: Any) -> str:
    """A difference with its interval, n/a where it is not known."""
    return _with_ends(entry, signed=True)


def _with_ends(entry: Any, signed: bool = False) -> str:
    ends = show_interval(entry["ci95"], 3, signed=False)
    return show_entry(entry, 3, signed=signed) + (f" [{ends}]" if ends else "")


def _judged(methods: Methods, part: str) -> list[tuple[str, Any]]:
    return [(name, parts[part]) for name, parts in _in_order(methods) if parts[part]["n"]]


def _in_order(methods: Methods) -> list[tuple[str, Any]]:
    return [(name, methods[name]) for name in in_order(methods, ORDER)]


def _shows_places(numbers: Entries) -> bool:
    """Unlike the constant, whose error map is empty, and what has none."""
    places = numbers["places"]
    return places["recall"]["mean"] is not None and bool(places["recall"]["mean"] or places["false_per_mask"]["mean"])


def _places(numbers: Entries) -> str:
    if not _shows_places(numbers):
        return ""
    return f"{show_entry(numbers['places']['recall'], 2)} / {show_entry(numbers['places']['false_per_mask'], 1)}"


def _of_size(methods: Methods, names: Sequence[str], part: str, size: str) -> Entries:
    """Of the method that judged most masks: all judge the same ones, but where they need what a mask lacks."""
    first: Entries = max((methods[name][part] for name in names), key=lambda numbers: int(numbers["n"]))
    found: Entries = first["places"]["by_size"][size]
    return found


def _recalls(numbers: Entries) -> str:
    if numbers["voxel_recall"]["mean"] is None:
        return ""
    return f"{show_entry(numbers['voxel_recall'], 2)} / {show_entry(numbers['recall'], 2)}"


def _has_lead(parts: Mapping[str, Any]) -> bool:
    return any(numbers["lead"]["mean"] is not None for numbers in parts.values())


def _part(part: str) -> str:
    return "all kinds" if part == "all" else part


def _stratum(name: str) -> str:
    if name == "reference":
        return f"{name} (no wrong voxel)"
    ends = [*LOWEST_DICE.values()]
    if name not in LOWEST_DICE:
        return f"{name} (below {ends[-1]})"
    above = ends.index(LOWEST_DICE[name])
    return f"{name} (from {ends[0]})" if above == 0 else f"{name} ({ends[above]}-{ends[above - 1]})"


def _plain(cell: str) -> str:
    return " ".join(cell.replace("|", "\\|").replace("\N{NO-BREAK SPACE}", " ").split())
