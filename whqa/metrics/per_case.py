"""A torchmetrics base that keeps one row a case, so that any number of processes gives the same numbers.

Lightning's evaluation sampler repeats cases until every rank has equally many. Averaging such batches is wrong
(`sync_dist=True`), so a metric keeps whole rows with the index of their case and drops repeated indices at the end.

The state is one 1-D float32 `cat` list: torchmetrics aborts the process for 2-D, integer or float64 states where a rank
has no case. Each number is stored as two float32, high + low with high = float32(x), low = float32(x - high), which
carries 48 bits: voxel counts above 2^24 stay exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from whqa.metrics.arrays import FloatArray


class CaseMetric(Metric):
    """Base of all metrics here: `record` a row in `update`, read `columns()` in `compute`.

    Args:
        columns: names of the numbers that are kept for each case.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, columns: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.column_names = tuple(columns)
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def record(self, index: int | Tensor, row: Mapping[str, Any]) -> None:
        """Keep one case: `index` is its number in the evaluated set, `row` has exactly the metric's columns.

        Raises:
            ValueError: a column is missing or unknown.
        """
        if set(row) != set(self.column_names):
            raise ValueError(f"row has columns {sorted(row)}, the metric keeps {sorted(self.column_names)}")
        values = torch.tensor([float(index), *(float(row[name]) for name in self.column_names)], dtype=torch.float64)
        high = values.float()
        low = torch.where(high.isfinite(), (values - high.double()).float(), 0.0)
        self.rows.append(torch.stack([high, low]).flatten().to(self.device))

    def columns(self) -> dict[str, FloatArray]:
        """All cases once, ordered by index: "index" and every column, each (n,) float64; n may be 0."""
        names = ("index", *self.column_names)
        flat = dim_zero_cat(self.rows) if len(self.rows) else torch.empty(0)
        parts = flat.detach().cpu().double().reshape(-1, 2, len(names)).numpy()
        table = parts.sum(axis=1)
        _, first = np.unique(table[:, 0], return_index=True)
        return {name: table[first, i] for i, name in enumerate(names)}

    def scalar(self, value: float) -> Tensor:
        """A number as a 0-d float32 tensor on the metric's device."""
        return torch.tensor(value, dtype=torch.float32, device=self.device)


class CaseTable(CaseMetric):
    """A table of numbers, one row a case; the evaluation callbacks write it as cases.csv."""

    def update(self, index: int | Tensor, row: Mapping[str, Any]) -> None:
        """Keep one row; see `CaseMetric.record`."""
        self.record(index, row)

    def compute(self) -> dict[str, npt.NDArray[Any]]:
        """Columns by name, each (n,) float64, ordered by "index" (int64), every index once.

        Arrays, because torchmetrics would make scalars of tensors of one element, the columns of a single case.
        """
        columns = self.columns()
        return columns | {"index": columns["index"].astype(np.int64)}
