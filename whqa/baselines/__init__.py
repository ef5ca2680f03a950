"""Baselines behind the interface of the error-map network."""

from whqa.baselines.baseline import Baseline, CaseSource
from whqa.baselines.boundary import Boundary, boundary_distance
from whqa.baselines.constant import Constant
from whqa.baselines.entropy import Entropy
from whqa.baselines.threshold import ThresholdSearch, choose_threshold

BASELINES: dict[str, type[Baseline]] = {kind.name: kind for kind in (Constant, Boundary, Entropy)}
"""Name in the column `method` of cases.csv -> class; each is made without arguments."""

__all__ = [
    "BASELINES",
    "Baseline",
    "Boundary",
    "CaseSource",
    "Constant",
    "Entropy",
    "ThresholdSearch",
    "boundary_distance",
    "choose_threshold",
]
