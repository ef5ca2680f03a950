"""Training steps on a GPU: bf16 against float32, and float32 against the CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from whqa.modules.errormap import ErrorMapModule, in_channels, out_channels
from whqa.modules.segmenter import SegmenterModule
from whqa.networks.voxresnet import VoxResNet

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
N_CLASSES, STEPS, EDGE = 4, 5, 32
INPUTS = ("image", "mask", "opinion")
BF16_BOUND = 0.02
"""Relative difference of a step's loss in bf16 to that in float32: a rounding step of bf16 is 0.004."""


def _batch(device: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(0, N_CLASSES, (2, EDGE, EDGE, EDGE), generator=generator)
    moved = torch.rand(label.shape, generator=generator) < 0.2
    mask = torch.where(moved, (label + 1) % N_CLASSES, label)
    image = label[:, None] + 0.5 * torch.randn((2, 1, EDGE, EDGE, EDGE), generator=generator)
    log_p = torch.randn((2, N_CLASSES, EDGE, EDGE, EDGE), generator=generator).log_softmax(1)
    brightness = torch.rand((2, N_CLASSES, 2), generator=generator) + 0.3
    parts = {"image": image, "plain": image, "label": label, "mask": mask, "log_p": log_p, "brightness": brightness}
    return {name: values.to(device) for name, values in parts.items()}


def _losses(stage: str, device: str, precision: torch.dtype, channels_last: bool = True) -> list[float]:
    torch.manual_seed(2)
    options = {"total_steps": 10, "channels_last": channels_last}
    if stage == "segmenter":
        module = SegmenterModule(VoxResNet(1, N_CLASSES, width=8), **options)
    else:
        network = VoxResNet(in_channels(INPUTS, N_CLASSES), out_channels("label", INPUTS, N_CLASSES), width=8)
        module = ErrorMapModule(network, n_classes=N_CLASSES, inputs=INPUTS, head="label", **options)
    module, batch = module.to(device), _batch(device)
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, fused=True)
    found = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == torch.bfloat16):
            outputs = module(module.inputs(batch))
        target = module.target(batch)
        loss = torch.stack([module.loss(output.float(), target) for output in outputs]).mean()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return found


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32 means float32, not TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("stage", ["segmenter", "errormap"])
def test_losses_in_bf16_are_those_of_float32_within_its_rounding(stage: str) -> None:
    half, exact = (_losses(stage, "cuda", precision) for precision in (torch.bfloat16, torch.float32))
    assert half == pytest.approx(exact, rel=BF16_BOUND)


@pytest.mark.parametrize("stage", ["segmenter", "errormap"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_losses_in_float32_are_those_of_the_cpu(stage: str, channels_last: bool) -> None:
    there = _losses(stage, "cuda", torch.float32, channels_last)
    here = _losses(stage, "cpu", torch.float32, channels_last)
    assert there == pytest.approx(here, rel=1e-3)
