from __future__ import annotations

from math import prod

import pytest
import torch
from torch import Tensor, nn

from whqa.modules import inference
from whqa.modules.inference import NarrowTilesWarning, forward_volume, halo_tiles, tile_size
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


class _Watched(nn.Module):
    """A network that remembers what it was asked."""

    def __init__(self, network: VoxResNet) -> None:
        super().__init__()
        self.network, self.divisor, self.reach = network.eval(), network.divisor, network.reach
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> list[Tensor]:
        self.sizes.append(tuple(x.shape[2:]))
        outputs: list[Tensor] = self.network(x)
        return outputs


def _random(strides: list[list[int]]) -> VoxResNet:
    torch.manual_seed(0)
    network = VoxResNet(1, 3, width=4, strides=strides)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm3d):
            layer.running_var.uniform_(0.05, 0.2)  # type: ignore[union-attr]
    return network


@pytest.mark.parametrize("strides", [[[2, 2, 2], [1, 1, 1], [1, 1, 1]], [[2, 2, 1], [2, 1, 1], [1, 1, 1]]])
@pytest.mark.parametrize("size", [(131, 12, 9), (9, 13, 140)])
def test_tiles_with_a_halo_of_the_reach_say_what_the_whole_volume_says(
    monkeypatch: pytest.MonkeyPatch, strides: list[list[int]], size: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(inference, "MOST_WORK", 100.0)
    network, x = _Watched(_random(strides)), torch.randn(1, 1, *size)
    whole = forward_volume(network, x, max_voxels=10**6)
    tiled = forward_volume(network, x, max_voxels=9 * 13 * 110)
    assert len(network.sizes) > 2
    assert all(d * h * w <= 9 * 13 * 110 for d, h, w in network.sizes[1:])
    for a, b in zip(whole, tiled, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert not b.requires_grad
        torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_limit_that_takes_much_work_still_says_what_the_whole_volume_says(axis: int) -> None:
    """In float32, in which sums of other shapes differ by 1e-6."""
    network = _Watched(_random([[2, 2, 2], [1, 1, 1], [1, 1, 1]]))
    x = torch.randn(1, 1, *(160 if a == axis else 8 for a in range(3)))
    whole = forward_volume(network, x, max_voxels=10**6)[0].softmax(dim=1)
    limit = 8 * 8 * (2 * network.reach[axis] + 4)
    tiled = forward_volume(network, x, limit)[0].softmax(dim=1)
    assert all(d * h * w <= limit for d, h, w in network.sizes[1:])
    assert sum(d * h * w for d, h, w in network.sizes[1:]) > inference.MOST_WORK * x.numel()
    assert float((tiled - whole).abs().max()) < 1e-5


def test_where_no_tile_would_say_so_the_widest_margin_is_taken_and_a_warning_says_so() -> None:
    network = _Watched(_random([[2, 2, 2], [1, 1, 1], [1, 1, 1]]))
    x = torch.randn(1, 1, 160, 8, 8)
    with pytest.warns(NarrowTilesWarning, match=r"160 x 8 x 8 voxels .* at most 2560, .* margin of 32 x 32 x 32"):
        tiled = forward_volume(network, x, 40 * 8 * 8)[0]
    assert tiled.shape == (1, 3, 160, 8, 8)
    assert all(d * h * w <= 40 * 8 * 8 for d, h, w in network.sizes)


def test_what_lies_beyond_the_halo_is_not_worth_a_tile() -> None:
    network = VoxResNet(1, 3, width=4)
    assert (network.reach, network.halo) == ((72, 72, 72), (56, 56, 56))
    flat = VoxResNet(1, 3, width=4, strides=[[2, 2, 1], [2, 2, 2], [1, 2, 2]])
    assert all(h % d == 0 and 7 / 9 * r <= h < r for h, r, d in zip(flat.halo, flat.reach, flat.divisor, strict=True))
    # none sees all of the reach: so tiles see what matters, with much work, or where nothing less does, what they can
    some, all_of_it = (
        halo_tiles((160, 160, 128), 2_000_000, network.reach, (8, 8, 8), h) for h in (network.halo, None)
    )
    assert [max(span.start - span.first for span in spans) for spans in some] == [56, 56, 56]
    assert [max(span.start - span.first for span in spans) for spans in all_of_it] == [48, 48, 48]


@pytest.mark.parametrize("strides", [[[2, 2, 2]] * 3, [[2, 2, 1], [2, 1, 1], [1, 1, 1]]])
def test_nothing_beyond_the_reach_changes_a_voxel_and_what_lies_within_does(strides: list[list[int]]) -> None:
    network = _random(strides).double().eval()
    for axis, reach in enumerate(network.reach):
        n = 2 * reach + 2 * network.divisor[axis]
        shape = [n if a == axis else network.divisor[a] for a in range(3)]
        x = torch.randn(1, 1, *shape, dtype=torch.double, requires_grad=True)
        # the last voxel of a coarse block sees farthest to the left
        at = n // 2 // network.divisor[axis] * network.divisor[axis] + network.divisor[axis] - 1
        network(x)[0].movedim(2 + axis, 0)[at].sum().backward()
        assert x.grad is not None
        felt = x.grad.abs().movedim(2 + axis, 0).flatten(1).amax(dim=1).nonzero().flatten()
        assert at - int(felt.min()) == reach
        assert int(felt.max()) - at <= reach


@pytest.mark.parametrize("size", [(160, 160, 128), (300, 300, 300), (512, 512, 300), (200, 200, 400), (15, 400, 400)])
@pytest.mark.parametrize("max_voxels", [8_000_000, 1_000_000, 1000])
def test_halo_tiles_cover_the_volume_once_and_keep_the_limits(size: tuple[int, int, int], max_voxels: int) -> None:
    tiles = halo_tiles(size, max_voxels, (72, 72, 72), (8, 8, 8))
    for spans, n in zip(tiles, size, strict=True):
        assert [span.start for span in spans] == [0, *(span.end for span in spans[:-1])]
        assert spans[-1].end == n
        assert all(span.first % 8 == span.start % 8 == 0 for span in spans)
        assert all(span.last % 8 == 0 or span.last == n for span in spans)
    longest = [max(span.last - span.first for span in spans) for spans in tiles]
    work = [sum(span.last - span.first for span in spans) for spans in tiles]
    assert prod(longest) <= max_voxels
    assert prod(work) <= inference.MOST_WORK_TO_AGREE * prod(size)


def test_tiles_take_no_halo_where_the_limit_is_less_than_a_block() -> None:
    tiles = halo_tiles((20, 20, 20), 10, (72, 72, 72), (8, 8, 8))
    assert [(s.first, s.start, s.end, s.last) for s in tiles[0]] == [(0, 0, 8, 8), (8, 8, 16, 16), (16, 16, 20, 20)]


@pytest.mark.filterwarnings("ignore::whqa.modules.inference.NarrowTilesWarning")
@pytest.mark.parametrize("max_voxels", [10**6, 9000])
def test_the_final_logits_come_alone_where_nobody_asks_for_the_sides(max_voxels: int) -> None:
    network, x = _random([[2, 2, 2]] * 3).eval(), torch.randn(1, 1, 40, 24, 16)
    both, alone = (forward_volume(network, x, max_voxels, sides=sides) for sides in (True, False))
    assert (len(both), len(alone)) == (5, 1)
    assert torch.equal(both[0], alone[0])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_tiles_on_a_gpu_say_what_the_whole_volume_says() -> None:
    network, x = _random([[2, 2, 2]] * 3).cuda().eval(), torch.randn(1, 1, 320, 16, 16, device="cuda")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        whole, tiled = (forward_volume(network, x, limit)[0] for limit in (10**6, 220 * 16 * 16))
    torch.testing.assert_close(tiled, whole, atol=1e-3, rtol=1e-3)
