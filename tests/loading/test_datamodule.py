"""Also a program: `python test_datamodule.py ROOT` trains with two processes and writes what each of them saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.loading.augmentation import Augmentation
from whqa.loading.brightness import brightness
from whqa.loading.datamodule import WholeHeartDataModule
from whqa.loading.whole_volumes import batch_of_one
from whqa.masks.opinion import OPINION, Opinion, decode, write_opinion
from whqa.masks.store import MaskItem, mask_path, write_mask
from whqa.modules.volume_batches import judged_case

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytorch_lightning.utilities.warnings.PossibleUserWarning"),
    # 2026-11: pytorch-lightning 2.6.6 under torch 2.13
    pytest.mark.filterwarnings(r"ignore:.*isinstance\(treespec, LeafSpec\).*:FutureWarning"),
]

FOLDS = Folds((("a1", "a2", "b1"), ("c1", "d1"), ("e1", "f1", "g1")), seed=0)
KINDS = ("final", "early")
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@dataclass(frozen=True)
class _Case:
    """Stands for a prepared case."""

    id: str
    directory: Path
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.5, 1.5, 3.0)

    @property
    def patient(self) -> str:
        return self.id[0]

    def image(self) -> np.ndarray:
        return np.load(self.directory / f"{self.id}-image.npy", mmap_mode="r")

    def label(self) -> np.ndarray:
        return np.load(self.directory / f"{self.id}-label.npy", mmap_mode="r")

    @property
    def minimum(self) -> float:
        return float(self.image().min())

    def structures(self) -> list[np.ndarray]:
        return [np.argwhere(self.label() == v) for v in (1, 2)]


def _write_cases(root: Path) -> dict[str, Any]:
    cases = {}
    for number, name in enumerate(c for fold in FOLDS.folds for c in fold):
        rng = np.random.default_rng(number)
        shape = (12 + number, 14, 10)
        np.save(root / f"{name}-image.npy", rng.standard_normal(shape).astype(np.float16))
        np.save(root / f"{name}-label.npy", rng.integers(0, 3, shape).astype(np.uint8))
        cases[name] = _Case(name, root, shape)
    return cases


def _write_masks(root: Path, cases: dict[str, Any]) -> list[MaskItem]:
    items = []
    for name, case in cases.items():
        for step, kind in enumerate(KINDS):
            rng = np.random.default_rng(step)
            mask = np.where(rng.random(case.shape) < 0.05 * (step + 1), 0, case.label())
            path = root / name / f"{kind}.npz"
            write_mask(path, mask, rng.random(case.shape), "0", unseen=True)
            items.append(MaskItem(name, kind, path, "0", True, float(np.mean(mask != case.label()))))
    return items


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _write_cases(tmp_path_factory.mktemp("cases"))


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory, cases: dict[str, Any]) -> list[MaskItem]:
    return _write_masks(tmp_path_factory.mktemp("masks"), cases)


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory, cases: dict[str, Any]) -> dict[str, tuple[Opinion, ...]]:
    """Two of each case."""
    root, found = tmp_path_factory.mktemp("opinions"), {}
    for name, case in cases.items():
        for maker in ("0", "0-1"):
            logits = torch.from_numpy(np.random.default_rng(len(maker)).normal(0, 3, (3, *case.shape)))
            write_opinion(root / maker, name, logits.log_softmax(dim=0), unseen=True)
            final = logits.numpy().argmax(axis=0)
            write_mask(mask_path(root / maker, name, "final"), final, None, maker, True)
        found[name] = tuple(Opinion(name, mask_path(root / maker, name, OPINION), maker) for maker in ("0", "0-1"))
    return found


def _data(cases: dict[str, Any], held_out: Sequence[int] = (0,), **kwargs: Any) -> WholeHeartDataModule:
    options: dict[str, Any] = {
        "patch": (8, 8, 8),
        "batch_size": 2,
        "steps_per_epoch": 3,
        "validation_fraction": 0.2,
        "augmentation": Augmentation(),
        "n_classes": 3,
    }
    return WholeHeartDataModule(cases, FOLDS, held_out, **(options | kwargs))


class _Recorder(pl.LightningModule):
    """A one-layer segmenter that notes what it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Conv3d(1, 3, 1)
        self.seen: list[list[float]] = []
        self.validated: list[int] = []

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        self.seen += [[float(i), float(x.sum())] for i, x in zip(batch["index"], batch["image"], strict=True)]
        return torch.nn.functional.cross_entropy(self.layer(batch["image"]), batch["label"])

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self.validated += batch["index"].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


