"""Parts of training and judging that cost time, each beside an alternative."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from monai.inferers import sliding_window_inference
from rich.console import Console
from rich.table import Table
from sklearn.metrics import average_precision_score
from timing import REPEATS, median_seconds

from whqa.config.speed import cpu_precision
from whqa.metrics.error_detection import average_precision
from whqa.metrics.segmentation import segmentation_dice
from whqa.modules.inference import forward_volume
from whqa.networks.voxresnet import VoxResNet


def training_step(bf16: bool, channels_last: bool) -> Callable[[], object]:
    """One VoxResNet step (width 16) on two 40^3 patches, five outputs."""
    torch.manual_seed(0)
    memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
    network = VoxResNet(1, 8, width=16).to(memory_format=memory_format)
    image = torch.randn(2, 1, 40, 40, 40).contiguous(memory_format=memory_format)
    label = torch.randint(0, 8, (2, 40, 40, 40))
    optimiser = torch.optim.AdamW(network.parameters())

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outputs = network(image)
        sum(F.cross_entropy(o.float(), label) for o in outputs).backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def inference() -> tuple[Callable[[], object], Callable[[], object]]:
    """A whole volume at once, and MONAI's sliding window at half overlap."""
    network = VoxResNet(1, 8, width=16).eval()
    volume = torch.randn(1, 1, 96, 96, 96)

    @torch.no_grad()
    def whole() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return forward_volume(network, volume, 2**24)

    @torch.no_grad()
    def windows() -> object:
        with torch.autocast("cpu", torch.bfloat16):
            return sliding_window_inference(volume, (48, 48, 48), 1, lambda x: network(x)[0], overlap=0.5)

    return whole, windows


def dice_by_class(mask: torch.Tensor, reference: torch.Tensor) -> list[float]:
    """The textbook way, a pass a structure."""
    return [
        float(2 * ((mask == c) & (reference == c)).sum() / ((mask == c).sum() + (reference == c).sum()))
        for c in range(1, 8)
    ]


def print_table(console: Console) -> None:
    """One row a part."""
    rng = np.random.default_rng(0)
    table = Table("what", "ms", "beside", "ms", "ratio", title=f"medians of {REPEATS}, precision {cpu_precision()}")

    def row(what: str, ours: Callable[[], object], beside: str, theirs: Callable[[], object]) -> None:
        a, b = median_seconds(ours), median_seconds(theirs)
        table.add_row(what, f"{1e3 * a:.1f}", beside, f"{1e3 * b:.1f}", f"{b / a:.2f}")

    row("training step, bf16 + channels_last_3d", training_step(True, True), "float32", training_step(False, False))
    whole, windows = inference()
    row("inference 96^3, whole volume", whole, "sliding window 48^3, overlap 0.5", windows)
    score, true = torch.from_numpy(rng.random(64**3, dtype=np.float32)), torch.from_numpy(rng.random(64**3) < 0.03)
    row(
        "AUPRC of 64^3 voxels",
        lambda: average_precision(score, true),
        "scikit-learn",
        lambda: average_precision_score(true.numpy(), score.numpy()),
    )
    mask, reference = (torch.from_numpy(rng.integers(0, 8, (96, 96, 96), dtype=np.uint8)) for _ in range(2))
    row(
        "Dice of 7 structures, 96^3",
        lambda: segmentation_dice(mask, reference, 8),
        "a pass a structure",
        lambda: dice_by_class(mask, reference),
    )
    console.print(table)


if __name__ == "__main__":
    print_table(Console())
