"""A network whose loss was finite but that gives NaN for a whole volume: one line, in both stages' loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from whqa.errors import InputError
from whqa.modules.lightning import ErrorMapTraining, SegmenterTraining


class _Spoilt(nn.Module):
    n_sides = 0

    def __init__(self, channels: int, value: float) -> None:
        super().__init__()
        self.channels, self.value = channels, value
        self.classifiers = nn.ModuleList([nn.Conv3d(1, 1, 1)])

    def forward(self, x: Tensor, sides: bool = False) -> list[Tensor]:
        out = torch.zeros(len(x), self.channels, *x.shape[2:])
        out[..., -1] = self.value
        return [out]


def _batch() -> dict[str, Any]:
    image, label = torch.randn(1, 1, 4, 4, 4), torch.zeros(1, 4, 4, 4, dtype=torch.long)
    return {
        "image": image,
        "plain": image,
        "mask": label,
        "label": label,
        "brightness": torch.ones(1, 3, 2),
        "index": torch.tensor([0]),
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.0])
@pytest.mark.parametrize("stage", ["segmenter", "errormap"])
def test_no_numbers_are_one_line(stage: str, value: float) -> None:
    module: Any
    if stage == "segmenter":
        module = SegmenterTraining(_Spoilt(3, value), total_steps=2)
    else:
        module = ErrorMapTraining(_Spoilt(4, value), n_classes=3, inputs=["image", "mask"], total_steps=2)
    module.trainer = SimpleNamespace(global_step=2, fit_loop=SimpleNamespace(epoch_loop=None))
    if value == 1.0:
        module.validation_step(_batch(), 0)
        return
    with pytest.raises(InputError, match=r"training diverged: after step .* the network gives no numbers"):
        module.validation_step(_batch(), 0)
