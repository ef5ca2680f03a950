"""The segmenter's loss, masks and entropy against formulas written out and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy as scipy_entropy
from torch import Tensor

from whqa.modules.segmenter import SegmenterModule, mask_and_entropy
from whqa.networks.voxresnet import VoxResNet


@pytest.fixture
def module() -> SegmenterModule:
    torch.manual_seed(0)
    return SegmenterModule(VoxResNet(1, 4, width=2), total_steps=10).eval()


def _batch(seed: int = 0) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    return {
        "image": torch.from_numpy(rng.standard_normal((1, 1, 9, 10, 11))).float(),
        "label": torch.from_numpy(rng.integers(0, 4, (1, 9, 10, 11))),
        "index": torch.tensor([0]),
    }


@pytest.mark.parametrize("classes", [2, 4, 8])
def test_entropy_is_scipys_over_its_maximum(classes: int) -> None:
    logits = np.random.default_rng(classes).normal(0, 4, (classes, 3, 4, 5))
    mask, entropy = mask_and_entropy(torch.from_numpy(logits))
    expected = scipy_entropy(softmax(logits, axis=0), axis=0) / math.log(classes)
    np.testing.assert_allclose(entropy.numpy(), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(mask.numpy(), logits.argmax(axis=0))
    assert (mask.dtype, entropy.dtype) == (torch.uint8, torch.float32)


def test_entropy_of_certainty_and_of_ignorance() -> None:
    sure = torch.tensor([1e4, 0.0, 0.0]).view(3, 1, 1, 1)
    assert float(mask_and_entropy(sure)[1]) == 0.0
    assert float(mask_and_entropy(torch.zeros(3, 1, 1, 1))[1]) == pytest.approx(1.0)


def test_entropy_of_bfloat16_logits_is_finite_and_in_range() -> None:
    logits = (torch.randn(8, 4, 4, 4) * 50).bfloat16()
    entropy = mask_and_entropy(logits)[1]
    assert bool(((entropy >= 0) & (entropy <= 1 + 1e-6)).all())


def test_the_loss_is_dice_of_the_structures_plus_cross_entropy(module: SegmenterModule) -> None:
    rng = np.random.default_rng(0)
    logits, label = rng.normal(0, 1, (2, 4, 5, 6, 7)), rng.integers(0, 4, (2, 5, 6, 7))
    probability, one_hot = softmax(logits, axis=1), np.moveaxis(np.eye(4)[label], -1, 1)
    sums = {"axis": (0, 2, 3, 4)}
    overlap = (2 * (probability * one_hot).sum(**sums) + 1e-5) / (probability + one_hot).sum(**sums).__add__(1e-5)
    cross_entropy = -(log_softmax(logits, axis=1) * one_hot).sum(axis=1).mean()
    expected = (1 - overlap[1:]).mean() + cross_entropy
    got = module.loss(torch.from_numpy(logits).float(), module.target({"label": torch.from_numpy(label)}))
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_masks_of_all_kinds_come_from_their_outputs(module: SegmenterModule) -> None:
    batch = _batch()
    with torch.no_grad():
        outputs = module(batch["image"])
        masks, log_p = module.masks(batch)
    np.testing.assert_allclose(log_p, log_softmax(outputs[0][0].double().numpy(), axis=0), rtol=1e-4, atol=1e-4)
    assert (log_p.dtype, log_p.shape) == (torch.float32, (4, 9, 10, 11))
    assert list(masks) == ["final", "side1", "side2", "side3", "side4"]
    for (mask, entropy), logits in zip(masks.values(), outputs, strict=True):
        np.testing.assert_array_equal(mask.numpy(), logits[0].argmax(dim=0).numpy())
        assert mask.shape == entropy.shape == (9, 10, 11)


def test_early_masks_come_from_early_weights_and_leave_the_others_alone(module: SegmenterModule) -> None:
    torch.manual_seed(1)
    early = VoxResNet(1, 4, width=2).eval()
    early.sides[0].classify.bias.data[2] = 5.0
    before = {k: v.clone() for k, v in module.network.state_dict().items()}
    module.early_weights = {k: v.clone() for k, v in early.state_dict().items()}
    batch = _batch()
    with torch.no_grad():
        masks, _ = module.test_step(batch, 0)
        expected = early(batch["image"])[0][0].argmax(dim=0)
        again, _ = module.masks(batch)
    np.testing.assert_array_equal(masks["early"][0].numpy(), expected.numpy())
    np.testing.assert_array_equal(masks["final"][0].numpy(), again["final"][0].numpy())
    assert bool((masks["early"][0] == 2).any())
    assert bool((masks["early"][0] != masks["final"][0]).any())
    assert all(torch.equal(v, before[k]) for k, v in module.network.state_dict().items())


def test_validation_looks_at_final_masks(module: SegmenterModule) -> None:
    with torch.no_grad():
        assert list(module.validation_step(_batch(), 0)) == ["final"]


def test_the_opinion_on_a_new_scan_is_that_behind_its_final_mask(module: SegmenterModule) -> None:
    batch = _batch()
    with torch.no_grad():
        masks, stored = module.test_step(batch, 0)
        found = module.log_p(batch["image"][0, 0])
    torch.testing.assert_close(found, stored)
    np.testing.assert_array_equal(found.argmax(dim=0).numpy(), masks["final"][0].numpy())
    np.testing.assert_allclose(found.double().exp().sum(dim=0), 1, rtol=1e-5)
