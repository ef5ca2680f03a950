"""The baselines by their name in the tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from whqa.judges.baseline import Baseline
from whqa.judges.boundary import Boundary
from whqa.judges.by_kind import ByKind
from whqa.judges.constant import Constant
from whqa.judges.entropy import Entropy

BASELINES: dict[str, Callable[[], Baseline]] = {
    Constant.name: Constant,
    Boundary.name: partial(ByKind, Boundary),
    Entropy.name: partial(ByKind, Entropy),
}
"""Name in the column `method` of cases.csv -> what makes the baseline."""
