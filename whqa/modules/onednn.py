"""A single float32 volume on a CPU: oneDNN's 3-D convolutions in place of PyTorch's own.

PyTorch (2.13) takes oneDNN for float32 only of batches of two and more, or where channels times the first two edges are
over 20,480 (`ConvParams::use_mkldnn` in aten/src/ATen/native/Convolution.cpp); else `slow_conv3d`, an im2col of one
thread's making. Whole volumes come one at a time, so on CPUs without native bf16 their coarser resolutions did.

Measured on one thread with AVX2 alone, VoxResNet of width 16, one input, CPU ms: 40^3 85 -> 39, 45^3 228 -> 66, 56^3
122 -> 102, 80^3 445 -> 367 (`make bench ARGS="--only volumes"`); logits differ by 2e-7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_ARGUMENTS = 7
"""Of `torch.conv3d`, as a layer gives them all."""


def convolutions_of(inputs_BCDHW: Tensor) -> AbstractContextManager[Any]:
    """Within it a network convolves these inputs by oneDNN, where PyTorch would not and oneDNN can."""
    can = torch.backends.mkldnn.is_available() and inputs_BCDHW.device.type == "cpu"
    float32 = inputs_BCDHW.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return _OneDNN() if can and float32 and len(inputs_BCDHW) == 1 else nullcontext()


class _OneDNN(TorchFunctionMode):
    """Asks oneDNN for the `conv3d` of every layer whose padding is in numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.conv3d or kwargs or len(args) != _ARGUMENTS or isinstance(args[4], str):
            return func(*args, **(kwargs or {}))
        inputs, weight, bias, stride, padding, dilation, groups = args
        return torch.mkldnn_convolution(inputs, weight, bias, padding, stride, dilation, groups)
