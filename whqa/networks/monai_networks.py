"""MONAI networks behind the interface of `VoxResNet`: a list of logits at full size, the final ones first.

Shape suffixes: B batch, C channels, D, H, W the axes of the volume.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whqa.networks.voxresnet import crop_to, pad_to_multiple

Triple = tuple[int, int, int]


class DeepSupervisedMonai(nn.Module):
    """MONAI's DynUNet with its deep supervision heads in training and in evaluation.

    DynUNet itself returns its heads in training only; side outputs are wanted as masks too.

    Args:
        network: `monai.networks.nets.DynUNet` with deep supervision.
        divisor: its total stride along D, H, W.

    Attributes:
        divisor: other input sizes are padded inside and cropped back.
        n_sides: number of heads: side1 is the finest.
    """

    def __init__(self, network: nn.Module, divisor: Triple) -> None:
        super().__init__()
        self.network = network
        self.divisor = divisor
        self.n_sides = cast(int, network.deep_supr_num)

    @property
    def classifiers(self) -> tuple[nn.Module, ...]:
        """The last layers: with zero parameters all logits are zero."""
        last = (self.network.output_block, *self.network.deep_supervision_heads)  # type: ignore[misc]
        return cast(tuple[nn.Module, ...], last)

    def forward(self, x_BCDHW: Tensor) -> list[Tensor]:
        """Logits, each (B, out_channels, D, H, W): [final, side1 (half size, enlarged), side2, ...]."""
        padded = pad_to_multiple(x_BCDHW, self.divisor)
        features = self.network.skip_layers(padded)  # type: ignore[operator]
        final = self.network.output_block(features)  # type: ignore[operator]
        heads = cast(list[Tensor], self.network.heads)
        outputs = [final, *(enlarge(y, padded.shape[2:]) for y in heads)]
        heads[:] = [torch.empty(0)] * len(heads)  # DynUNet keeps them, and with them the graph of the last batch
        return [crop_to(y, x_BCDHW.shape[2:]) for y in outputs]


def dynunet(
    in_channels: int,
    out_channels: int,
    width: int = 32,
    strides: Sequence[Sequence[int]] = ((2, 2, 2),) * 3,
    n_sides: int = 2,
) -> DeepSupervisedMonai:
    """A DynUNet (nnU-Net's plain U-Net, arXiv 1904.08128) with batch normalisation and deep supervision.

    Args:
        in_channels: of the input.
        out_channels: logits a voxel.
        width: channels at full size; doubled at every stride, at most 320.
        strides: of the strided convolutions along D, H, W.
        n_sides: deep supervision heads, fewer than strides.

    Raises:
        ValueError: `strides` are no triples, or `n_sides` is not in 1 .. len(strides) - 1.
    """
    if any(len(s) != 3 or min(s) < 1 for s in strides):
        raise ValueError(f"strides={strides}: must be triples of whole numbers from 1 on")
    from monai.networks.nets import DynUNet  # seconds of import that the other networks do not need

    if not 1 <= n_sides < len(strides):
        raise ValueError(f"n_sides={n_sides}: must be at least 1 and below the number of strides, {len(strides)}")
    steps = [[int(n) for n in stride] for stride in strides]
    network = DynUNet(
        spatial_dims=3,
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=[[3, 3, 3]] * (len(steps) + 1),
        strides=[[1, 1, 1], *steps],
        upsample_kernel_size=steps,
        filters=[min(320, width * 2**level) for level in range(len(steps) + 1)],
        norm_name=("BATCH", {"affine": True}),
        deep_supervision=True,
        deep_supr_num=n_sides,
    )
    along_d, along_h, along_w = (math.prod(axis) for axis in zip(*steps, strict=True))
    return DeepSupervisedMonai(network, (along_d, along_h, along_w))


class DeepSupervisedSegResNet(nn.Module):
    """MONAI's SegResNetDS with its deep supervision heads in training and in evaluation.

    Args:
        network: `monai.networks.nets.SegResNetDS` of at least two heads.

    Attributes:
        divisor: other input sizes are padded inside and cropped back.
        n_sides: number of heads but the final one: side1 is the finest.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.divisor = cast(Triple, tuple(map(int, network.shape_factor())))  # type: ignore[operator]
        self.n_sides = cast(int, network.dsdepth) - 1
        self.train(self.training)

    @property
    def classifiers(self) -> tuple[nn.Module, ...]:
        """The last layers: with zero parameters all logits are zero."""
        heads = (level["head"] for level in self.network.up_layers)  # type: ignore[union-attr]
        return tuple(head for head in heads if not isinstance(head, nn.Identity))

    def train(self, mode: bool = True) -> DeepSupervisedSegResNet:
        """See `nn.Module.train`; MONAI's outermost module, which has no layer of its own, drops its heads otherwise."""
        super().train(mode)
        self.network.training = True
        return self

    def forward(self, x_BCDHW: Tensor) -> list[Tensor]:
        """Logits, each (B, out_channels, D, H, W): [final, side1 (half size, enlarged), side2, ...]."""
        padded = pad_to_multiple(x_BCDHW, self.divisor)
        outputs = (enlarge(y, padded.shape[2:]) for y in self.network(padded))
        return [crop_to(y, x_BCDHW.shape[2:]) for y in outputs]


def segresnet(
    in_channels: int,
    out_channels: int,
    width: int = 32,
    strides: Sequence[Sequence[int]] = ((2, 2, 2),) * 3,
    n_sides: int = 2,
    blocks: Sequence[int] = (1, 2, 2, 4),
) -> DeepSupervisedSegResNet:
    """A SegResNet (Myronenko 2018, arXiv 1810.11654): a residual encoder, a light decoder, deep supervision.

    Args:
        in_channels: of the input.
        out_channels: logits a voxel.
        width: channels at full size; doubled at every stride.
        strides: between the levels along D, H, W, of 1 and 2; an axis of thick slices has its ones first.
        n_sides: deep supervision heads beside the final one, fewer than strides.
        blocks: residual blocks of each level of the encoder, one level more than strides.

    Raises:
        ValueError: there are no such strides, `blocks` does not fit them, or `n_sides` is not in 1 .. len(strides) - 1.
    """
    from monai.networks.nets import SegResNetDS  # seconds of import that the other networks do not need
    from monai.networks.nets.segresnet_ds import scales_for_resolution

    steps = [tuple(int(n) for n in stride) for stride in strides]
    if len(blocks) != len(steps) + 1 or min(blocks) < 1:
        raise ValueError(f"blocks={list(blocks)}: must be {len(steps) + 1} numbers from 1 on, one more than strides")
    if not 1 <= n_sides < len(steps):
        raise ValueError(f"n_sides={n_sides}: must be at least 1 and below the number of strides, {len(steps)}")
    ones = [next((i for i, n in enumerate(axis) if n != 1), len(steps)) for axis in zip(*steps, strict=False)]
    resolution = tuple(2**n for n in ones)
    made = scales_for_resolution(resolution, len(blocks))[:-1]
    if {len(step) for step in steps} != {3} or [tuple(map(int, step)) for step in made] != steps:
        raise ValueError(f"strides={strides}: must be triples of 1 and 2, the ones of an axis first, and not all ones")
    network = SegResNetDS(
        init_filters=width,
        in_channels=in_channels,
        out_channels=out_channels,
        blocks_down=tuple(blocks),
        dsdepth=n_sides + 1,
        resolution=resolution,
    )
    return DeepSupervisedSegResNet(network)


def enlarge(x_BCDHW: Tensor, size: Sequence[int]) -> Tensor:
    """Trilinear resizing to `size` by one matrix product an axis.

    Unlike `F.interpolate` it has a deterministic gradient on CUDA.
    """
    for axis, n in enumerate(size, start=2):
        if x_BCDHW.shape[axis] != n:
            eye = torch.eye(x_BCDHW.shape[axis], dtype=torch.float32, device=x_BCDHW.device)[None]
            weight = F.interpolate(eye, size=n, mode="linear")[0].to(x_BCDHW.dtype)
            x_BCDHW = (x_BCDHW.movedim(axis, -1) @ weight).movedim(-1, axis)
    return x_BCDHW
