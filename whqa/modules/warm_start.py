"""The error-map network started from a segmenter's weights, as both are of one family."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


@torch.no_grad()
def start_from(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Take over every weight that a segmenter has under the same name.

    Where the network's has more channels, those of image and labels come first and are taken, and the others are zero:
    at the start they neither hear nor say anything. What the segmenter does not have, or has more of, stays as it is.

    Args:
        network: whose first input channel is the image and whose first outputs are the labels.
        weights: state_dict of a segmenter's network.
    """
    # DynUNet has its layers under several names
    layers = dict(network.named_modules(remove_duplicate=False))
    for name, own in network.state_dict().items():
        given = weights.get(name)
        if given is None or any(n > there for n, there in zip(given.shape, own.shape, strict=True)):
            continue
        if not isinstance(layers[name.rpartition(".")[0]], nn.ConvTranspose3d):
            own.zero_()
        # more channels of a side's transposed convolution stay: its classifier, at zero, silences them, and of two
        # zeros in a row neither would ever learn
        own[tuple(slice(n) for n in given.shape)] = given
