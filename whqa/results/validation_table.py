"""What a finished run reached on training cases that it held back: validation.csv, by which settings may be chosen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from whqa.files import reading
from whqa.masks.run_state import made_again

VALIDATION = "validation.csv"
FIGURES = {"segmenter": "dice", "errormap": "error_dice"}
"""Stage -> the column that settings are chosen by: the mean Dice over structures, or the error Dice."""


def read_validation(run_dir: Path) -> pd.DataFrame | None:
    """Rows of the masks of held-back training cases; None where the run held none back, or an older version made it.

    Columns are case, patient, mask_kind, segmenter, those of the stage, and of stage one `dice`, the mean over
    structures.

    Raises:
        InputError: the table is damaged.
    """
    path = run_dir / VALIDATION
    if not path.is_file():
        return None
    names = ("case", "patient", "mask_kind", "segmenter")
    with reading(path, "a table of validation cases", made_again(run_dir)):
        table = pd.read_csv(path, dtype=dict.fromkeys(names, str))
        stage = run_dir.parent.name
        if stage == "segmenter":
            table["dice"] = table[[c for c in table if str(c).startswith("dice_")]].astype(float).mean(axis=1)
        if table.empty or table[[*names, FIGURES[stage]]].isna().any(axis=None):
            raise ValueError("a value is missing")
        return table.astype({FIGURES[stage]: float})


def validated(run_dirs: Sequence[Path]) -> float | None:
    """The mean of the stage's figure over the runs' masks; None where one of them has no table."""
    tables = [read_validation(run_dir) for run_dir in run_dirs]
    known = [table for table in tables if table is not None]
    if not known or len(known) < len(tables):
        return None
    return float(pd.concat(known)[FIGURES[run_dirs[0].parent.name]].mean())
