"""Does QI mean what it says? Among masks of about one predicted quality, mean QI against mean Acc."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from whqa.contract.by_quality import Reliability, ReliabilityBin
from whqa.results.summary_entry import mean_entry

MOST_BINS, FEWEST_IN_BIN = 10, 10


def reliability(rows: pd.DataFrame) -> Reliability:
    """The entry "reliability" of one method on one part of the masks; `rows` are of `whqa.results.tables.view`."""
    return {"volume": _bins(rows, "volume"), "heart": _bins(rows, "heart")}


def equal_count_bins(values: pd.Series) -> npt.NDArray[np.int64]:
    """Bin of each value, by rising value: of equal count up to ties, which share a bin; (n,).

    At most `MOST_BINS`, none with fewer than `FEWEST_IN_BIN` values where there are that many.
    """
    n = len(values)
    bins = min(MOST_BINS, max(1, n // FEWEST_IN_BIN))
    place = values.rank(method="min").to_numpy(np.int64) - 1
    return np.asarray(place * bins // max(n, 1), np.int64)


def _bins(rows: pd.DataFrame, region: str) -> list[ReliabilityBin]:
    qi, acc = rows[f"qi_{region}"], rows[f"acc_{region}"]
    found: list[ReliabilityBin] = []
    for _, part in rows.groupby(equal_count_bins(qi)):
        gap = (qi - acc)[part.index]
        found.append(
            {
                "n": len(part),
                "qi": float(qi[part.index].mean()),
                "acc": float(acc[part.index].mean()),
                "bias": mean_entry(gap, part["patient"], "QI or Acc is missing"),
            }
        )
    return found
