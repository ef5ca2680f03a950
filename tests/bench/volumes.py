"""A single volume in float32 on one thread: oneDNN's convolutions beside those that PyTorch takes by itself."""

from __future__ import annotations

import statistics
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from timing import cpu_seconds
from torch import Tensor

from whqa.modules.convolutions import convolutions_of
from whqa.networks.voxresnet import VoxResNet

EDGES, INPUTS, REPEATS = (40, 45, 56, 80), (1, 32), 5


@torch.no_grad()
def pytorchs(network: VoxResNet, image: Tensor) -> Tensor:
    """As it comes."""
    return network(image)[0]


def ours(network: VoxResNet, image: Tensor) -> Tensor:
    """As a run judges."""
    with convolutions_of(image):
        return pytorchs(network, image)


def print_table(console: Console) -> None:
    """A row a size and a number of inputs: 1 of a segmenter, 32 of an error-map network of eight classes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    title = f"float32, VoxResNet of width 16, one thread, medians of {REPEATS} pairs"
    table = Table("volume", "inputs", "PyTorch's, CPU ms", "oneDNN's, CPU ms", "ratio", "|difference|", title=title)
    for edge in EDGES:
        for inputs in INPUTS:
            network = VoxResNet(inputs, 9, width=16).eval().to(memory_format=torch.channels_last_3d)
            image = torch.randn(1, inputs, edge, edge, edge).contiguous(memory_format=torch.channels_last_3d)
            apart = float((ours(network, image) - pytorchs(network, image)).abs().max())
            works = [partial(work, network, image) for work in (pytorchs, ours)]
            pairs = [[cpu_seconds(work) for work in works] for _ in range(REPEATS)]
            before, after = (f"{1e3 * statistics.median(column):.0f}" for column in zip(*pairs, strict=True))
            ratio = statistics.median(a / b for a, b in pairs)
            table.add_row(f"{edge}^3", str(inputs), before, after, f"{ratio:.2f}", f"{apart:.0e}")
    console.print(table)


if __name__ == "__main__":
    print_table(Console(width=110))
