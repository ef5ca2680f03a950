"""Stage two: the error-map network, which sees an image and a mask of it and says which voxels are wrong.

After Zhang & Chung, MICCAI 2019: error-map prediction is a segmentation problem for the same network family. Beside the
paper's binary head stands a label head, which also says what the right label is:

    binary   1 logit e: the mask is wrong here, P = sigmoid(e)
    label    C + 1 logits of the true label: P = 1 - p(M), so e = logsumexp of the others - logit of M

Cross entropy of the true label is that of e plus, on wrong voxels, that over the other labels; so both heads share one
loss, with the second term weighted by `label_weight`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import Tensor, nn

from whqa.errors import InputError
from whqa.judges.calibration import Calibration
from whqa.judges.correction import corrected_mask, expected_dice, most_probable_other, other_probabilities
from whqa.modules.base import DeepSupervisionModule
from whqa.modules.training_settings import ErrorMapSettings, Head
from whqa.quality import ErrorPrediction


class RawVerdict(NamedTuple):
    """Uncalibrated outputs for a volume: float32 (D, H, W) and (C + 1, D, H, W), the latter None without label head."""

    error_logit: Tensor
    label_logits: Tensor | None


def out_channels(head: str, n_classes: int) -> int:
    """Channels that a head needs.

    Raises:
        InputError: no such head.
    """
    if head not in list(Head):
        raise InputError(f"errormap.head={head}: must be one of {', '.join(Head)}")
    return 1 if head == "binary" else n_classes


class ErrorMapModule(DeepSupervisionModule):
    """Image + one-hot mask -> error logit, with cross entropy (and optionally Dice) and deep supervision.

    Wrong voxels are rare; patches are centred on them (data module) and `positive_weight` weighs them in the loss.

    Args:
        network: (B, 1 + C + 1, D, H, W) -> list of (B, `out_channels(head)`, D, H, W).
        n_classes: C + 1.
        head: "binary" or "label", see above.
        label_weight: weight of the cross entropy over the other labels on wrong voxels.
        dice_weight: weight of a soft Dice term beside cross entropy.
        positive_weight: weight of wrong voxels in the cross entropy.
        kwargs: see `DeepSupervisionModule`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        n_classes: int,
        head: str = ErrorMapSettings.head,
        label_weight: float = ErrorMapSettings.label_weight,
        dice_weight: float = ErrorMapSettings.dice_weight,
        positive_weight: float = ErrorMapSettings.positive_weight,
        **kwargs: Any,
    ) -> None:
        super().__init__(network, **kwargs)
        self.save_hyperparameters(ignore=["network"])
        self.n_classes = n_classes
        self.head = head
        self.label_weight = label_weight
        self.dice_weight = dice_weight
        self.register_buffer("positive_weight", torch.tensor(float(positive_weight)), persistent=False)
        self.dice = DiceLoss(sigmoid=True, batch=True)
        self.calibration = Calibration()

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """Image and one-hot mask (B, 1 + C + 1, D, H, W)."""
        one_hot = F.one_hot(batch["mask"].long(), self.n_classes).movedim(-1, 1)
        return torch.cat([batch["image"], one_hot.to(batch["image"].dtype)], dim=1)

    def target(self, batch: dict[str, Any]) -> Tensor:
        """Mask and reference labels, int64 (B, 2, D, H, W)."""
        return torch.stack([batch["mask"].long(), batch["label"].long()], dim=1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Weighted cross entropy plus `dice_weight` times soft Dice loss of the error logit, pooled over the batch.

        A label head adds `label_weight` times the mean cross entropy over the other labels on wrong voxels.
        """
        mask, label = target[:, :1], target[:, 1:]
        error = (mask != label).float()
        error_logit, label_logits = self.split(logits, mask)
        pos_weight: Tensor = self.positive_weight  # type: ignore[assignment]
        value = F.binary_cross_entropy_with_logits(error_logit, error, pos_weight=pos_weight)
        if self.dice_weight:
            value = value + self.dice_weight * self.dice(error_logit, error)
        if label_logits is not None and self.label_weight:
            value = value + self.label_weight * _other_cross_entropy(label_logits, mask, label)
        return value

    def split(self, logits_BCDHW: Tensor, mask_B1DHW: Tensor) -> tuple[Tensor, Tensor | None]:
        """Error logit (B, 1, D, H, W) and label logits (B, C + 1, D, H, W), the latter None for the binary head."""
        if self.head == "binary":
            return logits_BCDHW, None
        own = logits_BCDHW.gather(1, mask_B1DHW)
        return _without(logits_BCDHW, mask_B1DHW).logsumexp(dim=1, keepdim=True) - own, logits_BCDHW

    def raw(self, batch: dict[str, Any]) -> RawVerdict:
        """Uncalibrated outputs for a whole volume."""
        final = self.forward_volume(self.inputs(batch))[0]
        error_logit, label_logits = self.split(final, batch["mask"].long()[:, None])
        return RawVerdict(error_logit[0, 0], None if label_logits is None else label_logits[0])

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> RawVerdict:  # type: ignore[override]
        """Uncalibrated outputs for a whole volume; callbacks calibrate and measure them."""
        return self.raw(batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> ErrorPrediction:  # type: ignore[override]
        """Calibrated prediction for a whole volume; callbacks store and measure it."""
        return self.predict(self.raw(batch), batch["mask"][0])

    def predict(self, raw: RawVerdict, mask_DHW: Tensor) -> ErrorPrediction:
        """Calibrated verdict; with label logits also the most probable other labels, expected Dice, corrected mask."""
        found = self.calibration.predict(raw.error_logit)
        if raw.label_logits is None:
            return found
        other = most_probable_other(raw.label_logits, mask_DHW)
        return ErrorPrediction(
            found.probability,
            found.error_map,
            other,
            expected_dice(found.probability, other_probabilities(raw.label_logits, mask_DHW), mask_DHW),
            corrected_mask(mask_DHW, other, found.probability, self.calibration.correction),
        )


def _without(logits_BCDHW: Tensor, mask_B1DHW: Tensor) -> Tensor:
    return logits_BCDHW.scatter(1, mask_B1DHW, torch.finfo(logits_BCDHW.dtype).min)


def _other_cross_entropy(label_logits: Tensor, mask: Tensor, label: Tensor) -> Tensor:
    wrong = mask != label
    log_others = _without(label_logits, mask).log_softmax(dim=1).gather(1, label)
    return -torch.where(wrong, log_others, 0.0).sum() / wrong.sum().clamp(min=1)
