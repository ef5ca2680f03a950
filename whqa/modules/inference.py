"""Logits of whole volumes: in one forward pass where memory allows, else in large tiles.

A network says by `reach` how far it sees. Its tiles bring a margin along, the halo, and what is kept of a tile are the
voxels that see no farther than it: so tiles say what the whole volume would. A halo of the full reach does so exactly;
where that would cost more than `MOST_WORK` times the volume, it is as wide as that allows. VoxResNet has a reach of 72
voxels, and the demo's segmenter then says probabilities within 0.0001 of the whole volume's (a halo of 56), 0.0011 (48)
or 0.007 (40). Networks without a `reach`, whose normalisation sees all of a volume, are blended by MONAI's sliding
window.

Shape suffixes: B batch, C channels, D, H, W the axes of the volume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import prod
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]
MOST_WORK = 5.0
"""Voxels that all tiles together may have, in those of the volume: as MONAI's windows with an overlap of a half."""


class Span(NamedTuple):
    """A tile along one axis: what is kept of it, from `start` to `end`, and what it sees, from `first` to `last`."""

    start: int
    end: int
    first: int
    last: int


@torch.no_grad()
def forward_volume(
    network: nn.Module, inputs_BCDHW: Tensor, max_voxels: int, overlap: float = 0.25, sides: bool = True
) -> list[Tensor]:
    """Logits [final, side1, ...] of a volume of any size, each float32 (B, C, D, H, W), without gradients.

    Args:
        network: maps (B, C_in, D, H, W) to a list of logits of the same D, H, W; its mode (eval) is the caller's.
        inputs_BCDHW: the volume.
        max_voxels: of one forward pass (D * H * W); larger volumes are tiled.
        overlap: of neighbouring tiles of MONAI's sliding window, as a share of the tile; blended with Gaussian weights.
        sides: False gives the final logits alone, which saves the memory of the others.
    """
    kept = slice(None if sides else 1)
    size = cast(Triple, tuple(inputs_BCDHW.shape[2:]))
    divisor = getattr(network, "divisor", (1, 1, 1))
    if prod(size) <= max_voxels:
        return [y.float() for y in network(inputs_BCDHW)[kept]]
    reach = getattr(network, "reach", None)
    if reach is not None:
        return _put_together(lambda x: network(x)[kept], inputs_BCDHW, halo_tiles(size, max_voxels, reach, divisor))

    from monai.inferers import sliding_window_inference  # 2 s of import that whole-volume passes do not need

    outputs = sliding_window_inference(
        inputs_BCDHW.contiguous(),
        roi_size=tile_size(size, max_voxels, overlap, divisor),
        sw_batch_size=1,
        predictor=lambda x: tuple(y.float() for y in network(x)[kept]),
        overlap=overlap,
        mode="gaussian",
    )
    return list(outputs)


def _put_together(
    network: Callable[[Tensor], list[Tensor]], inputs_BCDHW: Tensor, tiles: Sequence[Sequence[Span]]
) -> list[Tensor]:
    whole: list[Tensor] = []
    for d, h, w in product(*tiles):
        seen = inputs_BCDHW[:, :, d.first : d.last, h.first : h.last, w.first : w.last]
        outputs = network(seen)
        if not whole:
            whole = [y.new_empty((*y.shape[:2], *inputs_BCDHW.shape[2:]), dtype=torch.float32) for y in outputs]
        kept = tuple(slice(span.start - span.first, span.end - span.first) for span in (d, h, w))
        for all_of_it, y in zip(whole, outputs, strict=True):
            all_of_it[:, :, d.start : d.end, h.start : h.end, w.start : w.end] = y[(slice(None), slice(None), *kept)]
    return whole


def halo_tiles(size: Triple, max_voxels: int, reach: Triple, divisor: Triple) -> list[list[Span]]:
    """The spans of the tiles along each axis: the widest halo up to the reach, then the least work.

    All tiles begin at multiples of the divisor, as the network's own grids do.

    Args:
        size: of the volume (D, H, W).
        max_voxels: of a tile; kept but where one divisor along each axis is more.
        reach: see `whqa.networks.voxresnet.VoxResNet`.
        divisor: the network's total strides.
    """
    full = [-(-r // d) for r, d in zip(reach, divisor, strict=True)]
    for part in range(max(full), -1, -1):
        halo = [min(part, most) * d for most, d in zip(full, divisor, strict=True)]
        choices = [list(_cuts(n, h, d)) for n, h, d in zip(size, halo, divisor, strict=True)]
        fitting = [tiles for tiles in product(*choices) if prod(map(_longest, tiles)) <= max_voxels]
        best = min(fitting, key=_work, default=None)
        if best is not None and (_work(best) <= MOST_WORK * prod(size) or not part):
            return list(best)
    return [min(options, key=_longest) for options in choices]


def _cuts(n: int, halo: int, divisor: int) -> Iterator[list[Span]]:
    """An axis of n voxels cut into one part, two, ..., but for cuts that make no tile shorter."""
    lengths = {-(-n // (parts * divisor)) * divisor for parts in range(1, -(-n // divisor) + 1)}
    for length in sorted(lengths, reverse=True):
        starts = range(0, n, length)
        ends = [min(n, start + length) for start in starts]
        yield [Span(a, b, max(0, a - halo), min(n, b + halo)) for a, b in zip(starts, ends, strict=True)]


def _longest(spans: Sequence[Span]) -> int:
    return max(span.last - span.first for span in spans)


def _work(tiles: Sequence[Sequence[Span]]) -> int:
    return prod(sum(span.last - span.first for span in spans) for spans in tiles)


def tile_size(size: Triple, max_voxels: int, overlap: float, divisor: Sequence[int]) -> Triple:
    """The largest tile of at most `max_voxels` that cuts the longest axes into equal parts.

    Args:
        size: of the volume (D, H, W); returned as it is where it fits.
        overlap: share of a tile that its neighbour covers too.
        divisor: the tile's edges are multiples of it where it is cut; one divisor is the least edge.
    """
    parts, tile = [1, 1, 1], list(size)
    while tile[0] * tile[1] * tile[2] > max_voxels:
        cuttable = [a for a in range(3) if tile[a] > divisor[a]]
        if not cuttable:
            break
        axis = max(cuttable, key=lambda a: tile[a])
        parts[axis] += 1
        # n tiles of edge t that overlap by the share o cover t * (1 + (n - 1) * (1 - o)) voxels.
        edge = size[axis] / (1 + (parts[axis] - 1) * (1 - overlap))
        tile[axis] = min(tile[axis], max(1, -int(-edge // divisor[axis])) * divisor[axis])
    return tile[0], tile[1], tile[2]
