"""The error-map module: what it sees, what it is taught, what it loses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from torch import Tensor

from whqa.errors import InputError
from whqa.judges.calibration import Calibration
from whqa.modules.errormap import ErrorMapModule, Head, out_channels
from whqa.networks.voxresnet import VoxResNet


def _module(head: Head = "binary", **options: float) -> ErrorMapModule:
    torch.manual_seed(0)
    network = VoxResNet(1 + 4, out_channels(head, 4), width=2)
    return ErrorMapModule(network, n_classes=4, head=head, total_steps=10, **options).eval()


def _batch() -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, (1, 9, 10, 11))
    return {
        "image": torch.from_numpy(rng.standard_normal((1, 1, 9, 10, 11))).float(),
        "label": torch.from_numpy(label),
        "mask": torch.from_numpy(np.where(rng.random(label.shape) < 0.2, 0, label)),
        "index": torch.tensor([0]),
    }


def test_the_network_sees_the_image_and_one_plane_a_class() -> None:
    batch = _batch()
    inputs = _module().inputs(batch)
    assert inputs.shape == (1, 5, 9, 10, 11)
    torch.testing.assert_close(inputs[:, :1], batch["image"])
    for index in range(4):
        np.testing.assert_array_equal(inputs[0, 1 + index].numpy(), (batch["mask"][0] == index).float().numpy())


def _logits_and_target(channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, Tensor]:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, (2, 4, 5, 6))
    mask = np.where(rng.random(label.shape) < 0.3, rng.integers(0, 4, label.shape), label)
    logits = rng.normal(0, 2, (2, channels, 4, 5, 6))
    return logits, mask, label, torch.from_numpy(np.stack([mask, label], axis=1))


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


def test_the_label_heads_error_probability_is_one_minus_that_of_the_masks_label() -> None:
    logits, mask, _, target = _logits_and_target(4)
    error_logit, _ = _module("label").split(torch.from_numpy(logits), target[:, :1])
    own = np.take_along_axis(softmax(logits, axis=1), mask[:, None], axis=1)
    np.testing.assert_allclose(expit(error_logit.numpy()), 1 - own, rtol=1e-9)


def test_with_one_wrong_share_the_label_loss_is_the_cross_entropy_of_the_true_label() -> None:
    logits, mask, label, target = _logits_and_target(4)
    share = (mask != label).mean()
    module = _module("label", dice_weight=0.0, label_weight=float(share))
    p_true = np.take_along_axis(softmax(logits, axis=1), label[:, None], axis=1)
    got = module.loss(torch.from_numpy(logits).float(), target)
    assert float(got) == pytest.approx(-np.log(p_true).mean(), rel=1e-5)


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(InputError, match=r"errormap\.head=x: must be one of binary, label"):
        out_channels("x", 4)


@pytest.mark.parametrize("head", ["binary", "label"])
def test_a_patch_without_errors_has_a_finite_loss_and_gradient(head: Head) -> None:
    module, batch = _module(head).train(), _batch()
    batch["mask"] = batch["label"]
    loss = module.loss(module(module.inputs(batch))[0], module.target(batch))
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(p.grad).all()) for p in module.parameters() if p.grad is not None)


def test_a_prediction_is_the_calibrated_final_output() -> None:
    module, batch = _module(), _batch()
    module.calibration = Calibration(1.7, -0.3, 0.4)
    with torch.no_grad():
        logit = module(module.inputs(batch))[0][0, 0].numpy()
        prediction = module.test_step(batch, 0)
        raw = module.validation_step(batch, 0)
    assert raw.label_logits is None
    assert prediction.other is None
    np.testing.assert_allclose(raw.error_logit.numpy(), logit, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(prediction.probability.numpy(), expit(1.7 * logit - 0.3), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(prediction.error_map.numpy(), prediction.probability.numpy() >= 0.4)


def test_a_label_head_also_corrects() -> None:
    module, batch = _module("label"), _batch()
    module.calibration = Calibration(1.7, -0.3, 0.4, correction=0.6)
    with torch.no_grad():
        raw = module.validation_step(batch, 0)
        found = module.test_step(batch, 0)
    mask, p = batch["mask"][0].numpy(), expit(1.7 * raw.error_logit.numpy() - 0.3)
    assert found.other is not None
    assert found.corrected is not None
    assert found.expected_dice is not None
    assert not (found.other.numpy() == mask).any()
    np.testing.assert_array_equal(found.corrected.numpy(), np.where(p >= 0.6, found.other.numpy(), mask))
    assert found.expected_dice.shape == (3,)


def test_settings_are_kept_in_the_checkpoint_without_the_network() -> None:
    module = _module(positive_weight=2.0)
    assert module.hparams["positive_weight"] == 2.0
    assert "network" not in module.hparams
    assert "positive_weight" not in module.state_dict()
