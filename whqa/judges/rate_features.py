"""What tells how many voxels of a mask are wrong: a few numbers of the whole mask.

A network sees a neighbourhood at a time. Whether the mask agrees with a second opinion everywhere (as the opinion's own
mask does), in seams as wide as the opinion is unsure (as a right mask of another maker does), in wider ones, or differs
in whole places (a gross fault) shows only in the whole, and tells a perfect mask from a poor one that looks alike voxel
by voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whqa.judges.mask_parts import MASK_PARTS, mask_parts
from whqa.metrics.arrays import FloatArray
from whqa.metrics.error_sizes import flat_axes
from whqa.quality import JudgedCase, box_around, count, kept_with, within

SMALLEST = 1e-3
"""Added to shares before their logarithm, and to those that others are divided by: smaller ones are alike."""
OPINION_FEATURES = ("doubt", "own_doubt", *MASK_PARTS, "border", *(f"doubt_of_{part}" for part in MASK_PARTS))
"""What a second opinion says of a mask, see `rate_features`."""


def rate_features(logit_DHW: Tensor, case: JudgedCase) -> FloatArray:
    """What a regression of the error rate sees of one mask.

    The logarithm of the mean of sigmoid(logit) over the heart; with a second opinion also `OPINION_FEATURES`, all over
    the heart and with doubt = 1 - p_S(M):

        doubt              mean of doubt
        own_doubt          mean of 1 - max p_S: how unsure the opinion is of what it would draw itself
        agreeing           doubt where mask and opinion agree, by the opinion's own
        seam, blob, place  doubt where they differ, by the opinion's own, in each of these (`mask_parts`)
        border             length of the borders that the mask draws, by that of those that the opinion would
        doubt_of_agreeing, doubt_of_seam, doubt_of_blob, doubt_of_place
                           mean of doubt in each of the four

    Args:
        logit_DHW: error logit, not calibrated.
        case: the mask; its reference is not looked at.

    Returns:
        float64 (12,), or (1,) without an opinion.
    """
    mean = torch.sigmoid(within(logit_DHW.float(), case.heart))
    own = np.log(float(mean.double().mean()) + SMALLEST if mean.numel() else SMALLEST)
    if case.log_p is None:
        return np.array([own])
    # a mask's network and its rival ask the same
    if case not in _SAID:
        _SAID[case] = _said_of(case)
    return np.array([own, *_SAID[case]])


_SAID: WeakKeyDictionary[JudgedCase, list[float]] = WeakKeyDictionary()


def _said_of(case: JudgedCase) -> list[float]:
    size = max(1, count(case.heart))
    box = box_around(case.heart.cpu().numpy(), (1, 1, 1))
    found = mask_parts(case)
    assert found is not None
    heart, part, mask = (v[box].cpu().numpy() for v in (case.heart, found, case.mask))
    doubt = case.doubt[box].double().cpu().numpy()
    sizes = np.bincount(part[heart], minlength=len(MASK_PARTS)) / size
    shares = np.bincount(part[heart], weights=doubt[heart], minlength=len(MASK_PARTS)) / size
    surest = case.surest[box].exp().double().cpu().numpy()
    own_doubt = float((1 - surest)[heart].sum()) / size
    axes = tuple(flat_axes(case.spacing))
    drawn = kept_with(case.drawn, _borders_of, axes)[box]
    lengths = [float(np.count_nonzero(borders & heart)) / size for borders in (_borders(mask, axes), drawn)]
    return [
        float(shares.sum()),
        own_doubt,
        *(shares / (own_doubt + SMALLEST)).tolist(),
        lengths[0] / (lengths[1] + SMALLEST),
        *(shares / (sizes + SMALLEST)).tolist(),
    ]


def doubts_of_parts(features: FloatArray) -> FloatArray:
    """Doubt in each of `MASK_PARTS` as a share of the heart's voxels: (n, features of `rate_features`) -> (n, 4)."""
    said = features[:, 1:]
    return said[:, 2 : 2 + len(MASK_PARTS)] * (said[:, 1:2] + SMALLEST)


def _borders_of(labels: Tensor, axes: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    return _borders(labels.cpu().numpy(), axes)


def _borders(labels: npt.NDArray[np.integer], axes: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Voxels with a neighbour of another label along these axes, those that `thick` looks along: (D, H, W)."""
    found = np.zeros(labels.shape, bool)
    for axis in axes:
        along, of = np.moveaxis(found, axis, 0), np.moveaxis(labels, axis, 0)
        differs = of[1:] != of[:-1]
        along[1:] |= differs
        along[:-1] |= differs
    return found
