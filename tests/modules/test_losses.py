"""Losses with written-out gradients against MONAI, torch's autograd, and whole trainings of the plain formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn

from whqa.modules.base import DeepSupervisionModule, side_weight
from whqa.modules.errormap import ErrorMapModule, in_channels, out_channels
from whqa.modules.losses import TrueLabels, dice_cross_entropy, other_and_own, soft_dice
from whqa.modules.segmenter import SegmenterModule
from whqa.networks.voxresnet import SideOutput, VoxResNet

N_CLASSES, SHAPE, STEPS = 4, (9, 8, 10), 4
INPUTS = ("image", "mask", "opinion")
MONAI = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False, batch=True)


def _logits_and_label(lacking: bool = False) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    label = torch.randint(0, N_CLASSES - lacking, (2, *SHAPE))
    return torch.randn(2, N_CLASSES, *SHAPE).mul_(3).double(), label


@pytest.mark.parametrize("lacking", [False, True])
def test_dice_and_cross_entropy_are_monais_and_so_are_their_gradients(lacking: bool) -> None:
    logits, label = _logits_and_label(lacking)
    ours, theirs = logits.float().requires_grad_(), logits.clone().requires_grad_()
    mine, expected = dice_cross_entropy(ours, TrueLabels(label)), MONAI(theirs, label[:, None])
    torch.testing.assert_close(mine.double(), expected, rtol=1e-5, atol=1e-6)
    (3 * mine).backward()
    (3 * expected).backward()
    torch.testing.assert_close(ours.grad, theirs.grad.float(), rtol=1e-3, atol=1e-7)  # type: ignore[union-attr]


def test_the_dice_of_a_map_is_monais() -> None:
    torch.manual_seed(0)
    logits, error = torch.randn(2, 1, *SHAPE), (torch.rand(2, 1, *SHAPE) < 0.1).float()
    torch.testing.assert_close(soft_dice(logits, error), DiceLoss(sigmoid=True, batch=True)(logits, error))


def test_gradients_of_others_and_own_are_autograds() -> None:
    logits, label = _logits_and_label()
    mask = torch.where(torch.rand(label.shape) < 0.3, (label + 1) % N_CLASSES, label)
    small = logits[:, :, :2, :2, :2].contiguous().requires_grad_()
    index = [labels[:, None, :2, :2, :2].contiguous() for labels in (mask, label)]
    assert torch.autograd.gradcheck(lambda x: other_and_own(x, *index), small)


def test_logits_far_apart_have_finite_losses_and_gradients() -> None:
    logits, label = _logits_and_label()
    far = (1e4 * logits.float()).requires_grad_()
    other, own, right = other_and_own(far, label[:, None], label[:, None])
    (dice_cross_entropy(far, TrueLabels(label)) + (other - own - right).sum()).backward()
    assert bool(far.grad.isfinite().all())  # type: ignore[union-attr]


class _PlainSide(nn.Module):
    """Both layers of a side output one after the other, as published."""

    def __init__(self, side: SideOutput) -> None:
        super().__init__()
        self.upsample, self.classify = side.upsample, side.classify

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classify(self.upsample(x))
        return y


def _batch() -> dict[str, Tensor]:
    torch.manual_seed(1)
    label = torch.randint(0, N_CLASSES, (2, 16, 16, 16))
    mask = torch.where(torch.rand(label.shape) < 0.2, (label + 1) % N_CLASSES, label)
    image = label[:, None] + 0.5 * torch.randn(2, 1, 16, 16, 16)
    log_p = (torch.randn(2, N_CLASSES, 16, 16, 16) + 2 * F.one_hot(label, N_CLASSES).movedim(-1, 1)).log_softmax(1)
    brightness = torch.rand(2, N_CLASSES, 2) + 0.3
    index = torch.arange(2)
    more = {"mask": mask, "plain": image, "brightness": brightness, "log_p": log_p, "index": index}
    return {"image": image, "label": label, **more}


def _module(stage: str) -> DeepSupervisionModule:
    torch.manual_seed(2)
    if stage == "segmenter":
        return SegmenterModule(VoxResNet(1, N_CLASSES, width=4), total_steps=10)
    network = VoxResNet(in_channels(INPUTS, N_CLASSES), out_channels("label", INPUTS, N_CLASSES), width=4)
    return ErrorMapModule(network, n_classes=N_CLASSES, inputs=INPUTS, head="label", total_steps=10)


def _plain_loss(stage: str, output: Tensor, batch: dict[str, Any]) -> Tensor:
    """The formulas of the docstrings, one after the other, by torch's own functions and MONAI's."""
    if stage == "segmenter":
        value: Tensor = MONAI(output, batch["label"][:, None])
        return value
    mask, label = batch["mask"], batch["label"]
    own = F.one_hot(mask, N_CLASSES).movedim(-1, 1)
    labels = output[:, :N_CLASSES] + batch["log_p"] + output[:, N_CLASSES:] * own
    p = labels.softmax(1)
    wrong = mask != label
    p_error = 1 - (p * own).sum(1, keepdim=True)
    others = labels.masked_fill(own.bool(), -torch.inf).log_softmax(1)
    missed = -others.gather(1, label[:, None])[wrong[:, None]].mean()
    logit = torch.logit(p_error)
    entropy = F.binary_cross_entropy(p_error, wrong[:, None].to(p_error))
    dice: Tensor = DiceLoss(sigmoid=True, batch=True)(logit, wrong[:, None].to(p_error))
    return entropy + dice + missed


def _losses(stage: str, plain: bool) -> list[float]:
    module, batch = _module(stage), _batch()
    if plain:
        # in double precision, with the optimiser of the textbook
        module = module.double()
        module.network.sides = nn.ModuleList(map(_PlainSide, module.network.sides))
        optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-4, foreach=False)
        batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    else:
        optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    found = []
    for step in range(STEPS):
        optimiser.zero_grad()
        final, *sides = module(module.inputs(batch).to(next(module.parameters()).dtype))
        weight = side_weight(step, 10)
        target = module.target(batch)

        def one(output: Tensor, target: Any = target) -> Tensor:
            return _plain_loss(stage, output, batch) if plain else module.loss(output, target)

        loss = one(final) + weight * torch.stack([one(side) for side in sides]).mean()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("stage", ["segmenter", "errormap"])
def test_a_training_has_the_losses_of_the_plain_formulas(stage: str) -> None:
    fast, plain = _losses(stage, plain=False), _losses(stage, plain=True)
    assert fast == pytest.approx(plain, rel=2e-4)
    assert plain[-1] < plain[0]
