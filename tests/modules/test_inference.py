from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from whqa.modules.inference import forward_volume, tile_size
from whqa.networks.voxresnet import VoxResNet


class _Doubler(nn.Module):
    """Pointwise, so that tiles and whole volumes must agree exactly; remembers what it was asked."""

    divisor = (4, 4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        self.sizes.append(tuple(x.shape[2:]))
        return [2 * x, x.to(torch.bfloat16)]


@pytest.mark.parametrize("size", [(160, 160, 128), (512, 512, 300), (10, 200, 200), (300, 20, 20), (7, 7, 7)])
@pytest.mark.parametrize("max_voxels", [8_000_000, 500_000, 40_000])
def test_tiles_fit_and_are_not_small(size: tuple[int, int, int], max_voxels: int) -> None:
    tile = tile_size(size, max_voxels, 0.25, (8, 8, 8))
    voxels = tile[0] * tile[1] * tile[2]
    assert voxels <= max_voxels
    assert all(t <= n and (t == n or t % 8 == 0) for t, n in zip(tile, size, strict=True))
    assert tile == size or voxels > 0.5 * max_voxels
    assert (tile == size) == (size[0] * size[1] * size[2] <= max_voxels)


def test_least_tile_is_one_divisor() -> None:
    assert tile_size((64, 64, 64), 10, 0.25, (8, 8, 4)) == (8, 8, 4)


def test_whole_volume_in_one_pass() -> None:
    network, x = _Doubler(), torch.randn(1, 1, 13, 9, 7)
    final, side = forward_volume(network, x, max_voxels=13 * 9 * 7)
    assert network.sizes == [(13, 9, 7)]
    assert side.dtype == torch.float32
    torch.testing.assert_close(final, 2 * x)


def test_tiles_are_put_together_in_place() -> None:
    network, x = _Doubler(), torch.randn(1, 2, 30, 22, 9)
    final, side = forward_volume(network, x, max_voxels=1500)
    assert len(network.sizes) > 3
    assert max(d * h * w for d, h, w in network.sizes) <= 1500
    torch.testing.assert_close(final, 2 * x)
    assert (final.dtype, side.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(side, x.to(torch.bfloat16).float())


def test_tiles_of_a_network_agree_with_its_whole_volume() -> None:
    torch.manual_seed(0)
    network, x = VoxResNet(1, 3, width=4).eval(), torch.randn(1, 1, 64, 48, 32)
    whole = forward_volume(network, x, max_voxels=10**6)
    tiled = forward_volume(network, x, max_voxels=50_000)
    assert not whole[0].requires_grad
    for a, b in zip(whole, tiled, strict=True):
        assert float((a - b).abs().mean()) < 0.05 * float(a.std())
