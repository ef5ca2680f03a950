"""metrics.csv: the log that a run always writes, whole at every moment, continued by a resumed run."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from whqa.files import atomic_path, reading


class CsvHistory(Logger):
    """One row a step, one column a metric.

    Lightning's CSVLogger deletes the earlier rows when a run resumes; this one keeps them and drops only the rows
    after the checkpoint that the run resumed from.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._rows: dict[int, dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        """Required by Lightning."""
        return "metrics"

    @property
    def version(self) -> str:
        """Required by Lightning."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Merge the metrics into the row of their step."""
        at = int(step or 0)
        if self._rows is None:
            self._rows = {s: row for s, row in self._read().items() if s <= at}
        self._rows.setdefault(at, {"step": at}).update({k: float(v) for k, v in metrics.items()})

    @rank_zero_only
    def save(self) -> None:
        """Write all rows."""
        if not self._rows:
            return
        columns = ["step", *sorted({k for row in self._rows.values() for k in row} - {"step"})]
        with atomic_path(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, restval="")
            writer.writeheader()
            writer.writerows(self._rows[s] for s in sorted(self._rows))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write all rows when a loop ends, however it ends."""
        self.save()

    def _read(self) -> dict[int, dict[str, Any]]:
        if not self.path.exists():
            return {}
        return {int(row["step"]): {k: v for k, v in row.items() if v != ""} for row in _rows_of(self.path)}


def _rows_of(path: Path) -> list[dict[str, str]]:
    with reading(path, "a log of numbers", f"rm {shlex.quote(str(path))}, and the same command goes on without it"):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        for row in rows:
            if None in row or None in row.values():
                raise ValueError("a row is not whole")
            int(row["step"])
            for value in row.values():
                float(value or "nan")
        return rows
