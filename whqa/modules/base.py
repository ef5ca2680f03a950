"""What both stages share: a deeply supervised network and its loss, without Lightning, which judging can do without.

Shape suffixes: B batch, C classes or channels, DHW space (axes R, A, S of the cache grid).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from whqa.modules.convolutions import convolutions_of
from whqa.modules.inference import forward_volume
from whqa.modules.training_settings import OptimiserSettings

Loss = Callable[[Tensor, Any], Tensor]
FINAL_SIDE_WEIGHT = 0.001


def side_weight(step: int, total_steps: int) -> float:
    """Weight of the side outputs' losses: falls geometrically from 1 to 0.001 over the training (Chen et al. 2018)."""
    return float(FINAL_SIDE_WEIGHT ** min(1.0, step / max(1, total_steps)))


def deep_supervision(outputs: list[Tensor], target: Any, loss: Loss, weight: float) -> Tensor:
    """Loss on the final output plus `weight` times the mean loss on the side outputs.

    Args:
        outputs: [final, side1, ...], each logits (B, C, D, H, W).
        target: whatever `loss` compares with.
    """
    final, *sides = (loss(for_loss(output), target) for output in outputs)
    return final + weight * torch.stack(sides).mean() if sides else final


def for_loss(logits: Tensor) -> Tensor:
    """Logits as losses take them, float32 with channels first; their gradient as the network takes it."""
    found: Tensor = _ForLoss.apply(logits)
    return found


class _ForLoss(torch.autograd.Function):
    """A network leaves channels last, losses want them first: turned round once each way, in half precision."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        last = logits.dim() == 5 and logits.is_contiguous(memory_format=torch.channels_last_3d)
        ctx.dtype, ctx.format = logits.dtype, torch.channels_last_3d if last else torch.contiguous_format
        return logits.contiguous().float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.to(ctx.dtype).contiguous(memory_format=ctx.format)


def rounded(inputs: Tensor) -> Tensor:
    """To what the first convolution rounds to under autocast: half to move."""
    kind = inputs.device.type
    return inputs.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else inputs


class DeepSupervisionModule(nn.Module):
    """A network that returns [final logits, side logits...], with what its training is told.

    Args:
        network: maps (B, C_in, D, H, W) to a list of (B, C_out, D, H, W).
        total_steps: length of the schedule in optimiser steps.
        learning_rate: peak of the one-cycle schedule.
        weight_decay: of AdamW.
        warmup: share of the steps in which the learning rate rises.
        channels_last: keep weights and inputs in channels_last_3d, see `whqa.config.speed`.
        fused: one kernel for the optimiser's step, see `whqa.config.speed`.
        max_voxels: volumes above this size are predicted in tiles of at most so many voxels, see
            `whqa.modules.inference`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        total_steps: int,
        learning_rate: float = OptimiserSettings.learning_rate,
        weight_decay: float = OptimiserSettings.weight_decay,
        warmup: float = OptimiserSettings.warmup,
        channels_last: bool = OptimiserSettings.channels_last,
        fused: bool = OptimiserSettings.fused,
        max_voxels: int = OptimiserSettings.max_voxels,
    ) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.learning_rate, self.weight_decay, self.warmup = learning_rate, weight_decay, warmup
        self.fused = fused
        self.memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
        self.network = network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.max_voxels = max_voxels

    def inputs(self, batch: dict[str, Any]) -> Tensor:
        """Network input (B, C_in, D, H, W) of a batch."""
        raise NotImplementedError

    def target(self, batch: dict[str, Any]) -> Any:
        """What the loss compares the logits with."""
        raise NotImplementedError

    def loss(self, logits: Tensor, target: Any) -> Tensor:
        """Loss of one output, float32."""
        raise NotImplementedError

    def forward(self, inputs_BCDHW: Tensor) -> list[Tensor]:
        """Logits [final, side1, ...] of a patch."""
        laid_out = self._laid_out(inputs_BCDHW)
        with convolutions_of(laid_out, getattr(self.network, "divisor", (1, 1, 1))):
            outputs: list[Tensor] = self.network(laid_out)
        return outputs

    def _laid_out(self, inputs_BCDHW: Tensor) -> Tensor:
        """In the network's memory format."""
        return rounded(inputs_BCDHW).contiguous(memory_format=self.memory_format)

    def forward_volume(self, inputs_BCDHW: Tensor, sides: bool = False) -> list[Tensor]:
        """Logits [final], with `sides` [final, side1, ...], float32, of a whole volume of any size."""
        laid_out = self._laid_out(inputs_BCDHW)
        with convolutions_of(laid_out, getattr(self.network, "divisor", (1, 1, 1))):
            return forward_volume(self.network, laid_out, self.max_voxels, sides=sides)
