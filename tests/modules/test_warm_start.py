"""An error-map network that starts from a segmenter's weights says at first what the segmenter says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from whqa.modules.errormap import in_channels, mask_channels, out_channels
from whqa.modules.warm_start import start_from
from whqa.networks.monai_networks import dynunet
from whqa.networks.voxresnet import VoxResNet

Made = Callable[..., nn.Module]


def _learned(network: nn.Module) -> nn.Module:
    """With parameters and running statistics like none that it is made with."""
    generator = torch.Generator().manual_seed(1)
    for name, values in network.state_dict().items():
        if values.is_floating_point():
            values.normal_(0.5 if "running_var" in name else 0.0, 0.2, generator=generator).abs_()
    return network.eval()


@pytest.mark.parametrize("make", [VoxResNet, dynunet])
@pytest.mark.parametrize(
    "inputs", [["image"], ["image", "mask"], ["image", "mask", "distances", "opinion"]], ids="+".join
)
def test_it_begins_exactly_as_the_segmenter(make: Made, inputs: list[str]) -> None:
    segmenter = _learned(make(1, 4, width=4))
    network = make(in_channels(inputs, 4), out_channels("label", inputs, 4), width=4)
    start_from(network, segmenter.state_dict())
    seen = torch.randn(1, in_channels(inputs, 4), 16, 16, 16)
    with torch.no_grad():
        for own, given in zip(network.eval()(seen), segmenter(seen[:, :1]), strict=True):
            torch.testing.assert_close(own[:, :4], given)
            assert not own[:, 4:].any()


@pytest.mark.parametrize("make", [VoxResNet, dynunet])
def test_every_weight_learns(make: Made) -> None:
    torch.manual_seed(0)
    inputs = ["image", "mask"]
    network = make(in_channels(inputs, 4), out_channels("label", inputs, 4), width=4)
    start_from(network, _learned(make(1, 4, width=4)).state_dict())
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    seen = torch.randn(2, in_channels(inputs, 4), 16, 16, 16)
    before = {name: values.clone() for name, values in network.named_parameters()}
    for _ in range(2):
        optimiser.zero_grad()
        sum(y.square().mean() + (y[:, 4:] - 1).square().mean() for y in network.train()(seen)).backward()
        optimiser.step()
    still = [name for name, values in network.named_parameters() if bool((values == before[name]).all())]
    assert still == []


def test_what_the_segmenter_lacks_or_has_more_of_stays() -> None:
    torch.manual_seed(0)
    inputs = ["image", "mask"]
    network = VoxResNet(in_channels(inputs, 4), out_channels("binary", inputs, 4), width=4)
    network.join(*mask_channels(inputs, 4))
    before = {name: values.clone() for name, values in network.state_dict().items()}
    segmenter = VoxResNet(1, 4, width=4)
    start_from(network, segmenter.state_dict())
    for name, values in network.state_dict().items():
        if "joins" in name or "upsample" in name or "classify" in name:
            assert torch.equal(values, before[name]), name
    assert torch.equal(network.stages[1][0].weight, segmenter.stages[1][0].weight)
