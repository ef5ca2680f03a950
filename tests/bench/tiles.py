"""A volume of 160 x 160 x 128: in one pass, and in tiles under a limit, beside MONAI's sliding window.

MONAI's has windows of 96^3, an overlap of a half and Gaussian weights, around the same network: VoxResNet of width 16,
of a run (`runs/demo`) where there is one, of random weights elsewhere. One thread. It is called twice: in the precision
and memory format that whqa chooses on this machine, and as it comes, in float32 and contiguous memory. How far the
tiles are from the whole volume is measured in float32.
"""

from __future__ import annotations

import copy
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from monai.inferers import sliding_window_inference
from rich.console import Console
from rich.table import Table
from timing import cpu_seconds
from torch import Tensor

from whqa.config.speed import cpu_precision
from whqa.data.phantom import make_phantom
from whqa.modules.inference import forward_volume, halo_tiles
from whqa.networks.voxresnet import VoxResNet

SHAPE, LIMITS, REPEATS = (160, 160, 128), (8_000_000, 2_500_000, 1_000_000), 3


def network_of(run: Path) -> tuple[VoxResNet, str]:
    """Of the run's first segmenter."""
    torch.manual_seed(0)
    network, path = VoxResNet(1, 8, width=16), run / "segmenter" / "0" / "checkpoints" / "last.ckpt"
    if path.is_file():
        saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
        network.load_state_dict({name.removeprefix("network."): values for name, values in saved.items()})
    network = network.eval().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return network, str(run) if path.is_file() else "random weights"


def volume() -> Tensor:
    """A phantom's image, cut or repeated to the shape."""
    image = torch.from_numpy(make_phantom(0, 0, "ct", 1.05).image).float()
    image = ((image - 200) / 450).clamp(-1, 1)[None, None, : SHAPE[0], : SHAPE[1], : SHAPE[2]]
    return image.contiguous(memory_format=torch.channels_last_3d)


def print_table(console: Console, run: Path = Path("runs/demo")) -> None:
    """A row a limit."""
    torch.set_num_threads(1)
    (network, whose), image, bf16 = network_of(run), volume(), cpu_precision() == "bf16-mixed"

    plain: VoxResNet = copy.deepcopy(network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    as_it_comes = image.contiguous()

    @torch.no_grad()
    def windows(around: VoxResNet, seen: Tensor, autocast: bool) -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return sliding_window_inference(
                seen, (96, 96, 96), 1, lambda x: around(x)[0].float(), overlap=0.5, mode="gaussian"
            )

    def tiled(limit: int) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return forward_volume(network, image, limit, sides=False)[0]

    whole = forward_volume(network, image, 10**9)[0].softmax(1)
    table = Table(
        *("voxels at most a pass", "tiles", "halo", "work", "CPU s", "MONAI's windows, CPU s", "ratio"),
        *("as they come, CPU s", "ratio", "|p - whole|"),
        title=f"160 x 160 x 128, {whose}, one thread, medians of {REPEATS}",
    )
    # in turn, so that whatever else the machine does meets all of them alike
    works: list[Callable[[], object]] = [
        *(partial(tiled, limit) for limit in LIMITS),
        partial(windows, network, image, bf16),
        partial(windows, plain, as_it_comes, False),
    ]
    times = [[cpu_seconds(work) for work in works] for _ in range(REPEATS)]
    theirs = [statistics.median(row[k] for row in times) for k in (-2, -1)]
    for column, limit in enumerate(LIMITS):
        tiles = halo_tiles(SHAPE, limit, network.reach, network.divisor, network.halo)
        ours = statistics.median(row[column] for row in times)
        ratios = [statistics.median(row[k] / row[column] for row in times) for k in (-2, -1)]
        apart = float((forward_volume(network, image, limit)[0].softmax(1) - whole).abs().max())
        halo = max(span.start - span.first for spans in tiles for span in spans)
        work = 1.0
        for spans, n in zip(tiles, SHAPE, strict=True):
            work *= sum(span.last - span.first for span in spans) / n
        table.add_row(
            f"{limit:,}",
            " x ".join(str(len(spans)) for spans in tiles),
            str(halo),
            f"{work:.2f}",
            f"{ours:.1f}",
            *(text for pair in zip(theirs, ratios, strict=True) for text in map("{:.1f}".format, pair)),
            f"{apart:.1e}",
        )
    console.print(table)


if __name__ == "__main__":
    print_table(Console(width=120), *(Path(word) for word in sys.argv[1:]))
