"""Stage one: the segmenter, whose masks of unseen cases are what the second stage learns to judge."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from whqa.modules.base import DeepSupervisionModule
from whqa.modules.losses import TrueLabels, dice_cross_entropy
from whqa.modules.views import mean_over_views
from whqa.quality import most_probable


class Segmented(NamedTuple):
    """What a segmenter says of a whole volume.

    Attributes:
        masks: kind -> (mask uint8 (D, H, W), normalised entropy float32 (D, H, W)).
        log_p: log p_S behind the final mask, float32 (C + 1, D, H, W).
    """

    masks: dict[str, tuple[Tensor, Tensor]]
    log_p: Tensor


class SegmenterModule(DeepSupervisionModule):
    """Image -> label logits with Dice + cross entropy and deep supervision.

    Args:
        network: (B, 1, D, H, W) -> list of (B, C + 1, D, H, W).
        kwargs: see `DeepSupervisionModule`.

    Attributes:
        early_weights: the network's state_dict after an early step, set before `test` to add masks of kind "early".
    """

    def __init__(self, network: nn.Module, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.early_weights: dict[str, Tensor] | None = None

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """The image (B, 1, D, H, W)."""
        image: Tensor = batch["image"]
        return image

    def target(self, batch: dict[str, Any]) -> TrueLabels:
        """The reference."""
        return TrueLabels(batch["label"])

    def loss(self, logits: Tensor, target: TrueLabels) -> Tensor:
        """Dice over the structures, pooled over the batch, plus cross entropy."""
        return dice_cross_entropy(logits, target)

    def masks(self, batch: dict[str, Any]) -> Segmented:
        """Masks of all kinds of a whole volume, and what the final one follows from.

        "final" and "side<i>" come from the current weights, "early" from `early_weights` where these are set.
        """
        final, *sides = self.forward_volume(self.inputs(batch), sides=True)
        logits = {"final": final} | {f"side{i}": side for i, side in enumerate(sides, start=1)}
        if self.early_weights is not None:
            logits["early"] = self._early_logits(batch)
        found = {kind: mask_and_entropy(values[0]) for kind, values in logits.items()}
        return Segmented(found, torch.log_softmax(final[0], dim=0))

    def log_p(self, image_DHW: Tensor) -> Tensor:
        """log p_S of a whole volume: float32 (C + 1, D, H, W)."""
        return torch.log_softmax(self.forward_volume(image_DHW[None, None])[0][0], dim=0)

    def log_p_of_views(self, image_DHW: Tensor, own_CDHW: Tensor | None = None) -> Tensor:
        """The same of the mean of p_S over the image and shifted views of it; `own_CDHW` is `log_p` if it is known."""
        own = self.log_p(image_DHW) if own_CDHW is None else own_CDHW
        return mean_over_views(self.log_p, image_DHW, getattr(self.network, "divisor", (1, 1, 1)), own)

    def _early_logits(self, batch: dict[str, Any]) -> Tensor:
        current = {k: v.clone() for k, v in self.network.state_dict().items()}
        try:
            self.network.load_state_dict(self.early_weights or current)
            return self.forward_volume(self.inputs(batch))[0]
        finally:
            self.network.load_state_dict(current)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Masks of a whole volume; callbacks turn them into numbers."""
        return {"final": mask_and_entropy(self.forward_volume(self.inputs(batch))[0][0])}

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Segmented:
        """Masks of all kinds of a whole volume and the opinion behind them; callbacks store and measure them."""
        return self.masks(batch)


def mask_and_entropy(logits_CDHW: Tensor) -> tuple[Tensor, Tensor]:
    """Most probable label uint8 (D, H, W) and softmax entropy / log(C + 1) float32 (D, H, W)."""
    log_p = torch.log_softmax(logits_CDHW.float(), dim=0)
    entropy = -(log_p.exp() * log_p).sum(dim=0) / math.log(len(log_p))
    return most_probable(log_p).to(torch.uint8), entropy
