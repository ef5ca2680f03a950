"""Baselines that differ from case to case by one chosen level: nested error maps, of which training cases pick one."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from whqa.judges.baseline import Baseline, CaseSource
from whqa.judges.threshold import LevelSearch
from whqa.quality import JudgedCase


class LevelBaseline(Baseline, Protocol):
    """A baseline whose map is "level >= k" for one k of 1..n_levels."""

    n_levels: int

    def levels(self, case: JudgedCase) -> Tensor:
        """Level 0..n_levels of every voxel, integer (D, H, W)."""
        ...

    def choose(self, level: int) -> None:
        """Take k."""
        ...


def fit_level(baseline: LevelBaseline, cases: CaseSource) -> None:
    """Choose the level with the best mean error Dice; see `Baseline.fit`."""
    search = LevelSearch(baseline.n_levels)
    for case in cases():
        search.update(baseline.levels(case), case.error)
    baseline.choose(search.best()[0])
