"""Metrics as torchmetrics classes over functional cores; the classes named here may be used in any Lightning module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whqa.metrics.over_cases import (
        ErrorMapAUPRC,
        ErrorMapDice,
        HausdorffDistance95,
        QIAccuracyCorrelation,
        SegmentationDice,
    )

__all__ = ["ErrorMapAUPRC", "ErrorMapDice", "HausdorffDistance95", "QIAccuracyCorrelation", "SegmentationDice"]


def __getattr__(name: str) -> Any:
    # the functional cores need no torchmetrics, whose import takes seconds
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from whqa.metrics import over_cases

    return getattr(over_cases, name)
