"""The error-map module: what it sees, what it is taught, what it loses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import Tensor

from whqa.calibration import Calibration
from whqa.modules.errormap import ErrorMapModule
from whqa.networks.voxresnet import VoxResNet


def _module(**options: float) -> ErrorMapModule:
    torch.manual_seed(0)
    return ErrorMapModule(VoxResNet(1 + 4, 1, width=2), n_classes=4, total_steps=10, **options).eval()


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


def test_the_target_is_where_mask_and_reference_differ() -> None:
    batch = _batch()
    target = _module().target(batch)
    assert target.dtype == torch.float32
    np.testing.assert_array_equal(target[0, 0].numpy(), batch["mask"][0].numpy() != batch["label"][0].numpy())


@pytest.mark.parametrize(("dice_weight", "positive_weight"), [(0.0, 1.0), (1.0, 1.0), (0.5, 3.0)])
def test_the_loss_is_weighted_cross_entropy_plus_dice(dice_weight: float, positive_weight: float) -> None:
    rng = np.random.default_rng(0)
    logit, target = rng.normal(0, 2, (2, 1, 4, 5, 6)), (rng.random((2, 1, 4, 5, 6)) < 0.2).astype(float)
    p = expit(logit)
    entropy = -(positive_weight * target * np.log(p) + (1 - target) * np.log(1 - p)).mean()
    dice = 1 - (2 * (p * target).sum() + 1e-5) / (p.sum() + target.sum() + 1e-5)
    module = _module(dice_weight=dice_weight, positive_weight=positive_weight)
    got = module.loss(torch.from_numpy(logit).float(), torch.from_numpy(target).float())
    assert float(got) == pytest.approx(entropy + dice_weight * dice, rel=1e-5)


def test_a_patch_without_errors_has_a_finite_loss_and_gradient() -> None:
    module, batch = _module().train(), _batch()
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
    np.testing.assert_allclose(raw.numpy(), logit, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(prediction.probability.numpy(), expit(1.7 * logit - 0.3), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(prediction.error_map.numpy(), prediction.probability.numpy() >= 0.4)


def test_settings_are_kept_in_the_checkpoint_without_the_network() -> None:
    module = _module(positive_weight=2.0)
    assert module.hparams["positive_weight"] == 2.0
    assert "network" not in module.hparams
    assert "positive_weight" not in module.state_dict()
