"""Stage two: the error-map network, which sees an image and a mask of it and says which voxels are wrong.

After Zhang & Chung, MICCAI 2019: error-map prediction is a segmentation problem for the same network family.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from whqa.calibration import Calibration
from whqa.data.judged import ErrorPrediction
from whqa.modules.base import DeepSupervisionModule


class ErrorMapModule(DeepSupervisionModule):
    """Image + one-hot mask -> error logit, with cross entropy (and optionally Dice) and deep supervision.

    Wrong voxels are rare; patches are centred on them (data module) and `positive_weight` weighs them in the loss.

    Args:
        network: (B, 1 + C + 1, D, H, W) -> list of (B, 1, D, H, W).
        n_classes: C + 1.
        dice_weight: weight of a soft Dice term beside cross entropy.
        positive_weight: weight of wrong voxels in the cross entropy.
        kwargs: see `DeepSupervisionModule`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        n_classes: int,
        dice_weight: float = 1.0,
        positive_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.save_hyperparameters(ignore=["network"])
        self.n_classes = n_classes
        self.dice_weight = dice_weight
        self.register_buffer("positive_weight", torch.tensor(float(positive_weight)), persistent=False)
        self.dice = DiceLoss(sigmoid=True, batch=True)
        self.calibration = Calibration()

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """Image and one-hot mask (B, 1 + C + 1, D, H, W)."""
        one_hot = F.one_hot(batch["mask"].long(), self.n_classes).movedim(-1, 1)
        return torch.cat([batch["image"], one_hot.to(batch["image"].dtype)], dim=1)

    def target(self, batch: dict[str, Any]) -> Tensor:
        """The error map [M != G] as float (B, 1, D, H, W)."""
        return (batch["mask"] != batch["label"])[:, None].float()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Weighted cross entropy plus `dice_weight` times soft Dice loss, pooled over the batch."""
        pos_weight: Tensor = self.positive_weight  # type: ignore[assignment]
        value = F.binary_cross_entropy_with_logits(logits, target, pos_weight=pos_weight)
        if self.dice_weight:
            value = value + self.dice_weight * self.dice(logits, target)
        return value

    def raw_logit(self, batch: dict[str, Any]) -> Tensor:
        """Uncalibrated error logit float32 (D, H, W) of a whole volume."""
        return self.forward_volume(self.inputs(batch))[0][0, 0]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Uncalibrated error logit of a whole volume; callbacks calibrate and measure it."""
        return self.raw_logit(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> ErrorPrediction:  # type: ignore[override]
        """Calibrated prediction for a whole volume; callbacks store and measure it."""
        return self.calibration.predict(self.raw_logit(batch))
