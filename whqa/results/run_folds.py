"""The folds of a run, read before anything that takes seconds to import: a wrong folder is met at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whqa.data.folds import read_folds


def folds_to_summarize(run_dir: Path) -> dict[str, Any]:
    """The content of folds.json of a run whose folds are joined.

    Raises:
        InputError: see `whqa.data.folds.read_folds`.
    """
    return read_folds(run_dir / "folds.json", "`whqa cv experiment=...` makes one")


def folds_of_model(run_dir: Path) -> dict[str, Any]:
    """The content of folds.json of a run whose networks judge a scan.

    Raises:
        InputError: see `whqa.data.folds.read_folds`.
    """
    remedy = "`make demo` makes runs/demo, `whqa cv experiment=... data.root=...` trains on your own data"
    return read_folds(run_dir / "folds.json", remedy)
