"""Metrics as torchmetrics classes over functional cores."""

from whqa.metrics.correlation import (
    QIAccuracyCorrelation,
    mae,
    mae_constant,
    pearson,
    spearman,
    why_undefined,
)
from whqa.metrics.error_detection import (
    ErrorCounts,
    ErrorMapAUPRC,
    ErrorMapDice,
    average_precision,
    dice_of_counts,
    error_counts,
    error_dice,
    error_dice_by_structure,
)
from whqa.metrics.failure import aurc, auroc, e_aurc, risk_coverage
from whqa.metrics.per_case import CaseMetric, CaseTable, mean_defined
from whqa.metrics.segmentation import SegmentationDice, segmentation_dice
from whqa.metrics.surface import HausdorffDistance95, hd95_mm
from whqa.metrics.verdict_row import JUDGE_COLUMNS, judge

__all__ = [
    "JUDGE_COLUMNS",
    "CaseMetric",
    "CaseTable",
    "ErrorCounts",
    "ErrorMapAUPRC",
    "ErrorMapDice",
    "HausdorffDistance95",
    "QIAccuracyCorrelation",
    "SegmentationDice",
    "aurc",
    "auroc",
    "average_precision",
    "dice_of_counts",
    "e_aurc",
    "error_counts",
    "error_dice",
    "error_dice_by_structure",
    "hd95_mm",
    "judge",
    "mae",
    "mae_constant",
    "mean_defined",
    "pearson",
    "risk_coverage",
    "segmentation_dice",
    "spearman",
    "why_undefined",
]
