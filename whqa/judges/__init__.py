"""Baselines behind the interface of the error-map network."""

from collections.abc import Callable
from functools import partial

from whqa.judges.baseline import Baseline, CaseSource
from whqa.judges.boundary import Boundary, boundary_distance
from whqa.judges.by_kind import ByKind
from whqa.judges.constant import Constant
from whqa.judges.entropy import Entropy
from whqa.judges.threshold import ThresholdSearch, choose_threshold

BASELINES: dict[str, Callable[[], Baseline]] = {
    Constant.name: Constant,
    Boundary.name: partial(ByKind, Boundary),
    Entropy.name: partial(ByKind, Entropy),
}
"""Name in the column `method` of cases.csv -> what makes the baseline."""

__all__ = [
    "BASELINES",
    "Baseline",
    "Boundary",
    "ByKind",
    "CaseSource",
    "Constant",
    "Entropy",
    "ThresholdSearch",
    "boundary_distance",
    "choose_threshold",
]
