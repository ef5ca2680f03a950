"""3-D convolutions on a CPU where PyTorch's own choice is slow, or wrong.

*Slow*: PyTorch (2.13) takes oneDNN for float32 only of batches of two and more, or where channels times the first two
edges are over 20,480 (`ConvParams::use_mkldnn` in aten/src/ATen/native/Convolution.cpp); else `slow_conv3d`, an im2col
of its own. Whole volumes come one at a time, so on CPUs without native bf16 their coarser resolutions did. Measured on
one thread with AVX2 alone, VoxResNet of width 16, one input, CPU ms: 40^3 87 -> 40, 45^3 152 -> 71, 56^3 134 -> 118,
80^3 401 -> 321 (`make bench ARGS="--only volumes"`); logits differ by 2e-7.

*Wrong*: in bf16 oneDNN's gradient of the weights of a 3^3 convolution is wrong, and now and then not finite, where the
first edge of its input has two voxels, as that of patches of 16 has behind three halvings, or one and it has one
channel (PyTorch 2.13, AVX512-BF16: 40 of 40 and 20 of 40 tries off by over a twentieth of the largest gradient in
float32, whatever the other edges; none with three voxels and more). On CPUs with AMX the output of a strided one is
wrong where the last edge of it has one voxel (github.com/pytorch/pytorch/pull/188426). Such layers, the smallest of a
network, compute in float32.
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
_THIN = 2
"""Voxels along the first edge up to which gradients in bf16 are wrong."""


def convolutions_of(inputs_BCDHW: Tensor, divisor: Sequence[int] = (1, 1, 1)) -> AbstractContextManager[Any]:
    """Within it a network convolves these inputs as fast as oneDNN can, and with gradients that are right.

    Args:
        inputs_BCDHW: of the network.
        divisor: its total strides: what they leave of the edges says whether a layer may be wrong. Looking at every
            layer would cost a passage of 40^3 three hundredths.
    """
    if inputs_BCDHW.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return nullcontext()
    if _in_bf16(inputs_BCDHW):
        least = [-(-edge // step) for edge, step in zip(inputs_BCDHW.shape[2:], divisor, strict=True)]
        return _Float32OfThin() if least[0] <= _THIN or least[2] == 1 else nullcontext()
    return _OneDNN() if inputs_BCDHW.dtype == torch.float32 and len(inputs_BCDHW) == 1 else nullcontext()


def _in_bf16(inputs: Tensor) -> bool:
    if torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu") == torch.bfloat16
    return inputs.dtype == torch.bfloat16


class _OfLayers(TorchFunctionMode):
    """Stands for the `conv3d` of every layer whose padding is in numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.conv3d or kwargs or len(args) != _ARGUMENTS or isinstance(args[4], str):
            return func(*args, **(kwargs or {}))
        return self.convolved(*args)

    def convolved(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        """`how`: stride, padding, dilation, groups."""
        raise NotImplementedError


class _OneDNN(_OfLayers):
    def convolved(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        stride, padding, dilation, groups = how
        found: Tensor = torch.mkldnn_convolution(inputs, weight, bias, padding, stride, dilation, groups)
        return found


class _Float32OfThin(_OfLayers):
    def convolved(self, inputs: Tensor, weight: Tensor, bias: Tensor | None, *how: Any) -> Tensor:
        if inputs.shape[2] > _THIN and not _strided_to_one(inputs.shape[4], weight.shape[4], *how):
            return torch.conv3d(inputs, weight, bias, *how)
        with torch.autocast("cpu", enabled=False):
            found = torch.conv3d(inputs.float(), weight.float(), None if bias is None else bias.float(), *how)
        return found.to(torch.bfloat16)


def _strided_to_one(
    last: int, kernel: int, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int
) -> bool:
    """Whether a step along the last edge leaves one voxel of it."""
    left = (last + 2 * padding[2] - dilation[2] * (kernel - 1) - 1) // stride[2] + 1
    return stride[2] > 1 and left == 1
