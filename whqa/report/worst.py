"""The masks to look at first: those that were judged worst, and those that are worst."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from whqa.report.numbers import show_number
from whqa.report.summary_tables import minus
from whqa.results.tables import RunTables
from whqa.results.worst_masks import report_name, worst_first

N_WORST, N_LISTED, N_PICTURES = 10, 400, 6
COLUMNS = (
    ("mean_dice", "mean Dice of the mask", 3),
    ("mean_dice_predicted", "expected mean Dice", 3),
    ("error_dice", "error Dice", 3),
    ("acc_volume", "Acc (volume)", 4),
    ("qi_volume", "QI (volume)", 4),
    ("acc_heart", "Acc (heart)", 4),
    ("qi_heart", "QI (heart)", 4),
    ("gap", "|QI - Acc| (volume)", 4),
)


def worst_masks(tables: RunTables, run_dir: Path) -> dict[str, Any]:
    """Delivered masks of the first method (all masks, where none is delivered), worst judged first.

    Judged worst: the largest |QI - Acc| over the volume. Links are relative to the run's directory: the picture of the
    mask, and the report that `whqa summarize --reports` left.

    Returns:
        "method"; "heads" of the columns; "judged", "poor" (lowest mean Dice) and "rest", lists of {"name", "cells",
        "links", "anchor"}; "n", how many there are; "left_out", how many only cases.csv lists; "pictures", those to
        embed: {"path", "anchor", "caption"}.
    """
    rows = worst_first(tables)
    several = rows["mask_kind"].nunique() > 1
    columns = [c for c in COLUMNS if c[0] in rows and rows[c[0]].notna().any()]
    records: list[dict[str, Any]] = [{str(k): v for k, v in row.items()} for row in rows.to_dict("records")]
    pictures = [_picture(run_dir, record) for record in records]
    embedded = [i for i, path in enumerate(pictures) if path][:N_PICTURES]
    anchors = {i: f"picture-{n}" for n, i in enumerate(embedded)}
    shown = [
        {
            "name": _name(record, several),
            "cells": [
                str(record["fold"]),
                *(_text(record[c], digits) for c, _, digits in columns),
                str(record["place"]),
            ],
            "links": _links(run_dir, record, path),
            "anchor": anchors.get(i),
        }
        for i, (record, path) in enumerate(zip(records, pictures, strict=True))
    ]
    poor = rows["mean_dice"].reset_index(drop=True).dropna().sort_values(kind="stable").index[:N_WORST]
    return {
        "method": tables.methods[0],
        "heads": ["fold", *(title for _, title, _ in columns), "place by QI"],
        "judged": shown[:N_WORST],
        "poor": [shown[i] for i in poor],
        "rest": shown[N_WORST:N_LISTED],
        "n": len(shown),
        "left_out": max(0, len(shown) - N_LISTED),
        "pictures": [
            {"path": pictures[i], "anchor": anchors[i], "caption": _caption(records[i], several)} for i in embedded
        ],
    }


def _picture(run_dir: Path, record: Mapping[str, Any]) -> Path | None:
    folder = run_dir / "errormap" / str(record["fold"]) / "figures"
    return _file_in(folder, f"{record['case']}-{record['mask_kind']}.png")


def _links(run_dir: Path, record: Mapping[str, Any], picture: Path | None) -> list[tuple[str, str]]:
    """(words, address relative to the run's directory) of what is there."""
    name = report_name(str(record["case"]), str(record["mask_kind"]))
    report = _file_in(run_dir / "reports", name, "report.html")
    found = [("picture", picture), ("report", report)]
    return [(words, quote(path.relative_to(run_dir).as_posix())) for words, path in found if path]


def _file_in(folder: Path, *names: str) -> Path | None:
    """The file, if it is there; a case's name may be anything, but leads nowhere else."""
    inside = all(name not in ("", ".", "..") and not set(name) & set("/\\\0") for name in names)
    path = folder.joinpath(*names)
    return path if inside and path.is_file() else None


def _name(record: Mapping[str, Any], several: bool) -> str:
    return f"{record['case']}, {record['mask_kind']}" if several else str(record["case"])


def _caption(record: Mapping[str, Any], several: bool) -> str:
    numbers = (("mean Dice", "mean_dice", 3), ("QI", "qi_volume", 4), ("Acc", "acc_volume", 4))
    said = ", ".join(f"{what} {_text(record[column], digits)}" for what, column, digits in numbers)
    return f"{_name(record, several)}, fold {record['fold']}: {said}"


def _text(value: float, digits: int) -> str:
    return minus(show_number(None if pd.isna(value) else float(value), digits))
