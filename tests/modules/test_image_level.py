"""The image-level half of a joint network against numpy, and that it learns and is calibrated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from whqa.judges.calibration import Calibration
from whqa.judges.error_rate import RateModel
from whqa.modules.errormap import ErrorMapModule, in_channels, out_channels
from whqa.modules.image_level import (
    around,
    fit_image_level,
    image_level_channels,
    image_level_loss,
    image_level_quality,
    image_level_truth,
    pooled,
)
from whqa.networks.voxresnet import VoxResNet
from whqa.quality import JudgedCase

SHAPE, SPACING = (7, 8, 9), (5.0, 5.0, 10.0)


@pytest.fixture(scope="module")
def volumes() -> tuple[torch.Tensor, torch.Tensor]:
    """Mask and label (2, D, H, W) of labels 0..3; the second mask lacks structure 3, and neither has 2."""
    rng = np.random.default_rng(0)
    label = np.where(rng.random((2, *SHAPE)) < 0.2, rng.choice([1, 3], (2, *SHAPE)), 0)
    mask = np.where(rng.random(label.shape) < 0.2, 0, label)
    mask[1][mask[1] == 3] = 0
    mask[:, 4:], label[:, 4:] = 0, 0
    return torch.from_numpy(mask), torch.from_numpy(label)


def test_near_is_a_box_about_the_mask_and_everything_without_one() -> None:
    mask = torch.zeros((2, *SHAPE), dtype=torch.long)
    mask[0, 1, 4, 5] = 1
    near = around(mask, torch.tensor([SPACING] * 2)).view(2, *SHAPE)
    expected = torch.zeros(SHAPE, dtype=torch.bool)
    expected[:4, 2:7, 4:7] = True
    assert torch.equal(near[0], expected)
    assert near[1].all()


def test_outputs_are_means_over_structures_and_around_the_mask(volumes: tuple[torch.Tensor, torch.Tensor]) -> None:
    mask = volumes[0]
    near = around(mask, torch.tensor([SPACING] * 2))
    channels = torch.randn(2, image_level_channels(4), *SHAPE, generator=torch.Generator().manual_seed(0))
    found = pooled(channels, mask, near).numpy()
    values, where = channels.numpy(), near.view(2, *SHAPE).numpy()
    for b in range(2):
        for k in range(4):
            own = mask[b].numpy() == k + 1 if k < 3 else where[b]
            own = own if own.any() else where[b]
            expected = values[b, k][own].mean() + values[b, 4 + k][where[b]].mean()
            assert found[b, k] == pytest.approx(expected, abs=1e-5)


def test_the_loss_is_smallest_where_dice_and_accuracy_are_said(volumes: tuple[torch.Tensor, torch.Tensor]) -> None:
    mask, label = volumes
    near = around(mask, torch.tensor([SPACING] * 2))
    right = np.full((2, 4), np.nan)
    for b in range(2):
        for k in (1, 3):
            drawn, true = mask[b].numpy() == k, label[b].numpy() == k
            right[b, k - 1] = 2 * (drawn & true).sum() / (drawn.sum() + true.sum())
        right[b, 3] = (mask[b] == label[b]).numpy()[near.view(2, *SHAPE)[b].numpy()].mean()
    assert right[1, 2] == 0, "a missing structure"
    z = torch.from_numpy(logit(np.nan_to_num(right, nan=0.5).clip(1e-6, 1 - 1e-6))).requires_grad_()
    loss = image_level_loss(z, mask, label, near)
    loss.backward()
    assert float(z.grad.abs().max()) < 1e-5
    known = right[~np.isnan(right)].clip(1e-6, 1 - 1e-6)
    assert float(loss.detach()) == pytest.approx(
        -(known * np.log(known) + (1 - known) * np.log(1 - known)).mean(), abs=1e-4
    )


def _case(volumes: tuple[torch.Tensor, torch.Tensor], b: int) -> JudgedCase:
    mask, label = (v[b].to(torch.uint8) for v in volumes)
    return JudgedCase("c", "final", torch.zeros(SHAPE), mask, label, None, SPACING)


def test_the_calibration_takes_an_affine_distortion_back(volumes: tuple[torch.Tensor, torch.Tensor]) -> None:
    rng = np.random.default_rng(1)
    truth = [np.append(rng.uniform(0.3, 0.95, 3), 0.9 + 0.09 * rng.random()) for _ in range(60)]
    z = [0.5 * logit(values) - 1 for values in truth]
    truth[0][1] = np.nan
    models = fit_image_level(z, truth, [1.0] * 60)
    case = _case(volumes, 0)
    said = image_level_quality(torch.from_numpy(z[5]), models, case)
    assert said.expected_dice[1] == pytest.approx(truth[5][0], abs=0.03)
    assert said.expected_dice[2] == 0, "not in the mask"
    assert said.quality["heart"] == pytest.approx(truth[5][3], abs=0.01)
    share = float(case.heart.float().mean())
    assert 0 < share < 1
    assert said.quality["volume"] == pytest.approx(1 - (1 - said.quality["heart"]) * share)
    plain = image_level_quality(torch.from_numpy(z[5]), None, case)
    assert plain.expected_dice[1] == pytest.approx(expit(z[5][0]))


def test_truth_is_that_of_the_whole_mask(volumes: tuple[torch.Tensor, torch.Tensor]) -> None:
    case = _case(volumes, 1)
    found = image_level_truth(case, 4)
    assert np.isnan(found[1])
    assert found[2] == 0
    assert found[3] == pytest.approx(1 - float(case.error[case.heart].float().mean()))


def test_the_calibration_survives_its_file() -> None:
    models = (RateModel(0.5, (1.0,)), None)
    kept = Calibration(image_level=models)
    assert Calibration.from_dict(kept.to_dict()) == kept
    older = Calibration().to_dict()
    del older["image_level"]
    assert Calibration.from_dict(older).image_level is None
    with pytest.raises(ValueError, match="finite"):
        Calibration.from_dict(Calibration(image_level=(RateModel(float("nan"), (1.0,)),)).to_dict())


@pytest.mark.parametrize("head", ["binary", "label"])
def test_a_joint_network_says_both_and_its_error_map_is_that_of_the_first_channels(
    head: str, volumes: tuple[torch.Tensor, torch.Tensor]
) -> None:
    torch.manual_seed(0)
    inputs, n = ("image", "mask"), out_channels(head, ("image", "mask"), 4)
    assert out_channels(head, inputs, 4, joint=True) == n + image_level_channels(4)
    network = VoxResNet(in_channels(inputs, 4), n + image_level_channels(4), width=2)
    module = ErrorMapModule(network, n_classes=4, inputs=inputs, head=head, total_steps=10, image_level_weight=2.0)
    batch = {
        "image": torch.randn(1, 1, *SHAPE),
        "plain": torch.randn(1, 1, *SHAPE),
        "mask": volumes[0][:1],
        "label": volumes[1][:1],
        "brightness": torch.tensor([[[0.0, 1.0]] * 4]),
        "spacing": torch.tensor([SPACING]),
        "case": ["c"],
        "kind": ["final"],
    }
    target = module.target(batch)
    logits = torch.randn(1, n + image_level_channels(4), *SHAPE)
    plain = ErrorMapModule(torch.nn.Identity(), n_classes=4, inputs=inputs, head=head, total_steps=10)
    z = pooled(logits[:, n:], batch["mask"], target.near)
    expected = plain.loss(logits[:, :n], target) + 2 * image_level_loss(z, batch["mask"], batch["label"], target.near)
    torch.testing.assert_close(module.loss(logits, target), expected)
    found = module.eval().predict(module.raw(batch), module.judged(batch))
    assert found.whole is not None
    assert set(found.whole.expected_dice) == {1, 2, 3}
    assert found.probability.shape == SHAPE
