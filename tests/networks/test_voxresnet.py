from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from whqa.networks.voxresnet import SideOutput, VoxResNet, block_means, pad_to_multiple


def _conv(n_in: int, n_out: int) -> int:
    return 27 * n_in * n_out


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 8), (9, 1)])
def test_number_of_parameters_is_that_of_the_layer_table(n_in: int, n_out: int) -> None:
    stem = _conv(n_in, 32) + _conv(32, 32)
    stages = _conv(32, 64) + 2 * _conv(64, 64) + 3 * 4 * _conv(64, 64)
    kernels = 32 * 1 + 64 * (8 + 64 + 512)
    sides = kernels * n_out + 4 * n_out + 4 * (n_out * n_out + n_out)
    norms = 2 * (2 * 32) + 3 * 5 * (2 * 64)
    assert sum(p.numel() for p in VoxResNet(n_in, n_out).parameters()) == stem + stages + sides + norms


def test_published_size() -> None:
    assert sum(p.numel() for p in VoxResNet(1, 8).parameters()) == pytest.approx(1.93e6, rel=0.005)


def test_layer_table() -> None:
    network, table = VoxResNet(1, 8).eval(), []
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv3d):
            layer.register_forward_hook(lambda m, _, y, name=name: table.append((name, tuple(y.shape[1:]))))
    sides = [m.register_forward_hook(lambda m, _, y: table.append(("side", tuple(y.shape[1:])))) for m in network.sides]
    network(torch.zeros(1, 1, 16, 24, 32))
    assert len(sides) == 4
    expected: list[tuple[str, tuple[int, ...]]] = [
        ("stem.0", (32, 16, 24, 32)),
        ("stem.3", (32, 16, 24, 32)),
        ("side", (8, 16, 24, 32)),
    ]
    for stage, size in enumerate([(8, 12, 16), (4, 6, 8), (2, 3, 4)]):
        expected.append((f"stages.{stage}.0", (64, *size)))
        expected += [(f"stages.{stage}.{block}.conv{n}", (64, *size)) for block in (1, 2) for n in (1, 2)]
        expected.append(("side", (8, 16, 24, 32)))
    assert table == expected


def test_logits_are_the_sum_of_the_sides() -> None:
    torch.manual_seed(0)
    logits, *sides = VoxResNet(1, 3, width=4)(torch.randn(2, 1, 16, 16, 16))
    assert len(sides) == VoxResNet.n_sides
    torch.testing.assert_close(logits, torch.stack(sides).sum(0))


def test_side_output_is_a_transposed_convolution_then_a_classifier() -> None:
    torch.manual_seed(0)
    side, x = SideOutput(5, 3, (1, 2, 4)), torch.randn(2, 5, 4, 3, 2)
    torch.testing.assert_close(side(x), side.classify(side.upsample(x)))


def test_block_is_a_residual_of_its_published_formula() -> None:
    torch.manual_seed(0)
    block, x = VoxResNet(1, 2, width=4).eval().stages[0][1], torch.randn(1, 8, 5, 5, 5)
    normal = 1 / (1 + 1e-5) ** 0.5
    y = F.conv3d((x * normal).relu(), block.conv1.weight, padding=1)
    y = F.conv3d((y * normal).relu(), block.conv2.weight, padding=1)
    torch.testing.assert_close(block(x), x + y)


@pytest.mark.parametrize("size", [(16, 16, 16), (13, 17, 24), (3, 5, 1)])
def test_any_size(size: tuple[int, int, int]) -> None:
    network = VoxResNet(2, 3, width=4).eval()
    assert network.divisor == (8, 8, 8)
    assert [tuple(y.shape) for y in network(torch.zeros(1, 2, *size))] == [(1, 3, *size)] * 5


def test_anisotropic_strides() -> None:
    network = VoxResNet(1, 2, width=4, strides=[[2, 2, 1], [2, 2, 1], [2, 2, 2]])
    assert network.divisor == (8, 8, 2)
    assert network(torch.zeros(2, 1, 17, 16, 7))[4].shape == (2, 2, 17, 16, 7)
    with pytest.raises(ValueError, match="strides"):
        VoxResNet(1, 2, strides=[[2, 2, 2]])


def test_padding_repeats_the_border_and_is_skipped_where_not_needed() -> None:
    x = torch.arange(6.0).reshape(1, 1, 1, 2, 3)
    assert pad_to_multiple(x, (1, 2, 3)) is x
    assert pad_to_multiple(x, (1, 2, 4))[0, 0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5]]


def test_channels_last_bf16_is_the_same_function_with_finite_gradients() -> None:
    torch.manual_seed(0)
    network, x = VoxResNet(1, 4, width=8).eval(), torch.randn(1, 1, 24, 24, 24)
    with torch.no_grad():
        exact: Tensor = network(x)[0]
    network.to(memory_format=torch.channels_last_3d)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(x.contiguous(memory_format=torch.channels_last_3d))
    # in which memory format the outputs come is the processor's choice: oneDNN falls back without AVX-512
    assert float((half[0].detach().float() - exact).abs().max()) < 0.05 * float(exact.abs().max())
    torch.stack(
        [F.cross_entropy(y.float(), torch.zeros(1, 24, 24, 24, dtype=torch.long)) for y in half]
    ).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters())


def test_every_parameter_learns() -> None:
    torch.manual_seed(0)
    network = VoxResNet(1, 2, width=4)
    sum(y.square().mean() for y in network(torch.randn(2, 1, 16, 16, 16))).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 1), (3, 2, 1)])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_block_means_are_average_pooling(stride: tuple[int, int, int], kind: torch.dtype) -> None:
    x = torch.randn(2, 3, 12, 12, 12).to(kind)
    found = block_means(x, stride)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, F.avg_pool3d(x.float(), stride))


def test_block_means_of_a_one_hot_mask_are_pooled_from_full_size_to_the_last_bit() -> None:
    torch.manual_seed(0)
    mask = F.one_hot(torch.randint(0, 3, (1, 16, 24, 32)), 3).movedim(-1, 1).float()
    network = VoxResNet(4, 2, width=4)
    network.join(1, 4)
    told: list[Tensor] = []
    for join in network.joins:
        join.register_forward_hook(lambda _, given, y: told.append(given[0]))
    network(torch.cat([torch.randn(1, 1, 16, 24, 32), mask], dim=1))
    for means, stride in zip(told, (2, 4, 8), strict=True):
        assert torch.equal(means, F.avg_pool3d(mask, stride))
