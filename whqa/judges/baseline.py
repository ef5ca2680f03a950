"""The interface of a baseline: fitted on judged training cases, it predicts what the error-map network predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from whqa.quality import ErrorPrediction, JudgedCase, QualityPrediction

CaseSource = Callable[[], Iterator[JudgedCase]]
"""Yields the training cases anew at each call, one at a time: a baseline never holds more than one volume."""


class Baseline(Protocol):
    """A rival of the error-map network for the same table. Needs no training beyond a few numbers.

    Attributes:
        name: in the column `method` of cases.csv.
        needs: attributes of `JudgedCase` that not every mask has and without which it judges none: such a mask gets no
            row ("entropy", "log_p"). The cases of its fit come with these and no others.
        wants_all: whether it learns a number or a row from each mask, and so from all training masks; one that learns
            from voxels gets a sample of them.
    """

    name: str
    needs: frozenset[str]
    wants_all: bool

    def fit(self, cases: CaseSource) -> None:
        """Choose the numbers on training cases with reference, never on test cases.

        Raises:
            ValueError: there is no case, or one lacks its reference.
        """
        ...

    def predict(self, case: JudgedCase) -> ErrorPrediction | QualityPrediction:
        """P and Ê of one mask, or its quality alone; its reference is not looked at.

        Raises:
            RuntimeError: not fitted.
        """
        ...

    def parameters(self) -> dict[str, Any]:
        """The chosen numbers, plain enough for JSON."""
        ...
