"""Logits of whole volumes: in one forward pass where memory allows, else in large tiles.

A network says by `reach` how far it sees, and by `halo` how much of that matters. Its tiles bring a margin along, and
what is kept of a tile are the voxels that see no farther than it: so tiles say what the whole volume would. The margin
is the reach, or what of it `MOST_WORK` times the volume allows; one below `halo` only where a margin of `halo` does not
fit into the limit or costs more than `MOST_WORK_TO_AGREE` times the volume, and then a warning says so. VoxResNet has a
reach of 72 voxels and a halo of 56. With a margin of that the demo's segmenter says probabilities within 0.0005 of the
whole volume's, with 48 within 0.002, with 16 up to 0.9 beside them; MONAI's sliding window with tiles of the same size
gives 3 to 1,000 times as many voxels another label. It is for networks without a `reach`, whose normalisation sees all
of a volume.

Shape suffixes: B batch, C channels, D, H, W the axes of the volume.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]
MOST_WORK = 5.0
"""Voxels that all tiles together may have, in those of the volume: as MONAI's windows with an overlap of a half."""
MOST_WORK_TO_AGREE = 50.0
"""The same where less would not say what the whole volume says: of 160 x 160 x 128 voxels in tiles of 2,000,000, 39."""


class NarrowTilesWarning(UserWarning):
    """Tiles do not say what the whole volume would."""


class Span(NamedTuple):
    """A tile along one axis: what is kept of it, from `start` to `end`, and what it sees, from `first` to `last`."""

    start: int
    end: int
    first: int
    last: int


Tiles = tuple[tuple[Span, ...], ...]


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
        halo = getattr(network, "halo", reach)
        tiles = halo_tiles(size, max_voxels, reach, divisor, halo)
        _warn_if_narrow(tiles, size, max_voxels, halo)
        return _put_together(lambda x: network(x)[kept], inputs_BCDHW, tiles)

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


def _put_together(network: Callable[[Tensor], list[Tensor]], inputs_BCDHW: Tensor, tiles: Tiles) -> list[Tensor]:
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


def _warn_if_narrow(tiles: Tiles, size: Triple, max_voxels: int, halo: Triple) -> None:
    if not _agree(tiles, size, halo):
        volume, margin = (" x ".join(map(str, sizes)) for sizes in (size, halo))
        warnings.warn(
            f"a volume of {volume} voxels goes through the network in tiles of at most {max_voxels}, as the run's "
            f"settings have it, too few for a margin of {margin} around what is kept of each: near their edges it does "
            "not say what it would say of the whole volume",
            NarrowTilesWarning,
            stacklevel=3,
        )


@lru_cache(maxsize=64)
def halo_tiles(size: Triple, max_voxels: int, reach: Triple, divisor: Triple, halo: Triple | None = None) -> Tiles:
    """The spans of the tiles along each axis: with margins as this module's text says, then the least work.

    All tiles begin at multiples of the divisor, as the network's own grids do.

    Args:
        size: of the volume (D, H, W).
        max_voxels: of a tile; kept but where one divisor along each axis is more.
        reach: see `whqa.networks.voxresnet.VoxResNet`.
        divisor: the network's total strides.
        halo: what of the reach matters, None for all of it.
    """
    tiles, voxels = None, prod(size)
    for part in range(max(-(-r // d) for r, d in zip(reach, divisor, strict=True)), -1, -1):
        margin = [min(part, -(-r // d)) * d for r, d in zip(reach, divisor, strict=True)]
        tiles = _least_work(size, max_voxels, margin, divisor)
        if tiles and _work(tiles) <= MOST_WORK * voxels:
            break
    if tiles is None:
        tiles = tuple(min(_cuts(n, 0, d), key=_longest) for n, d in zip(size, divisor, strict=True))
    if not _agree(tiles, size, halo or reach):
        margin = [-(-m // d) * d for m, d in zip(halo or reach, divisor, strict=True)]
        wider = _least_work(size, max_voxels, margin, divisor)
        if wider and _work(wider) <= MOST_WORK_TO_AGREE * voxels:
            return wider
    return tiles


def _agree(tiles: Tiles, size: Triple, halo: Triple) -> bool:
    """Whether all tiles see as far around what is kept of them as matters, or to the volume's edge."""
    return all(
        span.first <= max(0, span.start - margin) and span.last >= min(n, span.end + margin)
        for spans, n, margin in zip(tiles, size, halo, strict=True)
        for span in spans
    )


def _least_work(size: Triple, max_voxels: int, margin: Sequence[int], divisor: Triple) -> Tiles | None:
    """The tiles with these margins that keep the limit and have the fewest voxels in sum; None where none keep it."""
    choices = [
        [(_longest(spans), _length(spans), spans) for spans in _cuts(n, m, d)]
        for n, m, d in zip(size, margin, divisor, strict=True)
    ]
    fitting = (cuts for cuts in product(*choices) if cuts[0][0] * cuts[1][0] * cuts[2][0] <= max_voxels)
    best = min(fitting, key=lambda cuts: cuts[0][1] * cuts[1][1] * cuts[2][1], default=None)
    return None if best is None else tuple(spans for _, _, spans in best)


def _cuts(n: int, margin: int, divisor: int) -> Iterator[tuple[Span, ...]]:
    """An axis of n voxels cut into one part, two, ..., but for cuts that make no tile shorter."""
    lengths = {-(-n // (parts * divisor)) * divisor for parts in range(1, -(-n // divisor) + 1)}
    for length in sorted(lengths, reverse=True):
        starts = range(0, n, length)
        ends = [min(n, start + length) for start in starts]
        yield tuple(Span(a, b, max(0, a - margin), min(n, b + margin)) for a, b in zip(starts, ends, strict=True))


def _longest(spans: Sequence[Span]) -> int:
    return max(span.last - span.first for span in spans)


def _length(spans: Sequence[Span]) -> int:
    return sum(span.last - span.first for span in spans)


def _work(tiles: Tiles) -> int:
    return prod(map(_length, tiles))


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
