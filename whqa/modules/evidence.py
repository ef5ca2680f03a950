"""What speaks for and against a mask's label at each voxel, the same for all structures.

One-hot planes tell a network which structure a voxel is given to; whether image, mask and second opinion agree it would
have to learn for every pair of structures. These channels say it outright, so that what is learned on one structure
serves the others:

    brightness fit   how well the voxel's brightness fits each label, measured under this very mask; C + 1 channels
    fit of its own   that of the mask's label, and by how much it is better than the best of the others
    borders          share of the windows of 3, 5 and 7 voxels around the voxel that hold one label alone: of the mask,
                     and of the opinion
    own, rival       log p_S of the mask's label and of the most probable other one, and the brightness fit of that one

Shape suffixes: B batch, C all C + 1 labels, DHW space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from whqa.modules.training_settings import sees_mask
from whqa.quality import kept_with, most_probable

WINDOWS = (3, 5, 7)
LOG_FIT_RANGE = (-8.0, 4.0)


def evidence_channels(inputs: Sequence[str], n_classes: int) -> int:
    """How many channels there are for a network with these inputs: none where image or mask is withheld."""
    if "image" not in inputs or not sees_mask(inputs):
        return 0
    return n_classes + (7 if "opinion" in inputs else 3)


def evidence(
    plain_B1DHW: Tensor, mask_BDHW: Tensor, brightness_BC2: Tensor, log_p_BCDHW: Tensor | None
) -> list[Tensor]:
    """The channels, (B, some, D, H, W) each and `evidence_channels` in all, within about -2 and 1.

    Without an opinion the rival is the label whose brightness fits best, and there are no channels of the opinion.

    Args:
        plain_B1DHW: the image as the brightness was measured on it, without augmentation of its intensities.
        mask_BDHW: labels, int64.
        brightness_BC2: middle and spread of each label's brightness, see `whqa.loading.brightness`.
        log_p_BCDHW: log p_S.
    """
    mask = mask_BDHW[:, None]
    fit = brightness_fit(plain_B1DHW, brightness_BC2)
    own_fit, best_other = fit.gather(1, mask), _without_own(fit, mask).amax(dim=1, keepdim=True)
    channels = [fit, own_fit, own_fit - best_other, one_label_windows(mask)]
    if log_p_BCDHW is not None:
        first, second, windows = kept_with(log_p_BCDHW, _ranked)
        rival = torch.where(mask == first, second, first)
        channels += [
            windows,
            log_p_BCDHW.gather(1, mask) / 5 + 1,
            log_p_BCDHW.gather(1, rival) / 5 + 1,
            fit.gather(1, rival),
        ]
    return channels


class _Ranked(NamedTuple):
    """The most probable label and the next one, int64, and the first one's borders: (B, 1, D, H, W) each."""

    first: Tensor
    second: Tensor
    windows: Tensor


def _ranked(log_p_BCDHW: Tensor) -> _Ranked:
    first = most_probable(log_p_BCDHW, dim=1)[:, None]
    second = most_probable(_without_own(log_p_BCDHW, first), dim=1)[:, None]
    return _Ranked(first, second, one_label_windows(first))


def brightness_fit(image_B1DHW: Tensor, brightness_BC2: Tensor) -> Tensor:
    """Log-density of each voxel under each label's normal distribution, clamped, over 4: (B, C, D, H, W)."""
    middle, spread = (brightness_BC2[..., i].float()[:, :, None, None, None] for i in range(2))
    typical = spread.mean(dim=1, keepdim=True)
    log_density = -0.5 * ((image_B1DHW.float() - middle) / spread).square() - torch.log(spread / typical)
    return log_density.clamp(*LOG_FIT_RANGE) / 4


def one_label_windows(labels_B1DHW: Tensor) -> Tensor:
    """Share of the windows around each voxel that hold one label alone, float32; windows end at the volume's edge."""
    # bytes and plain comparisons take a thirtieth of the time of max_pool3d, which needs floats
    highest = lowest = labels_B1DHW.to(torch.uint8)
    total = torch.zeros_like(highest)
    for before, size in zip((1, *WINDOWS), WINDOWS, strict=False):
        # a window of 5 is one of 3 over windows of 3
        reach = (size - before) // 2
        highest, lowest = _extreme(torch.maximum, highest, reach), _extreme(torch.minimum, lowest, reach)
        total += highest == lowest
    return total.float() / len(WINDOWS)


def _extreme(of_two: Callable[..., Tensor], values_B1DHW: Tensor, reach: int) -> Tensor:
    """Maximum or minimum over windows that reach so far on both sides, axis by axis."""
    for axis in (2, 3, 4):
        found, n = values_B1DHW.clone(), values_B1DHW.shape[axis]
        for step in range(1, min(reach, n - 1) + 1):
            for here, there in ((0, step), (step, 0)):
                part = found.narrow(axis, here, n - step)
                of_two(part, values_B1DHW.narrow(axis, there, n - step), out=part)
        values_B1DHW = found
    return values_B1DHW


def _without_own(values_BCDHW: Tensor, mask_B1DHW: Tensor) -> Tensor:
    return values_BCDHW.scatter(1, mask_B1DHW, float("-inf"))
