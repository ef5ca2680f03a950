"""What the error-map module is taught: its loss against formulas in numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax

from whqa.modules.errormap import ErrorMapModule, Head, Target, in_channels, out_channels
from whqa.modules.evidence import one_label_windows
from whqa.networks.voxresnet import VoxResNet

EVERYTHING = ("image", "mask", "opinion")
WITHOUT_OPINION = ("image", "mask")


def _module(head: Head = "binary", inputs: Sequence[str] = WITHOUT_OPINION, **options: float) -> ErrorMapModule:
    network = VoxResNet(in_channels(inputs, 4), out_channels(head, inputs, 4), width=2)
    return ErrorMapModule(network, n_classes=4, inputs=inputs, head=head, total_steps=10, **options).eval()


def _logits_and_target(channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Target]:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, (2, 4, 5, 6))
    mask = np.where(rng.random(label.shape) < 0.3, rng.integers(0, 4, label.shape), label)
    logits = rng.normal(0, 2, (2, channels, 4, 5, 6))
    return logits, mask, label, Target(torch.from_numpy(np.stack([mask, label], axis=1)))


@pytest.mark.parametrize(("dice_weight", "positive_weight"), [(0.0, 1.0), (1.0, 1.0), (0.5, 3.0)])
def test_the_loss_is_weighted_cross_entropy_plus_dice(dice_weight: float, positive_weight: float) -> None:
    logits, mask, label, target = _logits_and_target(1)
    p, error = expit(logits[:, 0]), mask != label
    entropy = -(positive_weight * error * np.log(p) + (1 - error) * np.log(1 - p)).mean()
    dice = 1 - (2 * (p * error).sum() + 1e-5) / (p.sum() + error.sum() + 1e-5)
    module = _module(dice_weight=dice_weight, positive_weight=positive_weight)
    assert float(module.loss(torch.from_numpy(logits).float(), target)) == pytest.approx(
        entropy + dice_weight * dice, rel=1e-5
    )


@pytest.mark.parametrize(("gamma", "boundary", "positive"), [(2.0, 0.0, 1.0), (0.0, 3.0, 1.0), (1.5, 2.0, 3.0)])
def test_focal_loss_and_borders_weigh_voxels(gamma: float, boundary: float, positive: float) -> None:
    logits, mask, label, target = _logits_and_target(1)
    module = _module(
        dice_weight=0.0, positive_weight=positive, focal_gamma=gamma, boundary_weight=boundary, inputs=WITHOUT_OPINION
    )
    asked = module.target({"mask": torch.from_numpy(mask), "label": torch.from_numpy(label)})
    assert (asked.weight is None) == (boundary == 0)
    p, error = expit(logits[:, 0]), mask != label
    true = np.where(error, p, 1 - p)
    each = -((1 - true) ** gamma) * np.log(true) * np.where(error, positive, 1)
    alone = np.minimum(*(one_label_windows(torch.from_numpy(v)[:, None]).numpy()[:, 0] for v in (mask, label)))
    weight = 1 + boundary * (1 - alone)
    assert alone.min() == 0
    expected = (each * weight).sum() / weight.sum()
    found = module.loss(torch.from_numpy(logits).float(), target._replace(weight=asked.weight))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_the_label_heads_error_probability_is_one_minus_that_of_the_masks_label() -> None:
    logits, mask, _, target = _logits_and_target(5)
    labels = target.labels
    log_p = log_softmax(np.random.default_rng(1).normal(0, 2, logits[:, :4].shape), axis=1)
    for heard in (None, torch.from_numpy(log_p)):
        inputs = WITHOUT_OPINION if heard is None else EVERYTHING
        error_logit, label_logits = _module("label", inputs).split(torch.from_numpy(logits), labels[:, :1], heard)
        own = _with_trust(logits, mask) + (0 if heard is None else log_p)
        assert label_logits is not None
        np.testing.assert_allclose(label_logits.numpy(), own)
        p = np.take_along_axis(softmax(own, axis=1), mask[:, None], axis=1)
        np.testing.assert_allclose(expit(error_logit.numpy()), 1 - p, rtol=1e-9)


def _with_trust(logits: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Label logits; the last channel is trust in the mask's label."""
    return logits[:, :4] + logits[:, 4:] * (np.arange(4)[:, None, None, None] == mask[:, None])


def test_with_one_wrong_share_the_label_loss_is_the_cross_entropy_of_the_true_label() -> None:
    logits, mask, label, target = _logits_and_target(5)
    share = (mask != label).mean()
    module = _module("label", dice_weight=0.0, label_weight=float(share))
    p_true = np.take_along_axis(softmax(_with_trust(logits, mask), axis=1), label[:, None], axis=1)
    got = module.loss(torch.from_numpy(logits).float(), target)
    assert float(got) == pytest.approx(-np.log(p_true).mean(), rel=1e-5)


def test_where_the_mask_is_withheld_the_loss_is_that_of_a_segmenter() -> None:
    logits, mask, label, target = _logits_and_target(5)
    module = _module("label", dice_weight=0.0, label_weight=0.0)
    shown = target._replace(shown=torch.tensor([1.0, 0.0]))
    trusting, without = _with_trust(logits[:1], mask[:1]), logits[1:, :4]
    own = [
        np.take_along_axis(softmax(logit, axis=1), m[:, None], axis=1)[:, 0]
        for logit, m in ((trusting, mask[:1]), (without, mask[1:]))
    ]
    p, error = 1 - np.concatenate(own), mask != label
    expected = -(error * np.log(p) + (1 - error) * np.log(1 - p)).mean()
    assert float(module.loss(torch.from_numpy(logits).float(), shown)) == pytest.approx(expected, rel=1e-5)
    everywhere = target._replace(shown=torch.ones(2))
    found = [module.loss(torch.from_numpy(logits).float(), one) for one in (target, everywhere)]
    assert torch.equal(*found)
