"""Logits of whole volumes: in one forward pass where memory allows, else in large overlapping tiles.

The networks are fully convolutional, and what costs in a sliding window is computing the overlap again; so the tiles
are as few and as large as `max_voxels` permits.

Shape suffixes: B batch, C channels, D, H, W the axes of the volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

Triple = tuple[int, int, int]


@torch.no_grad()
def forward_volume(network: nn.Module, inputs_BCDHW: Tensor, max_voxels: int, overlap: float = 0.25) -> list[Tensor]:
    """Logits [final, side1, ...] of a volume of any size, each float32 (B, C, D, H, W), without gradients.

    Args:
        network: maps (B, C_in, D, H, W) to a list of logits of the same D, H, W; its mode (eval) is the caller's.
        inputs_BCDHW: the volume.
        max_voxels: of one forward pass (D * H * W); larger volumes are tiled with MONAI's sliding window.
        overlap: of neighbouring tiles, as a share of the tile; blended with Gaussian weights.
    """
    size = cast(Triple, tuple(inputs_BCDHW.shape[2:]))
    tile = tile_size(size, max_voxels, overlap, getattr(network, "divisor", (1, 1, 1)))
    if tile == size:
        return [y.float() for y in network(inputs_BCDHW)]

    from monai.inferers import sliding_window_inference  # 2 s of import that whole-volume passes do not need

    outputs = sliding_window_inference(
        inputs_BCDHW.contiguous(),
        roi_size=tile,
        sw_batch_size=1,
        predictor=lambda x: tuple(y.float() for y in network(x)),
        overlap=overlap,
        mode="gaussian",
    )
    return list(outputs)


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
