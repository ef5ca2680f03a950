"""What a finished run reached on training cases that it held back: validation.csv, by which settings may be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from whqa.files import reading
from whqa.masks.run_state import made_again
from whqa.metrics.arrays import FloatArray
from whqa.results.text_table import read_text_table

VALIDATION = "validation.csv"
FIGURES = {"segmenter": "dice", "errormap": "error_dice"}
"""Stage -> the column that settings are chosen by: the mean Dice over structures, or the error Dice."""
_NAMES = ("case", "patient", "mask_kind", "segmenter")
_WHAT = "a table of validation cases"


def read_validation(run_dir: Path) -> pd.DataFrame | None:
    """Rows of the masks of held-back training cases; None where the run held none back, or an older version made it.

    Columns are case, patient, mask_kind, segmenter and the stage's figure; of stage one also those of its structures.

    Raises:
        InputError: the table is damaged.
    """
    path = run_dir / VALIDATION
    if not path.is_file():
        return None
    stage = run_dir.parent.name
    figure = FIGURES[stage]
    remedy = made_again(run_dir)
    table = read_text_table(path, _WHAT, remedy, lambda name: name in (*_NAMES, figure) or name.startswith("dice_"))
    with reading(path, _WHAT, remedy):
        rows: dict[str, Any] = {name: table.columns[name] for name in _NAMES}
        if stage == "segmenter":
            dice = {name: _floats(column) for name, column in table.columns.items() if name.startswith("dice_")}
            rows |= dice | {figure: pd.DataFrame(dice).mean(axis=1).to_numpy()}
        else:
            rows[figure] = _floats(table.columns[figure])
        if not table.n or np.isnan(rows[figure]).any() or not all(all(rows[name]) for name in _NAMES):
            raise ValueError("a value is missing")
        return pd.DataFrame(rows)


def _floats(column: Sequence[str]) -> FloatArray:
    return np.array([float(field or "nan") for field in column])


def validated(run_dirs: Sequence[Path]) -> float | None:
    """The mean of the stage's figure over the runs' masks; None where one of them has no table."""
    tables = [read_validation(run_dir) for run_dir in run_dirs]
    known = [table for table in tables if table is not None]
    if not known or len(known) < len(tables):
        return None
    return float(pd.concat(known)[FIGURES[run_dirs[0].parent.name]].mean())
