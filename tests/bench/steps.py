"""Training steps of both stages beside plain Lightning's defaults, and the fraction of the machine's matmul peak.

    python tests/bench/steps.py [--json FILE] [--large]

Ours is what an experiment takes on this machine (`whqa info`); plain is float32, contiguous, AdamW as torch makes it,
the published side outputs and MONAI's loss. Both take turns in one process of one thread; CPU seconds count.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.losses import DiceCELoss
from rich.console import Console
from rich.table import Table
from timing import cpu_seconds
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from whqa.config.speed import choices, cpu_precision
from whqa.modules.base import deep_supervision, side_weight
from whqa.modules.lightning import SegmenterTraining
from whqa.networks.voxresnet import SideOutput, VoxResNet
from whqa.process import keep_memory

CLASSES, REPEATS, MATRIX = 8, 7, 1024
SIZES = ((40, 16), (64, 16))
LARGE = ((64, 32), (96, 32))
Step = Callable[[], Tensor]


class PlainSide(nn.Module):
    """A transposed convolution, then the classifier, as published."""

    def __init__(self, side: SideOutput) -> None:
        super().__init__()
        self.upsample, self.classify = side.upsample, side.classify

    def forward(self, x: Tensor) -> Tensor:
        """Features -> logits of full size."""
        y: Tensor = self.classify(self.upsample(x))
        return y


def batch_of(edge: int) -> dict[str, Tensor]:
    """Two patches."""
    torch.manual_seed(1)
    return {"image": torch.randn(2, 1, edge, edge, edge), "label": torch.randint(0, CLASSES, (2, edge, edge, edge))}


def ours(edge: int, width: int) -> Step:
    """As an experiment takes it."""
    module, batch = SegmenterTraining(VoxResNet(1, CLASSES, width=width), total_steps=100), batch_of(edge)
    optimiser = module.configure_optimizers()["optimizer"]

    def step() -> Tensor:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=cpu_precision() == "bf16-mixed"):
            outputs = module(module.inputs(batch))
        loss = deep_supervision(outputs, module.target(batch), module.loss, side_weight(0, 100))
        loss.backward()
        optimiser.step()
        return loss

    return step


def plain(edge: int, width: int) -> Step:
    """Float32 and everybody's defaults."""
    network, batch = VoxResNet(1, CLASSES, width=width), batch_of(edge)
    network.sides = nn.ModuleList(map(PlainSide, network.sides))
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)

    def step() -> Tensor:
        optimiser.zero_grad()
        final, *sides = (criterion(output, batch["label"][:, None]) for output in network(batch["image"]))
        loss: Tensor = final + side_weight(0, 100) * torch.stack(sides).mean()
        loss.backward()
        optimiser.step()
        return loss

    return step


def peak(dtype: torch.dtype) -> float:
    """Floating-point operations a second of square matrices, the best of a few."""
    a, b = (torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(2))
    return 2 * MATRIX**3 / min(cpu_seconds(lambda: a @ b) for _ in range(REPEATS))


def compare(edge: int, width: int) -> dict[str, Any]:
    """Medians and ranges of both, the ratio of pairs, and what share of the peak ours reaches."""
    mine, theirs = ours(edge, width), plain(edge, width)
    with FlopCounterMode(display=False) as counter:
        theirs()
    mine()
    pairs = [(cpu_seconds(mine), cpu_seconds(theirs)) for _ in range(REPEATS)]
    own, other = ([1e3 * pair[i] for pair in pairs] for i in (0, 1))
    ratios = [theirs / mine for mine, theirs in pairs]
    dtype = torch.bfloat16 if cpu_precision() == "bf16-mixed" else torch.float32
    reached = counter.get_total_flops() / (statistics.median(own) / 1e3) / peak(dtype)
    return {
        "patch": edge,
        "width": width,
        "ms": {"median": statistics.median(own), "low": min(own), "high": max(own)},
        "plain_ms": {"median": statistics.median(other), "low": min(other), "high": max(other)},
        "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
        "of_matmul_peak": reached,
    }


def machine() -> dict[str, Any]:
    """What the numbers hold for."""
    flags = next((line for line in _cpuinfo() if line.startswith("flags")), "").split()
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    chosen = {name: choice.value for name, choice in choices().items()}
    return {
        "platform": platform.platform(),
        "flags": [f for f in known if f in flags],
        "torch": torch.__version__,
    } | chosen


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def measure(sizes: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """Everything that the table shows."""
    keep_memory()
    torch.set_num_threads(1)
    return {"machine": machine(), "steps": [compare(*size) for size in sizes]}


def print_table(console: Console, sizes: tuple[tuple[int, int], ...] = SIZES, path: Path | None = None) -> None:
    """A row a patch; the same as JSON in a file."""
    found = measure(sizes)
    where = ", ".join(found["machine"]["flags"])
    table = Table(
        *("segmenter's step, 2 patches", "ms", "plain float32, ms", "ratio", "of the matmul peak"),
        title=f"one thread, CPU time, medians of {REPEATS} pairs (range); {where}, {found['machine']['precision']}",
    )
    for row in found["steps"]:
        cells = ("{median:.0f} ({low:.0f}-{high:.0f})".format_map(row[key]) for key in ("ms", "plain_ms"))
        ratio = "{median:.2f} ({low:.2f}-{high:.2f})".format_map(row["ratio"])
        table.add_row(f"{row['patch']}^3, width {row['width']}", *cells, ratio, f"{100 * row['of_matmul_peak']:.0f} %")
    console.print(table)
    if path:
        path.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--large", action="store_true")
    words = parser.parse_args()
    print_table(Console(width=120), LARGE if words.large else SIZES, words.json)
