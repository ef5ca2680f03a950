"""A volume is shown to the network once while its weights stay as they are, and what it said is the same to the bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from whqa.modules.errormap import in_channels, out_channels
from whqa.modules.kept_outputs import KeptOutputs
from whqa.modules.lightning import ErrorMapTraining
from whqa.networks.voxresnet import VoxResNet


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float32])
def test_what_is_kept_is_the_same_to_the_last_bit(kind: torch.dtype) -> None:
    kept, said = KeptOutputs(), torch.randn(1, 3, 5, 6, 7).to(kind).float()
    first = kept.of(4, lambda: said)
    again = kept.of(4, lambda: pytest.fail("computed again"))
    for found in (first, again):
        assert found.dtype == torch.float32
        assert torch.equal(found, said)


def test_no_more_is_kept_than_the_limit_allows() -> None:
    asked: list[int] = []

    def compute(index: int) -> Tensor:
        asked.append(index)
        return torch.full((10,), 1 / 3)

    kept = KeptOutputs(limit=2 * 10 * 4)
    for _ in range(2):
        for index in range(3):
            kept.of(index, lambda index=index: compute(index))
    assert asked == [0, 1, 2, 2]
    kept.forget()
    kept.of(0, lambda: compute(0))
    assert asked[-1] == 0


def _batch(index: int) -> dict[str, Any]:
    torch.manual_seed(index)
    image = torch.randn(1, 1, 8, 8, 8)
    return {
        "image": image,
        "plain": image,
        "mask": torch.randint(0, 3, (1, 8, 8, 8)),
        "brightness": torch.rand(1, 3, 2) + 0.5,
        "spacing": torch.ones(1, 3),
        "index": torch.tensor([index]),
    }


def test_a_step_or_a_test_forgets_what_the_weights_have_said() -> None:
    inputs = ["image", "mask"]
    network = VoxResNet(in_channels(inputs, 3), out_channels("label", inputs, 3), width=2)
    module = ErrorMapTraining(network, n_classes=3, inputs=inputs, head="label", total_steps=10).eval()
    calls: list[object] = []
    network.register_forward_hook(lambda *found: calls.append(found))
    said = [module.validation_step(_batch(index), 0) for index in (0, 1, 0, 1)]
    assert len(calls) == 2
    for one, other in ((0, 2), (1, 3)):
        assert torch.equal(said[one].error_logit, said[other].error_logit)
    assert not torch.equal(said[0].error_logit, said[1].error_logit)
    with torch.no_grad():
        for values in network.parameters():
            values.add_(0.1)
    module.on_train_batch_start()
    changed = module.validation_step(_batch(0), 0)
    assert len(calls) == 3
    assert not torch.equal(changed.error_logit, said[0].error_logit)
    module.on_test_start()
    module.validation_step(_batch(0), 0)
    assert len(calls) == 4
    assert module.raw(_batch(0)).error_logit.equal(changed.error_logit)
