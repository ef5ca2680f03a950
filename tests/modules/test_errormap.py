"""The error-map module: what it sees, how it begins, what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from constant_rate import constant_rate
from scipy.special import expit, log_softmax, softmax

from whqa.errors import InputError
from whqa.judges.calibration import Calibration, CorrectionRule
from whqa.judges.correction import correct, expected_dice, other_probabilities
from whqa.judges.doubt import doubt_logit
from whqa.judges.error_rate import RateModel
from whqa.loading.brightness import brightness
from whqa.modules.distances import signed_distances
from whqa.modules.errormap import ErrorMapModule, Head, in_channels, mask_channels, out_channels
from whqa.modules.evidence import evidence
from whqa.modules.lightning import ErrorMapTraining
from whqa.modules.volume_batches import judged_case
from whqa.networks.monai_networks import dynunet
from whqa.networks.voxresnet import VoxResNet

EVERYTHING = ("image", "mask", "opinion")
WITHOUT_OPINION = ("image", "mask")
ALL = ("image", "mask", "distances", "opinion")
SUBSETS = [s for n in (1, 2, 3, 4) for s in combinations(ALL, n)]


def _module(
    head: Head = "binary",
    inputs: Sequence[str] = WITHOUT_OPINION,
    network: str = "voxresnet",
    deep_mask: bool = False,
    **options: float,
) -> ErrorMapModule:
    torch.manual_seed(0)
    channels = in_channels(inputs, 4), out_channels(head, inputs, 4)
    net = VoxResNet(*channels, width=2) if network == "voxresnet" else dynunet(*channels, width=2)
    if deep_mask:
        net.join(*mask_channels(inputs, 4))
    return ErrorMapModule(net, n_classes=4, inputs=inputs, head=head, total_steps=10, **options).eval()


def _batch(seed: int = 0) -> dict[str, Any]:
    """A volume with everything that a network may see; the opinion is wrong now and then."""
    rng = np.random.default_rng(seed)
    shape = (9, 10, 11)
    label = rng.integers(0, 4, shape)
    mask = np.where(rng.random(shape) < 0.2, (label + 1) % 4, label)
    image = label + rng.normal(0, 0.5, shape)
    logits = rng.normal(0, 1, (4, *shape)) + 2 * (np.arange(4)[:, None, None, None] == label)
    known = brightness(image, mask.astype(np.uint8), (2.0, 2.0, 2.0), 4)
    return {
        "image": torch.from_numpy(image)[None, None].float(),
        "plain": torch.from_numpy(image)[None, None].float(),
        "label": torch.from_numpy(label)[None],
        "mask": torch.from_numpy(mask)[None],
        "log_p": torch.from_numpy(log_softmax(logits, axis=0))[None].float(),
        "brightness": torch.from_numpy(known)[None],
        "spacing": torch.tensor([[2.0, 2.0, 2.0]]),
        "index": torch.tensor([0]),
        "case": ["a"],
        "kind": ["final"],
    }


# -- what it sees


def test_the_network_sees_image_one_plane_a_class_opinion_and_evidence() -> None:
    batch = _batch()
    inputs = _module(inputs=EVERYTHING).inputs(batch)
    torch.testing.assert_close(inputs[:, :1], batch["image"])
    for index in range(4):
        np.testing.assert_array_equal(inputs[0, 1 + index].numpy(), (batch["mask"][0] == index).float().numpy())
    np.testing.assert_allclose(inputs[0, 5:9], batch["log_p"][0] / 5 + 1)
    expected = torch.cat(evidence(batch["plain"], batch["mask"], batch["brightness"], batch["log_p"]), dim=1)
    torch.testing.assert_close(inputs[:, 9:], expected)
    assert inputs.shape[1] == in_channels(EVERYTHING, 4) == 9 + expected.shape[1]


@pytest.mark.parametrize("inputs", SUBSETS, ids="+".join)
@pytest.mark.parametrize("head", ["binary", "label"])
def test_what_is_withheld_changes_nothing(head: Head, inputs: tuple[str, ...]) -> None:
    module, batch = _module(head, inputs), _batch()
    # the last layers of a network that hears an opinion start at zero, whatever it sees
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3, generator=torch.Generator().manual_seed(1))
    other = {name: _batch(1)[name] for name in ("image", "plain", "brightness", "log_p")}
    of = {"image": ("image", "plain", "brightness"), "opinion": ("log_p",)}
    with torch.no_grad():
        before = module(module.inputs(batch))[0]
        assert before.shape[1] == out_channels(head, inputs, 4)
        for name, keys in of.items():
            after = module(module.inputs(batch | {key: other[key] for key in keys}))[0]
            assert torch.equal(before, after) == (name not in inputs), name
        shuffled = batch["mask"].flatten()[torch.randperm(batch["mask"].numel())].view_as(batch["mask"])
        after = module(module.inputs(batch | {"mask": shuffled}))[0]
        assert torch.equal(before, after) == (not {"mask", "distances"} & set(inputs))


def test_distances_stand_behind_the_masks_planes_or_in_their_place() -> None:
    batch, usual = _batch(), _module(inputs=EVERYTHING).inputs(_batch())
    distances = signed_distances(batch["mask"], batch["spacing"], 4)
    for inputs, before in ((ALL, usual[:, :5]), (("image", "distances", "opinion"), usual[:, :1])):
        found = _module("label", inputs).inputs(batch)
        assert found.shape[1] == in_channels(inputs, 4)
        torch.testing.assert_close(found, torch.cat([before, distances, usual[:, 5:]], dim=1))


@pytest.mark.parametrize(
    ("inputs", "channels"),
    [
        (EVERYTHING, (1, 5)),
        (ALL, (1, 9)),
        (("mask", "opinion"), (0, 4)),
        (("image", "distances"), (1, 5)),
    ],
)
def test_deep_levels_are_told_the_mask_alone(inputs: Sequence[str], channels: tuple[int, int]) -> None:
    assert mask_channels(inputs, 4) == channels
    module, batch = _module("label", inputs, deep_mask=True), _batch()
    told = []
    for layer in module.network.joins:
        layer.register_forward_hook(lambda _, x, y, told=told: told.append(tuple(y.shape[2:])))
        torch.nn.init.normal_(layer.mix.weight)
        assert layer.mix.in_channels == channels[1] - channels[0]
    with torch.no_grad():
        module(module.inputs(batch))
    # of 9 x 10 x 11 voxels, filled up to 16
    assert told == [(8, 8, 8), (4, 4, 4), (2, 2, 2)]


def test_no_mask_at_deep_levels_without_a_mask() -> None:
    with pytest.raises(InputError, match=r"errormap\.deep_mask=true: errormap\.inputs=\['image'\] withholds the mask"):
        mask_channels(["image"], 4)


@pytest.mark.parametrize("inputs", [EVERYTHING, ALL, ("image", "distances")], ids="+".join)
def test_a_withheld_mask_is_not_seen(inputs: Sequence[str]) -> None:
    module, batch = _module("label", inputs, deep_mask=True), _batch()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3, generator=torch.Generator().manual_seed(1))
    other = {name: _batch(1)[name] for name in ("mask", "brightness")}
    with torch.no_grad():
        for shown, same in ((0.0, True), (1.0, False)):
            said = [module(module.inputs(b | {"mask_shown": torch.tensor([shown])}))[0] for b in (batch, batch | other)]
            assert torch.equal(*said) == same
        torch.testing.assert_close(
            module.inputs(batch | {"mask_shown": torch.ones(1)}), module.inputs(batch), rtol=0, atol=0
        )


def test_a_network_without_the_mask_says_what_is_right_whatever_the_mask_says() -> None:
    module, batch = _module("label", ["image"]), _batch()
    shuffled = batch | {"mask": batch["mask"].flip(1)}
    with torch.no_grad():
        raws = [module.raw(one) for one in (batch, shuffled)]
    labels = raws[0].label_logits
    assert labels is not None
    torch.testing.assert_close(raws[1].label_logits, labels)
    p = softmax(labels.double().numpy(), axis=0)
    for raw, one in zip(raws, (batch, shuffled), strict=True):
        own = np.take_along_axis(p, one["mask"].numpy(), axis=0)[0]
        np.testing.assert_allclose(expit(raw.error_logit.numpy()), 1 - own, atol=1e-5)


def test_inputs_that_there_are_not_are_refused() -> None:
    for inputs in (["image", "Mask"], [], ["image", "image"]):
        with pytest.raises(
            InputError, match=r"errormap\.inputs=.*must be some of image, mask, distances, opinion, each once"
        ):
            in_channels(inputs, 4)


# -- how it begins


@pytest.mark.parametrize("inputs", [EVERYTHING, ALL, ("image", "opinion"), ("opinion",)], ids="+".join)
@pytest.mark.parametrize("network", ["voxresnet", "dynunet"])
@pytest.mark.parametrize("head", ["binary", "label"])
def test_it_begins_exactly_as_its_rival(head: Head, network: str, inputs: tuple[str, ...]) -> None:
    module, batch = _module(head, inputs, network), _batch()
    with torch.no_grad():
        raw = module.raw(batch)
        sides = module(module.inputs(batch))
    assert all(not side.any() for side in sides)
    doubt = 1 - np.exp(np.take_along_axis(batch["log_p"][0].double().numpy(), batch["mask"].numpy(), axis=0)[0])
    np.testing.assert_allclose(raw.error_logit.numpy(), np.log(doubt / (1 - doubt)), rtol=1e-3, atol=1e-4)
    rival = doubt_logit(judged_case(batch))
    torch.testing.assert_close(raw.error_logit, rival, rtol=1e-3, atol=1e-3)
    if head == "label":
        torch.testing.assert_close(raw.label_logits, batch["log_p"][0])


@pytest.mark.parametrize("network", ["voxresnet", "dynunet"])
@pytest.mark.parametrize("head", ["binary", "label"])
def test_it_leaves_its_rival_at_the_first_step(head: Head, network: str) -> None:
    module, batch = _module(head, EVERYTHING, network).train(), _batch()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        optimiser.zero_grad()
        loss = module.loss(module(module.inputs(batch))[0], module.target(batch))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    with torch.no_grad():
        assert any(bool(p.any()) for layer in module.network.classifiers for p in layer.parameters())


@pytest.mark.parametrize("inputs", [WITHOUT_OPINION, EVERYTHING], ids="+".join)
def test_with_the_mask_at_deep_levels_it_begins_exactly_as_without(inputs: Sequence[str]) -> None:
    batch, plain, deep = _batch(), _module("label", inputs), _module("label", inputs, deep_mask=True)
    assert len(plain.state_dict()) < len(deep.state_dict())
    with torch.no_grad():
        for one, other in zip(plain(plain.inputs(batch)), deep(deep.inputs(batch)), strict=True):
            assert torch.equal(one, other)
    loss = deep.train().loss(deep(deep.inputs(batch))[0] + deep(deep.inputs(batch))[1], deep.target(batch))
    loss.backward()
    if inputs == WITHOUT_OPINION:
        assert all(bool(p.grad.any()) for name, p in deep.named_parameters() if "joins" in name and p.grad is not None)


def test_without_an_opinion_nothing_starts_at_zero() -> None:
    module = _module("label")
    assert all(bool(layer.weight.any()) for layer in module.network.classifiers)


# -- what it refuses, and what it bears


def test_an_unknown_head_is_refused() -> None:
    with pytest.raises(InputError, match=r"errormap\.head=x: must be one of binary, label"):
        out_channels("x", EVERYTHING, 4)


@pytest.mark.parametrize("inputs", [WITHOUT_OPINION, EVERYTHING, ("image",)], ids="+".join)
@pytest.mark.parametrize("head", ["binary", "label"])
def test_a_patch_without_errors_has_a_finite_loss_and_gradient(head: Head, inputs: tuple[str, ...]) -> None:
    module, batch = _module(head, inputs).train(), _batch()
    batch["mask"] = batch["label"]
    loss = module.loss(module(module.inputs(batch))[0], module.target(batch))
    loss.backward()
    assert bool(torch.isfinite(loss))
    assert all(bool(torch.isfinite(p.grad).all()) for p in module.parameters() if p.grad is not None)


# -- what it says


@pytest.mark.parametrize("inputs", [WITHOUT_OPINION, EVERYTHING], ids="+".join)
def test_a_prediction_is_the_calibrated_final_output(inputs: tuple[str, ...]) -> None:
    module, batch = _module("binary", inputs), _batch()
    rate = constant_rate(0.7) if "opinion" in inputs else RateModel(-0.3, (0.2,))
    module.calibration = Calibration(1.7, rate, 0.4)
    with torch.no_grad():
        raw, prediction = module.validation_step(batch, 0), module.test_step(batch, 0)
        logit = module(module.inputs(batch))[0]
    doubt, _ = module.split(logit, batch["mask"][:, None], batch["log_p"] if "opinion" in inputs else None)
    assert raw.label_logits is None
    assert prediction.other is None
    np.testing.assert_allclose(raw.error_logit.numpy(), doubt[0, 0].numpy(), rtol=1e-4, atol=1e-5)
    case = judged_case(batch if "opinion" in inputs else {k: v for k, v in batch.items() if k != "log_p"})
    expected = module.calibration.predict(raw.error_logit, case)
    torch.testing.assert_close(prediction.probability, expected.probability)
    assert torch.equal(prediction.error_map, expected.error_map)


def test_a_held_back_case_is_judged_with_rates_that_have_not_seen_it() -> None:
    module, batch = _module("label", EVERYTHING), _batch()
    seen, unseen = (Calibration(1.7, constant_rate(rate), 0.4) for rate in (0.7, 0.2))
    module.calibration = replace(seen, held_back=unseen.rate)
    with torch.no_grad():
        tested, held_back, raw = module.test_step(batch, 0), module.judge_held_back(batch), module.raw(batch)
    for found, calibration in ((tested, seen), (held_back, unseen)):
        expected = module.predict(raw, module.judged(batch), calibration)
        torch.testing.assert_close(found.probability, expected.probability)
        torch.testing.assert_close(found.expected_dice, expected.expected_dice)
    assert float(tested.probability.mean()) > float(held_back.probability.mean()) + 0.1


@pytest.mark.parametrize("head", list(Head))
def test_another_opinion_may_be_heard_than_the_one_that_tells_the_error_rate(head: Head) -> None:
    module, batch = _module(head, EVERYTHING), _batch()
    module.calibration = Calibration(1.7, constant_rate(0.7), 0.4, opinion_share=0.4)
    heard = {"heard": _batch(1)["log_p"]}
    with torch.no_grad():
        raw, alone = module.raw(batch | heard), module.raw(batch | {"log_p": heard["heard"]})
        prediction = module.predict(raw, module.judged(batch | heard))
    torch.testing.assert_close(raw.error_logit, alone.error_logit)
    # z leans to the doubt of what is heard, its offsets are those of the other
    case, told = judged_case(batch), judged_case(batch | {"log_p": heard["heard"]})
    z = torch.lerp(raw.error_logit, doubt_logit(told), 0.4)
    expected = replace(module.calibration, opinion_share=0.0).predict(z, case)
    torch.testing.assert_close(prediction.probability, expected.probability)
    assert not torch.allclose(prediction.probability, module.predict(alone, told).probability, atol=1e-3)
    assert alone.doubt is None


def test_a_network_that_hears_no_opinion_is_judged_without_one() -> None:
    module, batch = _module(), _batch()
    assert module.judged(batch).log_p is None
    assert _module(inputs=EVERYTHING).judged(batch).log_p is not None


@pytest.mark.parametrize("rule", [None, CorrectionRule(0.5, 0.0), CorrectionRule(0.65, 0.02)])
def test_a_label_head_also_corrects(rule: CorrectionRule | None) -> None:
    module, batch = _module("label", EVERYTHING), _batch()
    module.calibration = Calibration(1.7, None, 0.4, rule)
    with torch.no_grad():
        raw, found = module.validation_step(batch, 0), module.test_step(batch, 0)
    assert raw.label_logits is not None
    mask = batch["mask"][0].to(torch.uint8)
    others = other_probabilities(raw.label_logits, mask)
    corrected, _ = correct(found.probability, others, mask, rule)
    assert found.other is not None
    assert found.corrected is not None
    assert not (found.other == mask).any()
    np.testing.assert_allclose(found.probability, expit(1.7 * raw.error_logit.numpy()), rtol=1e-4)
    assert torch.equal(found.corrected, corrected)
    assert torch.equal(found.corrected, mask) == (rule is None)
    torch.testing.assert_close(found.expected_dice, expected_dice(found.probability, others, mask))


def test_settings_are_kept_in_the_checkpoint_without_the_network() -> None:
    network = _module().network
    module = ErrorMapTraining(network, n_classes=4, inputs=None, head="binary", positive_weight=2.0, total_steps=10)
    assert module.hparams["positive_weight"] == 2.0
    assert module.hparams["inputs"] == list(EVERYTHING)
    assert "network" not in module.hparams
    assert "positive_weight" not in module.state_dict()
