from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from whqa.networks.monai_networks import dynunet, enlarge, segresnet


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return dynunet(2, 3, width=4)


def test_it_is_made_without_memory_as_a_run_does_before_it_reads_any_scan() -> None:
    with torch.device("meta"):
        network = dynunet(2, 3, width=4, strides=[[2, 2, 1], [2, 1, 1], [2, 2, 2]])
    assert network.divisor == (8, 4, 2)


def test_interface(network: torch.nn.Module) -> None:
    assert (network.divisor, network.n_sides) == ((8, 8, 8), 2)
    for mode in (True, False):
        outputs = network.train(mode)(torch.randn(2, 2, 18, 16, 9))
        assert [tuple(y.shape) for y in outputs] == [(2, 3, 18, 16, 9)] * 3


def test_outputs_are_those_of_monai(network: torch.nn.Module) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 2, 16, 16, 16)
    inner = network.train().network
    ours = network(x)
    theirs = inner(x).unbind(1)
    torch.testing.assert_close(ours[0], theirs[0])
    # MONAI enlarges its heads by nearest neighbours, this project smoothly: their means over blocks agree inside.
    small = [F.avg_pool3d(y, f) for y, f in zip(theirs[1:], (2, 4), strict=True)]
    for side, head in zip(ours[1:], small, strict=True):
        torch.testing.assert_close(side, F.interpolate(head, size=(16, 16, 16), mode="trilinear"))


def test_side_outputs_are_the_same_in_training_and_evaluation(network: torch.nn.Module) -> None:
    x = torch.randn(1, 2, 16, 16, 16)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    network.train()
    for norm in norms:
        norm.eval()
    for ours, theirs in zip(network(x), network.eval()(x), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_no_graph_is_kept_after_a_step(network: torch.nn.Module) -> None:
    network.train()(torch.randn(2, 2, 16, 16, 16))
    assert all(head.grad_fn is None for head in network.network.heads)


def test_every_parameter_learns(network: torch.nn.Module) -> None:
    network.train().zero_grad()
    sum(y.square().mean() for y in network(torch.randn(2, 2, 16, 16, 16))).backward()
    assert [n for n, p in network.named_parameters() if p.grad is None] == []


def test_anisotropic_strides_and_number_of_sides() -> None:
    network = dynunet(1, 2, width=4, strides=[[2, 2, 1], [2, 2, 1], [2, 2, 2], [2, 2, 1]], n_sides=3).eval()
    assert network.divisor == (16, 16, 2)
    assert [tuple(y.shape) for y in network(torch.zeros(1, 1, 20, 16, 5))] == [(1, 2, 20, 16, 5)] * 4
    with pytest.raises(ValueError, match="n_sides=3"):
        dynunet(1, 2, n_sides=3)


def test_enlarge_is_trilinear() -> None:
    x = torch.randn(2, 3, 4, 5, 6)
    torch.testing.assert_close(enlarge(x, (8, 5, 24)), F.interpolate(x, size=(8, 5, 24), mode="trilinear"))


@pytest.fixture(scope="module")
def residual() -> torch.nn.Module:
    torch.manual_seed(0)
    return segresnet(2, 3, width=8, strides=[[2, 2, 1], [2, 2, 1], [2, 2, 1]], blocks=[1, 1, 1, 1])


def test_segresnet_has_the_interface_with_thick_slices_too(residual: torch.nn.Module) -> None:
    assert (residual.divisor, residual.n_sides) == ((8, 8, 1), 2)
    for mode in (True, False):
        outputs = residual.train(mode)(torch.randn(2, 2, 18, 16, 5))
        assert [tuple(y.shape) for y in outputs] == [(2, 3, 18, 16, 5)] * 3
        assert {m.training for m in residual.modules() if isinstance(m, torch.nn.BatchNorm3d)} == {mode}
    with torch.device("meta"):
        assert segresnet(2, 3, width=8, strides=[[2, 2, 1], [2, 2, 2], [2, 2, 2]]).divisor == (8, 8, 4)


def test_segresnet_is_that_of_monai(residual: torch.nn.Module) -> None:
    x = torch.randn(1, 2, 16, 16, 5)
    ours = residual.eval()(x)
    inner = residual.network
    inner.training = False
    torch.testing.assert_close(ours[0], inner(x))
    inner.training = True
    torch.testing.assert_close(ours[1], enlarge(inner(x)[1], x.shape[2:]))
    for layer in residual.classifiers:
        assert isinstance(layer, torch.nn.Conv3d)
    assert len(residual.classifiers) == 3


def test_every_parameter_of_segresnet_learns(residual: torch.nn.Module) -> None:
    residual.train().zero_grad()
    sum(y.square().mean() for y in residual(torch.randn(2, 2, 16, 16, 5))).backward()
    assert [n for n, p in residual.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strides": [[2, 2, 2], [2, 2, 1], [2, 2, 1]]}, "the ones of an axis first"),
        ({"strides": [[3, 2, 2]] * 3}, "triples of 1 and 2"),
        ({"strides": [[2, 2]] * 3}, "triples"),
        ({"strides": [[1, 1, 1]] * 3}, "not all ones"),
        ({"blocks": [1, 2]}, "must be 4 numbers"),
        ({"n_sides": 3}, "below the number of strides, 3"),
    ],
)
def test_segresnet_refuses_what_cannot_be(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        segresnet(2, 3, width=8, **settings)
