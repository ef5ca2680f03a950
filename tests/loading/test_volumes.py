"""What the loaders yield: patches and whole volumes with their masks and opinions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from stub_cohort import data_module

from whqa.errors import InputError
from whqa.loading.brightness import brightness
from whqa.loading.datamodule import EXTRAS
from whqa.loading.whole_volumes import batch_of_one
from whqa.masks.opinion import Opinion, decode
from whqa.masks.store import MaskItem
from whqa.modules.volume_batches import judged_case

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"),
    # 2026-11: pytorch-lightning 2.6.6 under torch 2.13
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\).*:FutureWarning"),
]


def _describe(batch: dict[str, Any]) -> dict[str, Any]:
    return {k: (v.dtype, tuple(v.shape)) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def _alike(opinions: Sequence[Opinion]) -> Any:
    """Mean Dice between the final masks of those who hold two opinions."""
    one, other = (opinion.mask() for opinion in opinions)
    each = [2 * ((one == c) & (other == c)).sum() / ((one == c).sum() + (other == c).sum()) for c in (1, 2)]
    return pytest.approx(np.mean(each))


def _tta(opinions: dict[str, tuple[Opinion, ...]]) -> dict[str, Opinion]:
    """Others than the first ones."""
    return {case: several[1] for case, several in opinions.items()}


@pytest.mark.parametrize(("with_masks", "with_opinions"), [(False, False), (True, False), (True, True)])
def test_batches(
    cases: dict[str, Any],
    masks: list[MaskItem],
    opinions: dict[str, tuple[Opinion, ...]],
    with_masks: bool,
    with_opinions: bool,
) -> None:
    single = {case: several[0] for case, several in opinions.items()}
    heard = {"opinions": single, "ensembles": opinions, "tta": _tta(opinions)} if with_opinions else {}
    data = data_module(cases, (1,), masks=masks if with_masks else None, **heard)
    labels = (torch.int64, (2, 8, 8, 8))
    image = (torch.float32, (2, 1, 8, 8, 8))
    mask = {"mask": labels, "plain": image, "brightness": (torch.float32, (2, 3, 2))} if with_masks else {}
    mask |= {"spacing": (torch.float32, (2, 3))} if with_masks else {}
    mask |= {"log_p": (torch.float32, (2, 3, 8, 8, 8))} if with_opinions else {}
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    for batch in batches:
        assert _describe(batch) == {"image": image, "label": labels, **mask, "index": (torch.int64, (2,))}

    number = 0
    for number, batch in enumerate(data.test_dataloader()):
        (name,), (kind,) = batch["case"], batch["kind"]
        assert (name, kind) == data.test_items[number]
        assert batch["index"].tolist() == [number]
        assert batch["spacing"].tolist() == [list(cases[name].spacing)]
        np.testing.assert_array_equal(batch["image"][0, 0], cases[name].image().astype(np.float32))
        np.testing.assert_array_equal(batch["label"][0], cases[name].label())
        assert (batch["image"].dtype, batch["label"].dtype) == (torch.float32, torch.int64)
        if with_masks:
            stored, entropy = next(m for m in masks if (m.case, m.kind) == (name, kind)).load()
            np.testing.assert_array_equal(batch["mask"][0], stored)
            np.testing.assert_array_equal(batch["entropy"][0], entropy)
            assert (batch["mask"].dtype, batch["entropy"].dtype) == (torch.int64, torch.float32)
            np.testing.assert_array_equal(batch["plain"], batch["image"])
            known = brightness(cases[name].image(), stored, cases[name].spacing, 3)
            np.testing.assert_array_equal(batch["brightness"][0], known)
        assert ("log_p" in batch) == ("ensemble" in batch) == ("pairwise_dice" in batch) == with_opinions
        assert ("tta" in batch) == with_opinions
        if with_opinions:
            said = [decode(torch.from_numpy(one.codes())) for one in opinions[name]]
            torch.testing.assert_close(batch["log_p"][0], said[0], rtol=0, atol=0)
            torch.testing.assert_close(batch["ensemble"][0].exp(), (said[0].exp() + said[1].exp()) / 2)
            torch.testing.assert_close(judged_case(batch).tta, said[1], rtol=0, atol=0)
            assert float(batch["pairwise_dice"]) == judged_case(batch).pairwise_dice == _alike(opinions[name])
    assert number + 1 == len(data.test_items) == (4 if with_masks else 2)


def test_judged_masks(cases: dict[str, Any], masks: list[MaskItem]) -> None:
    data = data_module(cases, (1,), masks=masks)
    judged = list(data.judged(data.train_items[:3]))
    assert [(j.case, j.kind) for j in judged] == data.train_items[:3]
    rates = {(m.case, m.kind): m.error_rate for m in masks}
    for item in judged:
        assert float(item.error.float().mean()) == pytest.approx(rates[item.case, item.kind])
        assert item.entropy is not None
        assert (item.image.dtype, item.entropy.dtype) == (torch.float32, torch.float32)
        assert item.spacing == (1.5, 1.5, 3.0)
        assert item.log_p is None
        assert item.ensemble is None
        assert item.tta is None
        assert item.pairwise_dice is None
    with pytest.raises(InputError, match="no mask of kind 'side9'"):
        next(data.judged([("a1", "side9")]))


def test_judged_masks_come_with_the_opinions_on_their_case(
    cases: dict[str, Any], masks: list[MaskItem], opinions: dict[str, tuple[Opinion, ...]]
) -> None:
    single = {case: several[0] for case, several in opinions.items()}
    data = data_module(cases, (1,), masks=masks, opinions=single, ensembles=opinions)
    for item in data.judged(data.train_items[:3]):
        said = [decode(torch.from_numpy(one.codes())) for one in opinions[item.case]]
        assert item.log_p is not None
        assert item.ensemble is not None
        torch.testing.assert_close(item.log_p, said[0], rtol=0, atol=0)
        torch.testing.assert_close(item.ensemble.exp(), (said[0].exp() + said[1].exp()) / 2)
        assert item.pairwise_dice == _alike(opinions[item.case])


def test_the_mean_of_several_is_heard_where_there_are_several(
    cases: dict[str, Any], masks: list[MaskItem], opinions: dict[str, tuple[Opinion, ...]]
) -> None:
    single = {case: several[0] for case, several in opinions.items()}
    data = data_module(cases, (1,), masks=masks, opinions=single)
    of_test = {case: several if case in data.test_cases else several[:1] for case, several in opinions.items()}
    data = data_module(cases, (1,), masks=masks, opinions=single, heard=of_test)
    for batch in data.test_dataloader():
        said = [decode(torch.from_numpy(one.codes())) for one in opinions[batch["case"][0]]]
        torch.testing.assert_close(batch["heard"][0].exp(), (said[0].exp() + said[1].exp()) / 2)
        torch.testing.assert_close(batch["log_p"][0], said[0], rtol=0, atol=0)
    assert not any("heard" in batch for batch in data.volumes(data.train_items))
    assert not any("heard" in batch for batch in data.train_dataloader())


@pytest.mark.parametrize("wanted", [set(), {"entropy"}, {"log_p"}, {"ensemble"}, {"tta"}, {"entropy", "log_p"}])
def test_judged_masks_come_with_what_is_asked_for_alone(
    cases: dict[str, Any], masks: list[MaskItem], opinions: dict[str, tuple[Opinion, ...]], wanted: set[str]
) -> None:
    single = {case: several[0] for case, several in opinions.items()}
    data = data_module(cases, (1,), masks=masks, opinions=single, ensembles=opinions, tta=single)
    items = data.train_items[:3]
    for item, whole in zip(data.judged(items, wanted), data.judged(items), strict=True):
        for name in EXTRAS:
            found, every = getattr(item, name), getattr(whole, name)
            assert every is not None
            assert found is None if name not in wanted else torch.equal(found, every)
        assert (item.pairwise_dice is None) == ("ensemble" not in wanted)
        for name in ("image", "mask", "reference"):
            assert torch.equal(getattr(item, name), getattr(whole, name))


def test_what_a_mask_comes_with(
    cases: dict[str, Any], masks: list[MaskItem], opinions: dict[str, tuple[Opinion, ...]]
) -> None:
    single = {case: several[0] for case, several in opinions.items()}
    bare = [replace(mask, has_entropy=mask.kind == "final") for mask in masks]
    assert data_module(cases, masks=masks).extras(("a1", "final")) == {"entropy"}
    assert data_module(cases, masks=bare).extras(("a1", "early")) == set()
    assert data_module(cases, masks=bare, opinions=single).extras(("a1", "early")) == {"log_p"}
    whole = data_module(cases, masks=masks, opinions=single, ensembles=opinions)
    assert whole.extras(("a1", "final")) == {"entropy", "log_p", "ensemble"}
    shifted = data_module(cases, masks=masks, opinions=single, tta=_tta(opinions))
    assert shifted.extras(("a1", "final")) == {"entropy", "log_p", "tta"}


def test_training_patches_come_with_the_opinion_that_the_network_hears(
    cases: dict[str, Any], masks: list[MaskItem], opinions: dict[str, tuple[Opinion, ...]]
) -> None:
    first, second = ({case: several[i] for case, several in opinions.items()} for i in (0, 1))
    by_views = data_module(cases, (1,), masks=masks, opinions=first, tta=second, hears_views=True)
    exchanged = data_module(cases, (1,), masks=masks, opinions=second, tta=first)
    for heard, expected in zip(by_views.train_dataloader(), exchanged.train_dataloader(), strict=True):
        assert "log_p" not in heard
        torch.testing.assert_close(heard["tta"], expected["log_p"], rtol=0, atol=0)
        torch.testing.assert_close(heard["image"], expected["image"], rtol=0, atol=0)


def test_masks_with_novel_faults_are_judged_but_neither_trained_nor_calibrated_on(
    cases: dict[str, Any], masks: list[MaskItem]
) -> None:
    novel = [replace(mask, kind="novel1") for mask in masks if mask.kind == "early"]
    data = data_module(cases, (1,), masks=[*masks, *novel], validation_fraction=0.4)
    assert {kind for _, kind in data.train_items} == {kind for _, kind in data.val_items} == {"final", "early"}
    assert {kind for _, kind in data.test_items} == {"final", "early", "novel1"}


def test_workers_change_nothing(cases: dict[str, Any], masks: list[MaskItem]) -> None:
    alone, helped = (list(data_module(cases, masks=masks, num_workers=n).train_dataloader()) for n in (0, 2))
    for a, b in zip(alone, helped, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("device", "devices", "cpus", "expected"),
    [("cpu", 1, 16, 0), ("cuda", 1, 16, 4), ("cuda", 4, 16, 3), ("cuda", 8, 8, 0), ("cuda", 1, 1, 0)],
)
def test_patches_are_cut_beside_a_gpu(
    cases: dict[str, Any], device: str, devices: int, cpus: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whqa.loading.datamodule.cpus", lambda: cpus)
    progress = SimpleNamespace(current=SimpleNamespace(processed=0))
    for stated, workers in ((None, expected), (2, 2)):
        data = data_module(cases, num_workers=stated)
        strategy = SimpleNamespace(root_device=torch.device(device))
        fit_loop = SimpleNamespace(epoch_progress=progress)
        data.trainer = SimpleNamespace(strategy=strategy, num_devices=devices, fit_loop=fit_loop)  # type: ignore[assignment]
        assert data.train_dataloader().num_workers == workers


def test_a_batch_of_one_volume_is_torch_s_own_without_copies() -> None:
    volume = {
        "image": torch.randn(1, 2, 3, 4),
        "label": torch.zeros(2, 3, 4, dtype=torch.int64),
        "index": 3,
        "pairwise_dice": 0.25,
        "case": "a",
    }
    found, expected = batch_of_one([volume]), torch.utils.data.default_collate([volume])
    assert found.keys() == expected.keys()
    for name, part in expected.items():
        if isinstance(part, torch.Tensor):
            assert (found[name].dtype, found[name].shape) == (part.dtype, part.shape)
            assert torch.equal(found[name], part)
        else:
            assert found[name] == part
    assert found["image"].data_ptr() == volume["image"].data_ptr()


def test_sides_of_voxels_are_the_case_s_own_to_the_last_digit(cases: dict[str, Any], masks: list[MaskItem]) -> None:
    sides = (1.2, 1.2, 1.8)
    data = data_module({name: replace(case, spacing=sides) for name, case in cases.items()}, (1,), masks=masks)
    assert {judged_case(batch).spacing for batch in data.test_dataloader()} == {sides}