# -- who is where


@pytest.mark.parametrize("held_out", [(0,), (1,), (0, 2)])
def test_cases_are_split_by_patient(cases: dict[str, Any], held_out: tuple[int, ...]) -> None:
    data = _data(cases, held_out)
    assert sorted(data.train_cases + data.val_cases) == sorted(FOLDS.without(held_out))
    assert data.test_cases == tuple(c for k in held_out for c in FOLDS.folds[k])
    assert len({cases[c].patient for c in data.val_cases}) == 1
    assert not {cases[c].patient for c in data.val_cases} & {cases[c].patient for c in data.train_cases}


def test_validation_patients_follow_the_seed(cases: dict[str, Any]) -> None:
    splits = [_data(cases, seed=s, validation_fraction=0.4).val_cases for s in (0, 0, 1, 2, 3)]
    assert splits[0] == splits[1]
    assert len(set(splits)) > 1
    assert all(len({cases[c].patient for c in s}) == 2 for s in splits)


def test_test_folds_can_differ_from_the_held_out_ones(cases: dict[str, Any]) -> None:
    assert _data(cases, (0, 1), test_folds=[1]).test_cases == ("c1", "d1")


def test_items_are_masks_filtered_by_case(cases: dict[str, Any], masks: list[MaskItem]) -> None:
    data = _data(cases, (1,), masks=masks[::-1])
    assert data.test_items == [(c, k) for c in ("c1", "d1") for k in ("early", "final")]
    assert sorted(data.train_items + data.val_items) == sorted((m.case, m.kind) for m in masks if m.case[0] not in "cd")
    assert {c for c, _ in data.val_items} == set(data.val_cases)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 0.95}, "validation_fraction=0.95"),
        ({"validation_fraction": 1.0}, "below 1"),
        ({"held_out": (0, 1, 2)}, "no case is left"),
        ({"test_folds": ()}, "no case is left"),
        ({"balance": "equal"}, "balance=equal"),
        ({"delivered": 1.5}, r"errormap\.delivered=1\.5: must be in 0\.\.1"),
        ({"delivered": -0.1}, r"errormap\.delivered=-0\.1"),
        ({"patch": (8, 8)}, "three edges"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"masks": []}, "no masks under judgement of case"),
    ],
)
def test_wrong_settings_are_refused(cases: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _data(cases, **options)


@pytest.mark.parametrize("name", ["unfinished", "early"])
def test_only_the_chosen_kinds_train_and_calibrate_all_are_tested(
    cases: dict[str, Any], masks: list[MaskItem], name: str
) -> None:
    data = _data(cases, (1,), masks=masks, train_kinds=[name])
    assert {kind for _, kind in (*data.train_items, *data.val_items)} == {"early"}
    assert {case for case, _ in data.train_items} == set(data.train_cases)
    assert {kind for _, kind in data.test_items} == {"final", "early"}
    # settings are chosen by the same masks, whichever are learned from
    assert data.choice_items == [(case, "final") for case in data.val_cases] != []


def test_side_outputs_and_early_masks_can_be_left_out_apart(cases: dict[str, Any], masks: list[MaskItem]) -> None:
    sides = [replace(mask, kind="side2", has_entropy=False) for mask in masks if mask.kind == "early"]
    data = _data(cases, (1,), masks=[*masks, *sides], train_kinds=["final", "early"])
    assert {kind for _, kind in data.train_items} == {"final", "early"}
    data = _data(cases, (1,), masks=[*masks, *sides], train_kinds=["side"])
    assert {kind for _, kind in data.train_items} == {"side2"}


@pytest.mark.parametrize("kinds", [["side"], ["early1"], ["final", "corrupted"], []])
def test_kinds_to_train_on_that_there_are_not_are_refused(
    cases: dict[str, Any], masks: list[MaskItem], kinds: list[str]
) -> None:
    with pytest.raises(InputError, match=r"errormap\.train_kinds=.*: must be some of final, unfinished"):
        _data(cases, masks=masks, train_kinds=kinds)


def test_a_kind_that_occurs_twice_is_refused(cases: dict[str, Any], masks: list[MaskItem]) -> None:
    with pytest.raises(InputError, match="twice"):
        _data(cases, masks=[*masks, masks[0]])


# -- what the loaders yield


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
    data = _data(cases, (1,), masks=masks if with_masks else None, **heard)
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
    data = _data(cases, (1,), masks=masks)
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
    data = _data(cases, (1,), masks=masks, opinions=single, ensembles=opinions)
    for item in data.judged(data.train_items[:3]):
        said = [decode(torch.from_numpy(one.codes())) for one in opinions[item.case]]
        assert item.log_p is not None
        assert item.ensemble is not None
        torch.testing.assert_close(item.log_p, said[0], rtol=0, atol=0)
        torch.testing.assert_close(item.ensemble.exp(), (said[0].exp() + said[1].exp()) / 2)
        assert item.pairwise_dice == _alike(opinions[item.case])


def test_what_a_mask_comes_with(
    cases: dict[str, Any], masks: list[MaskItem], opinions: dict[str, tuple[Opinion, ...]]
) -> None:
    single = {case: several[0] for case, several in opinions.items()}
    bare = [replace(mask, has_entropy=mask.kind == "final") for mask in masks]
    assert _data(cases, masks=masks).extras(("a1", "final")) == {"entropy"}
    assert _data(cases, masks=bare).extras(("a1", "early")) == set()
    assert _data(cases, masks=bare, opinions=single).extras(("a1", "early")) == {"log_p"}
    whole = _data(cases, masks=masks, opinions=single, ensembles=opinions)
    assert whole.extras(("a1", "final")) == {"entropy", "log_p", "ensemble"}
    shifted = _data(cases, masks=masks, opinions=single, tta=_tta(opinions))
    assert shifted.extras(("a1", "final")) == {"entropy", "log_p", "tta"}


def test_training_patches_come_with_the_opinion_that_the_network_hears(
    cases: dict[str, Any], masks: list[MaskItem], opinions: dict[str, tuple[Opinion, ...]]
) -> None:
    first, second = ({case: several[i] for case, several in opinions.items()} for i in (0, 1))
    by_views = _data(cases, (1,), masks=masks, opinions=first, tta=second, hears_views=True)
    exchanged = _data(cases, (1,), masks=masks, opinions=second, tta=first)
    for heard, expected in zip(by_views.train_dataloader(), exchanged.train_dataloader(), strict=True):
        assert "log_p" not in heard
        torch.testing.assert_close(heard["tta"], expected["log_p"], rtol=0, atol=0)
        torch.testing.assert_close(heard["image"], expected["image"], rtol=0, atol=0)


def test_masks_with_novel_faults_are_judged_but_neither_trained_nor_calibrated_on(
    cases: dict[str, Any], masks: list[MaskItem]
) -> None:
    novel = [replace(mask, kind="novel1") for mask in masks if mask.kind == "early"]
    data = _data(cases, (1,), masks=[*masks, *novel], validation_fraction=0.4)
    assert {kind for _, kind in data.train_items} == {kind for _, kind in data.val_items} == {"final", "early"}
    assert {kind for _, kind in data.test_items} == {"final", "early", "novel1"}


def test_workers_change_nothing(cases: dict[str, Any], masks: list[MaskItem]) -> None:
    alone, helped = (list(_data(cases, masks=masks, num_workers=n).train_dataloader()) for n in (0, 2))
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
        data = _data(cases, num_workers=stated)
        strategy = SimpleNamespace(root_device=torch.device(device))
        fit_loop = SimpleNamespace(epoch_progress=progress)
        data.trainer = SimpleNamespace(strategy=strategy, num_devices=devices, fit_loop=fit_loop)  # type: ignore[assignment]
        assert data.train_dataloader().num_workers == workers


# -- under Lightning


def _fit(cases: dict[str, Any], epochs: int, resume: Path | None = None, **kwargs: Any) -> tuple[_Recorder, pl.Trainer]:
    torch.manual_seed(0)
    module, trainer = _Recorder(), pl.Trainer(max_epochs=epochs, **QUIET)
    trainer.fit(module, datamodule=_data(cases, **kwargs), ckpt_path=resume, weights_only=resume is not None or None)
    return module, trainer


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_training_sees_what_an_uninterrupted_one_sees(
    cases: dict[str, Any], tmp_path: Path, num_workers: int
) -> None:
    whole, _ = _fit(cases, 3, num_workers=num_workers)
    first, trainer = _fit(cases, 2, num_workers=num_workers)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second, _ = _fit(cases, 3, resume=tmp_path / "last.ckpt", num_workers=num_workers)
    assert len(whole.seen) == 18
    assert first.seen + second.seen == whole.seen
    assert len({checksum for _, checksum in whole.seen}) == 18
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_validation_is_optional(cases: dict[str, Any]) -> None:
    without, _ = _fit(cases, 1, validation_fraction=0.0)
    assert (len(without.seen), without.validated) == (6, [])
    assert _data(cases, validation_fraction=0.0).val_dataloader() == []
    module, _ = _fit(cases, 1, validation_fraction=0.5)
    assert sorted(set(module.validated)) == list(range(len(_data(cases, validation_fraction=0.5).val_items)))


def test_overfitting_repeats_the_same_patches(cases: dict[str, Any]) -> None:
    torch.manual_seed(0)
    module = _Recorder()
    with pytest.warns(UserWarning, match="overfit"):
        pl.Trainer(max_epochs=2, overfit_batches=1, **QUIET).fit(module, datamodule=_data(cases))
    assert module.seen[:2] == module.seen[2:]


def test_two_processes_see_together_what_one_sees(cases: dict[str, Any], tmp_path: Path) -> None:
    alone, _ = _fit(_write_cases(tmp_path), 2, batch_size=4)
    # A program of its own, because processes are forked safely only where autograd has not started threads.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [sys.executable, "-W", "ignore", __file__, str(tmp_path)]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, timeout=120, capture_output=True)
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    together = [pair for step in range(0, 12, 2) for rank in ranks for pair in rank["seen"][step : step + 2]]
    assert together == alone.seen
    # Gradients are averaged over the halves of each batch, so the training is that of one process.
    for rank in ranks:
        torch.testing.assert_close(torch.tensor(rank["bias"]), alone.layer.bias.detach())
    n_val = len(_data(cases).val_items)
    assert {i for rank in ranks for i in rank["validated"]} == set(range(n_val))


class _RankRecorder(_Recorder):
    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root

    def on_train_end(self) -> None:
        found = {"seen": self.seen, "validated": self.validated, "bias": self.layer.bias.tolist()}
        (self.root / f"rank{self.global_rank}.json").write_text(json.dumps(found))


def _train_with_two_processes(root: Path) -> None:
    torch.manual_seed(0)
    module = _RankRecorder(root)
    cases = {c: _Case(c, root, np.load(root / f"{c}-image.npy").shape) for fold in FOLDS.folds for c in fold}
    trainer = pl.Trainer(max_epochs=2, strategy="ddp_fork", devices=2, **QUIET)
    trainer.fit(module, datamodule=_data(cases, batch_size=4))


if __name__ == "__main__":
    _train_with_two_processes(Path(sys.argv[1]))


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
