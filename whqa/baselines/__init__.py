"""Baselines behind the interface of the error-map network."""

from collections.abc import Callable
from functools import partial

from whqa.baselines.baseline import Baseline, CaseSource
from whqa.baselines.boundary import Boundary, boundary_distance
from whqa.baselines.by_kind import ByKind
from whqa.baselines.constant import Constant
from whqa.baselines.entropy import Entropy
from whqa.baselines.threshold import ThresholdSearch, choose_threshold

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
