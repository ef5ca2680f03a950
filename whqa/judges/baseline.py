"""The interface of a baseline: fitted on judged training cases, it predicts what the error-map network predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from whqa.errors import InputError
from whqa.quality import ErrorPrediction, JudgedCase

CaseSource = Callable[[], Iterator[JudgedCase]]
"""Yields the training cases anew at each call, one at a time: a baseline never holds more than one volume."""


class Baseline(Protocol):
    """A rival of the error-map network for the same table. Needs no training beyond a few numbers.

    Attributes:
        name: in the column `method` of cases.csv.
        needs_entropy: whether it judges only masks that come with their segmenter's entropy; others get no row.
    """

    name: str
    needs_entropy: bool

    def fit(self, cases: CaseSource) -> None:
        """Choose the numbers on training cases with reference, never on test cases.

        Raises:
            ValueError: there is no case, or one lacks its reference.
        """
        ...

    def predict(self, case: JudgedCase) -> ErrorPrediction:
        """P and Ê of one mask; its reference is not looked at.

        Raises:
            RuntimeError: neither fitted nor loaded.
        """
        ...

    def parameters(self) -> dict[str, float]:
        """The chosen numbers, plain enough for JSON."""
        ...

    def load(self, parameters: Mapping[str, float]) -> None:
        """Take numbers that `parameters` gave.

        Raises:
            InputError: one is missing.
        """
        ...


def chosen(name: str, value: float | None) -> float:
    """The number of a fitted baseline.

    Raises:
        RuntimeError: there is none yet.
    """
    if value is None:
        raise RuntimeError(f"baseline {name!r} is not fitted: call fit or load first")
    return value


def parameter(name: str, parameters: Mapping[str, float], key: str) -> float:
    """One stored number of a baseline.

    Raises:
        InputError: it is missing.
    """
    if key not in parameters:
        raise InputError(f"baseline {name!r}: no parameter {key!r} in {sorted(parameters)}; fit it again")
    return float(parameters[key])
