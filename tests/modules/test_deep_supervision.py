"""Loss, weights of the side outputs, optimiser and schedule, against formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from whqa.modules.base import deep_supervision, for_loss, side_weight
from whqa.modules.lightning import DeepSupervisionTraining


class _Toy(nn.Module):
    n_sides = 2
    divisor = (1, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1)

    def forward(self, x_BCDHW: Tensor) -> list[Tensor]:
        y = self.conv(x_BCDHW)
        return [y, y + 1, y * 2]


def test_side_outputs_weigh_1_at_the_start_and_a_thousandth_at_the_end() -> None:
    assert side_weight(0, 100) == 1.0
    assert side_weight(100, 100) == pytest.approx(0.001)
    assert side_weight(500, 100) == pytest.approx(0.001)
    assert side_weight(50, 100) == pytest.approx(0.001**0.5)


def test_side_weights_fall_geometrically() -> None:
    weights = np.array([side_weight(step, 40) for step in range(41)])
    np.testing.assert_allclose(weights[1:] / weights[:-1], 0.001 ** (1 / 40), rtol=1e-9)


def test_a_training_of_no_steps_has_a_weight() -> None:
    assert side_weight(0, 0) == 1.0


def _squared(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).square().mean()


def test_the_loss_is_the_final_one_plus_the_weighted_mean_of_the_sides() -> None:
    outputs = [torch.full((1, 1, 2, 2, 2), value) for value in (1.0, 2.0, 4.0)]
    loss = deep_supervision(outputs, torch.zeros(1, 1, 2, 2, 2), _squared, 0.3)
    assert float(loss) == pytest.approx(1 + 0.3 * (4 + 16) / 2)


def test_without_sides_the_loss_is_the_final_one() -> None:
    assert float(deep_supervision([torch.ones(1, 1, 1, 1, 1)], torch.zeros(1), _squared, 0.3)) == 1.0


def test_losses_are_taken_in_float32() -> None:
    seen = []

    def loss(output: Tensor, target: Tensor) -> Tensor:
        seen.append(output.dtype)
        return output.mean()

    deep_supervision([torch.ones(1, dtype=torch.bfloat16)] * 3, torch.zeros(1), loss, 1.0)
    assert seen == [torch.float32] * 3


def test_the_gradient_of_every_output_arrives() -> None:
    outputs = [torch.ones(1, 1, 1, 1, 1, requires_grad=True) for _ in range(3)]
    deep_supervision(outputs, torch.zeros(1), _squared, 0.5).backward()
    assert [float(o.grad) for o in outputs if o.grad is not None] == pytest.approx([2.0, 0.5, 0.5])


def test_the_optimiser_is_adamw_on_a_one_cycle_schedule() -> None:
    module = DeepSupervisionTraining(_Toy(), total_steps=20, learning_rate=0.01, weight_decay=0.2, warmup=0.25)
    made = module.configure_optimizers()
    optimiser, schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
    assert made["lr_scheduler"]["interval"] == "step"
    assert isinstance(optimiser, torch.optim.AdamW)
    assert optimiser.param_groups[0]["weight_decay"] == 0.2
    rates = []
    for _ in range(20):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if len(rates) < 20:
            schedule.step()
    assert max(rates) == pytest.approx(0.01)
    assert rates.index(max(rates)) == 4
    assert rates[-1] < 1e-6


def test_hyperparameters_are_plain_so_that_checkpoints_load_safely() -> None:
    module = DeepSupervisionTraining(_Toy(), total_steps=20)
    assert all(isinstance(v, int | float | bool) for v in module.hparams.values())
    assert "network" not in module.hparams


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_memory_format_changes_nothing_but_speed(channels_last: bool) -> None:
    torch.manual_seed(0)
    network = _Toy()
    x = torch.randn(1, 1, 3, 4, 5)
    expected = [o.detach().clone() for o in network(x)]
    module = DeepSupervisionTraining(network, total_steps=2, channels_last=channels_last)
    for got, want in zip(module(x), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_logits_of_any_layout_and_their_gradients_are_those_of_torch(dtype, memory_format) -> None:
    torch.manual_seed(0)
    values, weight = torch.randn(2, 3, 4, 5, 6).to(dtype), torch.randn(2, 3, 4, 5, 6)
    ours, plain = (values.clone(memory_format=memory_format).requires_grad_() for _ in range(2))
    taken = for_loss(ours)
    assert taken.dtype == torch.float32
    assert taken.is_contiguous()
    torch.testing.assert_close(taken, values.float(), rtol=0, atol=0)
    (taken * weight).sum().backward()
    (plain.float() * weight).sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=0, atol=0)
    assert ours.grad.is_contiguous(memory_format=memory_format)
