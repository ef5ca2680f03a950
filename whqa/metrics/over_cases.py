"""The metrics as torchmetrics classes over their functional cores: means over the cases of any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from whqa.metrics.arrays import mean_defined
from whqa.metrics.correlation import mae, mae_constant, pearson, spearman
from whqa.metrics.error_detection import average_precision, dice_of_counts, error_counts
from whqa.metrics.per_case import CaseMetric
from whqa.metrics.segmentation import segmentation_dice
from whqa.metrics.surface import hd95_mm, volume_diagonal_mm


class SegmentationDice(CaseMetric):
    """Dice per structure, mean over cases.

    Args:
        structures: keys in index order (structure i + 1 is structures[i]).
    """

    higher_is_better = True

    def __init__(self, structures: Sequence[str], **kwargs: Any) -> None:
        super().__init__(tuple(f"dice_{key}" for key in structures), **kwargs)

    def update(self, index: int | Tensor, mask: Tensor, reference: Tensor) -> None:
        """Add one case: labels (D, H, W)."""
        dice = segmentation_dice(mask, reference, len(self.column_names) + 1)
        self.record(index, dict(zip(self.column_names, dice, strict=True)))

    def compute(self) -> dict[str, Tensor]:
        """Scalars: "dice_<structure>", and "dice", the mean over cases of each case's mean over its structures."""
        return mean_by_structure(self, "dice", self.column_names)


def mean_by_structure(metric: CaseMetric, name: str, keys: Sequence[str]) -> dict[str, Tensor]:
    """The mean over cases of each column of `keys`, and under `name` of each case's mean of them; nan is left out."""
    columns = metric.columns()
    table = np.stack([columns[key] for key in keys], axis=1)
    overall = mean_defined([mean_defined(row) for row in table])
    by_structure = {key: metric.scalar(mean_defined(columns[key])) for key in keys}
    return {name: metric.scalar(overall)} | by_structure


class HausdorffDistance95(CaseMetric):
    """HD95 per structure in mm, mean over cases.

    Args:
        structures: keys in index order (structure i + 1 is structures[i]).
    """

    higher_is_better = False

    def __init__(self, structures: Sequence[str], **kwargs: Any) -> None:
        self.distances = tuple(f"hd95_{key}" for key in structures)
        super().__init__((*self.distances, "hd95_missed"), **kwargs)

    def update(self, index: int | Tensor, mask: Tensor, reference: Tensor, spacing: Sequence[float]) -> None:
        """Add one case: labels (D, H, W), mm per voxel."""
        mm = [float(s) for s in spacing]
        values = hd95_mm(mask, reference, mm, len(self.distances) + 1)
        missed = int((values == volume_diagonal_mm(mask.shape, mm)).sum())
        self.record(index, dict(zip(self.distances, values, strict=True)) | {"hd95_missed": missed})

    def compute(self) -> dict[str, Tensor]:
        """Scalars: "hd95_<structure>", and "hd95", the mean over cases of each case's mean over its structures.

        "hd95_missed" counts the structures, over all cases, whose distance is the penalty of the volume's diagonal.
        """
        missed = self.scalar(float(self.columns()["hd95_missed"].sum()))
        return mean_by_structure(self, "hd95", self.distances) | {"hd95_missed": missed}


class ErrorMapDice(CaseMetric):
    """Dice of predicted error maps, mean over cases."""

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(("error", "predicted", "hit"), **kwargs)

    def update(self, index: int | Tensor, predicted: Tensor, true: Tensor) -> None:
        """Add one case: bool maps of one shape."""
        self.record(index, vars(error_counts(predicted, true)))

    def compute(self) -> Tensor:
        """Scalar; nan without any case."""
        columns = self.columns()
        counts = [columns[name] for name in ("error", "predicted", "hit")]
        return self.scalar(mean_defined([dice_of_counts(*row) for row in zip(*counts, strict=True)]))


class ErrorMapAUPRC(CaseMetric):
    """Mean over cases of the average precision of error probabilities; cases without a wrong voxel are left out."""

    higher_is_better = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(("auprc",), **kwargs)

    def update(self, index: int | Tensor, probability: Tensor, true: Tensor) -> None:
        """Add one case: float and bool maps of one shape."""
        self.record(index, {"auprc": average_precision(probability, true)})

    def compute(self) -> Tensor:
        """Scalar; nan where no case has an error."""
        return self.scalar(mean_defined(self.columns()["auprc"]))


class QIAccuracyCorrelation(CaseMetric):
    """PCC, Spearman and MAE between QI and Acc over cases, and the constant predictor's MAE.

    Args:
        constant: training mean of Acc; None takes the mean over the evaluated cases (see `mae_constant`).
    """

    def __init__(self, constant: float | None = None, **kwargs: Any) -> None:
        super().__init__(("qi", "acc"), **kwargs)
        self.constant = constant

    def update(self, index: int | Tensor, qi: float | Tensor, acc: float | Tensor) -> None:
        """Add one case."""
        self.record(index, {"qi": qi, "acc": acc})

    def compute(self) -> dict[str, Tensor]:
        """Scalars "pcc", "spearman", "mae", "mae_constant"."""
        columns = self.columns()
        qi, acc = columns["qi"], columns["acc"]
        return {
            "pcc": self.scalar(pearson(qi, acc)),
            "spearman": self.scalar(spearman(qi, acc)),
            "mae": self.scalar(mae(qi, acc)),
            "mae_constant": self.scalar(mae_constant(acc, self.constant)),
        }
