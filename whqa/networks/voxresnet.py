"""VoxResNet: a deeply supervised voxelwise residual network.

After Chen et al., arXiv 1608.05895 (NeuroImage 2018), section 2: two 3^3 convolutions, then three times a strided
convolution with two VoxRes modules; the features of every resolution are brought to full size by a transposed
convolution and a 1^3 classifier, and the four results C1..C4 are added. Differences: the transposed kernels equal their
strides (no checkerboard overlap), and strides may be anisotropic for thick slices.

Shape suffixes: B batch, C channels, D, H, W the axes of the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Triple = tuple[int, int, int]


class VoxRes(nn.Module):
    """BN-ReLU-conv3^3-BN-ReLU-conv3^3 added to its input (figure 1b of arXiv 1608.05895); shapes stay."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm3d(channels)
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """Features (B, C, D, H, W) -> the same shape."""
        y = self.conv1(F.relu(self.norm1(x_BCDHW), inplace=True))
        return x_BCDHW + self.conv2(F.relu(self.norm2(y), inplace=True))


class SideOutput(nn.Module):
    """One of C1..C4: a transposed convolution to full size, then a 1^3 classifier."""

    def __init__(self, in_channels: int, out_channels: int, stride: Triple) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose3d(in_channels, out_channels, stride, stride=stride)
        self.classify = nn.Conv3d(out_channels, out_channels, 1)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        """Features (B, in, d, h, w) -> logits (B, out, d * stride, h * stride, w * stride)."""
        # Both maps are linear, so their product is one map: the classifier costs nothing at full size.
        classify = self.classify.weight.flatten(1)
        weight = torch.einsum("ioxyz,po->ixyzp", self.upsample.weight, classify)
        bias = classify @ cast(Tensor, self.upsample.bias) + cast(Tensor, self.classify.bias)
        # Kernels that equal their strides do not overlap: one matrix product, then voxels into place, which with its
        # gradients takes a fifth of oneDNN's transposed convolutions in bf16.
        (n, channels, d, h, w), (sd, sh, sw) = x_BCDHW.shape, weight.shape[1:4]
        rows = x_BCDHW.movedim(1, -1).reshape(-1, channels)
        y = torch.addmm(bias.repeat(sd * sh * sw), rows, weight.flatten(1))
        y = y.view(n, d, h, w, sd, sh, sw, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return y.reshape(n, d * sd, h * sh, w * sw, -1).movedim(-1, 1)


class _Join(nn.Module):
    """Some channels of the network's input, brought to a coarser resolution; it says nothing at the start."""

    def __init__(self, taken: tuple[int, int], out_channels: int, stride: Triple) -> None:
        super().__init__()
        self.taken, self.stride = slice(*taken), stride
        self.mix = nn.Conv3d(taken[1] - taken[0], out_channels, 1, bias=False)
        nn.init.zeros_(self.mix.weight)

    def forward(self, means_BCDHW: Tensor) -> Tensor:
        """Means of these channels at the coarser resolution -> (B, out, d, h, w)."""
        joined: Tensor = self.mix(means_BCDHW)
        return joined


class VoxResNet(nn.Module):
    """VoxResNet with four side outputs.

    Args:
        in_channels: of the input, e.g. 1 image, or 1 + classes for an image and a one-hot mask.
        out_channels: logits a voxel.
        width: channels at full size; twice as many below (paper: 32 and 64).
        strides: of the three strided convolutions along D, H, W; (2, 2, 1) suits thick slices.

    Attributes:
        divisor: total stride along D, H, W; other input sizes are padded inside and cropped back.
        reach: voxels along D, H, W beyond which no input changes a voxel's logits, its receptive field to one side.
        halo: those of them that matter: what lies farther away changes no probability of the demo's networks by 0.001.
        n_sides: number of side outputs.
    """

    n_sides = 4

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 32,
        strides: Sequence[Sequence[int]] = ((2, 2, 2),) * 3,
    ) -> None:
        super().__init__()
        if len(strides) != 3 or any(len(s) != 3 or min(s) < 1 for s in strides):
            raise ValueError(f"strides={strides}: must be three triples of whole numbers from 1 on")
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
            nn.Conv3d(width, width, 3, padding=1, bias=False),
        )
        self.norms = nn.ModuleList([nn.BatchNorm3d(width)])
        self.sides = nn.ModuleList([SideOutput(width, out_channels, (1, 1, 1))])
        self.stages = nn.ModuleList()
        channels, total, reach = width, (1, 1, 1), [2, 2, 2]
        for stride in (cast(Triple, tuple(s)) for s in strides):
            coarser = cast(Triple, tuple(t * s for t, s in zip(total, stride, strict=True)))
            # the strided convolution, then four at the coarser resolution
            reach = [r + t + 4 * c for r, t, c in zip(reach, total, coarser, strict=True)]
            total = coarser
            down = nn.Conv3d(channels, 2 * width, 3, stride=stride, padding=1, bias=False)
            channels = 2 * width
            self.stages.append(nn.Sequential(down, VoxRes(channels), VoxRes(channels)))
            self.norms.append(nn.BatchNorm3d(channels))
            self.sides.append(SideOutput(channels, out_channels, total))
        self.divisor: Triple = total
        # a coarse voxel speaks for all of its block
        self.reach = cast(Triple, tuple(r + t - 1 for r, t in zip(reach, total, strict=True)))
        self.halo = cast(Triple, tuple(-(-7 * r // (9 * t)) * t for r, t in zip(self.reach, total, strict=True)))
        self.joins = nn.ModuleList()

    @property
    def classifiers(self) -> tuple[nn.Module, ...]:
        """The last layers: with zero parameters all logits are zero."""
        return tuple(side.classify for side in self.sides)  # type: ignore[misc]

    def join(self, first: int, last: int) -> None:
        """Let every coarser resolution see some channels of the input too.

        Their means over its voxels go through a 1^3 convolution, which starts at zero, and are added behind the strided
        one.

        Args:
            first: number of the first of these channels.
            last: number of the first one behind them.
        """
        for stage in self.stages:
            down = cast(nn.Conv3d, cast(nn.Sequential, stage)[0])
            self.joins.append(_Join((first, last), down.out_channels, cast(Triple, down.stride)))

    def forward(self, x_BCDHW: Tensor) -> list[Tensor]:
        """Logits, each (B, out_channels, D, H, W): [sum of the sides, side1 (full size), ..., side4 (coarsest)]."""
        size = x_BCDHW.shape[2:]
        padded = pad_to_multiple(x_BCDHW, self.divisor)
        x = self.stem(padded)
        sides: list[Tensor] = []
        joined = padded[:, self.joins[0].taken] if self.joins else padded  # type: ignore[index]
        for level, (norm, side) in enumerate(zip(self.norms, self.sides, strict=True)):
            if level:
                down, *blocks = cast(nn.Sequential, self.stages[level - 1])
                x = down(x)
                if self.joins:
                    join = cast(_Join, self.joins[level - 1])
                    joined = block_means(joined, join.stride)
                    x = x + join(joined)
                for block in blocks:
                    x = block(x)
            x = F.relu(norm(x), inplace=True)
            sides.append(side(x))
        logits = sides[0] + sides[1] + sides[2] + sides[3]
        return [crop_to(y, size) for y in (logits, *sides)]


def block_means(x_BCDHW: Tensor, stride: Triple) -> Tensor:
    """`avg_pool3d` with kernels that equal their strides, of a volume whose edges are multiples of them, float32.

    Sums of neighbours take an eighth of avg_pool3d's time on a CPU, which has neither bf16 nor channels_last. The means
    of a one-hot mask are the same to the last bit, also of means.
    """
    x_BCDHW = x_BCDHW.to(torch.promote_types(x_BCDHW.dtype, torch.float32))
    if any(step not in (1, 2) for step in stride):
        return F.avg_pool3d(x_BCDHW, stride)
    for axis, step in enumerate(stride, start=2):
        if step == 2:
            pairs = x_BCDHW.unflatten(axis, (-1, 2))
            x_BCDHW = pairs.select(axis + 1, 0) + pairs.select(axis + 1, 1)
    return x_BCDHW / prod(stride)


def pad_to_multiple(x_BCDHW: Tensor, divisor: Sequence[int]) -> Tensor:
    """Repeat the last planes until D, H, W are multiples of `divisor`; the same tensor where they are already."""
    missing = [-n % d for n, d in zip(x_BCDHW.shape[2:], divisor, strict=True)]
    if not any(missing):
        return x_BCDHW
    d, h, w = missing
    return F.pad(x_BCDHW, (0, w, 0, h, 0, d), mode="replicate")


def crop_to(x_BCDHW: Tensor, size: Sequence[int]) -> Tensor:
    """The first D, H, W voxels: undoes `pad_to_multiple`; a view."""
    d, h, w = size
    return x_BCDHW[:, :, :d, :h, :w]
