"""The folds of a run, read before anything that takes seconds to import: a wrong folder is met at once."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from whqa.data.folds import read_folds
from whqa.errors import InputError


def folds_to_summarize(run_dir: Path) -> dict[str, Any]:
    """The content of folds.json of a run whose folds are joined.

    Raises:
        InputError: it is a sweep, or see `whqa.data.folds.read_folds`.
    """
    point = next((path.parent for path in sorted(run_dir.glob("*/folds.json"))), None)
    if point is not None and not (run_dir / "folds.json").exists():
        raise InputError(
            f"{run_dir}: holds a sweep, not an experiment; name one of its points, such as {shlex.quote(str(point))}"
        )
    return read_folds(run_dir / "folds.json", "`whqa cv experiment=...` makes one")


def folds_of_model(run_dir: Path) -> dict[str, Any]:
    """The content of folds.json of a run whose networks judge a scan.

    Raises:
        InputError: see `whqa.data.folds.read_folds`.
    """
    remedy = "`make demo` makes runs/demo, `whqa cv experiment=... data.root=...` trains on your own data"
    return read_folds(run_dir / "folds.json", remedy)
