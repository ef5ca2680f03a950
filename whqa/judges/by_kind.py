"""A baseline that picks one of many nested error maps, and picks it anew for every kind of mask.

One threshold for good and bad masks alike would make a straw man of a baseline: the best band or entropy threshold of
final masks is far from that of side outputs. So it is told what the network is not: the kind.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from whqa.judges.baseline import CaseSource
from whqa.judges.threshold import LevelSearch
from whqa.quality import ErrorPrediction, JudgedCase


class NestedMaps(Protocol):
    """Error maps "level >= k", one for every k of 1..n_levels, of which training cases pick one."""

    name: str
    needs: frozenset[str]
    n_levels: int

    def levels(self, case: JudgedCase) -> Tensor:
        """Level 0..n_levels of every voxel, integer (D, H, W)."""
        ...

    def predict(self, case: JudgedCase, level: int) -> ErrorPrediction:
        """P and Ê of one mask with k = `level`."""
        ...

    def parameter(self, level: int) -> tuple[str, float]:
        """Name and value of the number that k stands for."""
        ...


class ByKind:
    """Picks the map with the best mean error Dice on the training masks of each kind, and on all of them.

    A kind not seen in training gets the latter.
    """

    wants_all = False

    def __init__(self, maps: NestedMaps) -> None:
        self.name, self.needs = maps.name, maps.needs
        self._maps = maps
        self._level = 0
        self._level_of: dict[str, int] = {}

    def fit(self, cases: CaseSource) -> None:
        """One pass over the cases, however many kinds there are; see `Baseline.fit`."""
        everyone, by_kind = LevelSearch(self._maps.n_levels), dict[str, LevelSearch]()
        for case in cases():
            levels = self._maps.levels(case)
            for search in (everyone, by_kind.setdefault(case.kind, LevelSearch(self._maps.n_levels))):
                search.update(levels, case.error)
        self._level = everyone.best()
        self._level_of = {kind: by_kind[kind].best() for kind in sorted(by_kind)}

    def predict(self, case: JudgedCase) -> ErrorPrediction:
        """See `Baseline.predict`."""
        if not self._level:
            raise RuntimeError(f"baseline {self.name!r} is not fitted")
        return self._maps.predict(case, self._level_of.get(case.kind, self._level))

    def parameters(self) -> dict[str, float]:
        """The number fitted on all masks by its name, and "<name>/<kind>" for each kind."""
        name, value = self._maps.parameter(self._level)
        return {name: value} | {f"{name}/{k}": self._maps.parameter(level)[1] for k, level in self._level_of.items()}
