"""Stage one's callbacks on hand-made masks, against MONAI and numpy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from torch import Tensor

from whqa.callbacks.monitoring import MonitorSegmentation
from whqa.callbacks.storing import StoreMasks
from whqa.files import sha256
from whqa.loading.augmentation import Augmentation
from whqa.masks.faulty import faulty_masks
from whqa.masks.opinion import OPINION, VIEWS, Opinion, encode
from whqa.masks.plan import AUGMENTED_KINDS, FAULTY_KINDS, MIXED_KINDS, has_entropy
from whqa.masks.store import mask_digests, mask_path
from whqa.modules.segmenter import Segmented

STRUCTURES = ("lv", "rv")
CASES = ("a", "b", "c")
FOLD = {"a": 0, "b": 0, "c": 1}


class _Module(SimpleNamespace):
    device = torch.device("cpu")

    def log_p(self, image: Tensor) -> Tensor:
        """Of labels as brightness, which a threshold finds."""
        return torch.stack([-10 * (image - k).abs() for k in range(3)]).log_softmax(dim=0)

    def log_p_of_views(self, image: Tensor, own: Tensor) -> Tensor:
        return _of_views(image, own)

    def log_dict(self, values: dict[str, Tensor], **kwargs: Any) -> None:
        self.logged = {k: float(v) for k, v in values.items()}
        self.options = kwargs


def _of_views(image: Tensor, own: Tensor) -> Tensor:
    return (own - image).log_softmax(dim=0).flip(0)


def _batch(index: int) -> dict[str, Any]:
    label = np.zeros((8, 9, 10), np.int64)
    label[1:5, 2:6, 2 + index : 7], label[5:7, 2:6, 3:7] = 1, 2
    return {
        "label": torch.from_numpy(label)[None],
        "image": torch.from_numpy(label)[None, None].float(),
        "index": torch.tensor([index]),
        "case": [CASES[index]],
        "kind": [""],
        "spacing": torch.tensor([[2.0, 1.0, 1.0]]),
    }


def _mask(index: int, kind: int = 0) -> Tensor:
    rng = np.random.default_rng(index + 10 * kind)
    label = _batch(index)["label"][0].numpy()
    return torch.from_numpy(np.where(rng.random(label.shape) < 0.1, rng.integers(0, 3, label.shape), label)).byte()


def _outputs(index: int, kinds: tuple[str, ...] = ("final",)) -> dict[str, tuple[Tensor, Tensor]]:
    return {k: (_mask(index, i), torch.full((8, 9, 10), 0.1 * i)) for i, k in enumerate(kinds)}


def _segmented(index: int, kinds: tuple[str, ...] = ("final",)) -> Segmented:
    log_p = torch.randn(3, 8, 9, 10, generator=torch.Generator().manual_seed(index)).log_softmax(dim=0)
    return Segmented(_outputs(index, kinds), log_p)


def _one_hot(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels.long(), 3).movedim(-1, 0)[None]


def _trainer(**extra: Any) -> Any:
    items = [(case, "") for case in CASES]
    data, precision = SimpleNamespace(test_items=items), SimpleNamespace(forward_context=nullcontext)
    return SimpleNamespace(datamodule=data, precision_plugin=precision, is_global_zero=True, **extra)


def test_validation_logs_the_dice_of_monai() -> None:
    monitor, module = MonitorSegmentation(STRUCTURES), _Module()
    monitor.on_validation_epoch_start(_trainer(), module)
    reference = DiceMetric(include_background=False)
    # a padding sampler shows the first case twice
    for index in (0, 1, 2, 0):
        monitor.on_validation_batch_end(_trainer(), module, _outputs(index), _batch(index), index)
    for index in range(3):
        reference(_one_hot(_mask(index)), _one_hot(_batch(index)["label"][0]))
    monitor.on_validation_epoch_end(_trainer(), module)
    expected = reference.aggregate("mean_batch")
    assert module.logged["val/dice_lv"] == pytest.approx(float(expected[0]), rel=1e-5)
    assert module.logged["val/dice_rv"] == pytest.approx(float(expected[1]), rel=1e-5)
    assert module.logged["val/dice"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert "val/hd95" in module.logged


def test_an_epoch_forgets_the_last_one() -> None:
    monitor, module = MonitorSegmentation(STRUCTURES), _Module()
    seen = []
    for index in (0, 1):
        monitor.on_validation_epoch_start(_trainer(), module)
        monitor.on_validation_batch_end(_trainer(), module, _outputs(index), _batch(index), 0)
        monitor.on_validation_epoch_end(_trainer(), module)
        seen.append(module.logged["val/dice"])
    fresh = MonitorSegmentation(STRUCTURES)
    fresh.on_validation_epoch_start(_trainer(), module)
    fresh.on_validation_batch_end(_trainer(), module, _outputs(1), _batch(1), 0)
    fresh.on_validation_epoch_end(_trainer(), module)
    assert seen[1] == module.logged["val/dice"] != seen[0]


MADE = (*AUGMENTED_KINDS, "reference", *FAULTY_KINDS, *MIXED_KINDS)
"""What is made of the label, the segmenter's masks and augmented images."""


def _store(directory: Path, kinds: tuple[str, ...], zero: bool = True, seed: int = 5) -> None:
    store = StoreMasks(directory, STRUCTURES, FOLD, {c: c.upper() for c in CASES}, frozenset("c"), seed, Augmentation())
    module = _Module(network=SimpleNamespace(n_sides=1), early_weights={} if "early" in kinds else None)
    trainer = _trainer()
    trainer.is_global_zero = zero
    store.on_test_start(trainer, module)
    # a padding sampler shows case a twice
    for index in (0, 1, 2, 0):
        store.on_test_batch_end(trainer, module, _segmented(index, kinds), _batch(index), index)
    store.on_test_epoch_end(trainer, module)


@pytest.mark.parametrize("early", [True, False])
def test_masks_are_stored_with_their_maker_and_table(
    early: bool, tmp_path: Path, rows_of: Callable[[Path], list[dict[str, str]]]
) -> None:
    kinds = ("final", "side1", *(("early",) if early else ()))
    _store(tmp_path / "0-1", kinds)
    rows = rows_of(tmp_path / "0-1" / "cases.csv")
    order = ["final", *MADE, "side1", *(("early",) if early else ())]
    assert [(r["mask_kind"], r["case"]) for r in rows] == [(k, c) for k in order for c in CASES]
    for row in rows:
        index, kind = CASES.index(row["case"]), row["mask_kind"]
        label = _batch(index)["label"][0].numpy()
        with np.load(tmp_path / "0-1" / "masks" / row["case"] / f"{kind}.npz") as arrays:
            mask = arrays["mask"]
            assert str(arrays["segmenter"]) == "0-1"
            assert bool(arrays["unseen"]) == (row["case"] != "c") == (row["unseen"] == "1")
            assert ("entropy" in arrays) == has_entropy(kind) == (kind in kinds)
            assert ("faults" in arrays) == (kind in FAULTY_KINDS + MIXED_KINDS)
            if kind in kinds:
                np.testing.assert_array_equal(mask, _mask(index, kinds.index(kind)).numpy())
                assert set(np.unique(arrays["entropy"])) == {round(25.5 * kinds.index(kind) + 1e-9)}
        assert float(row["error_rate"]) == pytest.approx((mask != label).mean(), rel=1e-5)
        assert (float(row["error_rate"]) == 0) == np.array_equal(mask, label)
        if kind == "reference":
            np.testing.assert_array_equal(mask, label)
        assert (row["patient"], row["fold"]) == (row["case"].upper(), str(FOLD[row["case"]]))
        assert bool(row["hd95_lv"]) == (kind == "final")


def test_faulty_masks_are_those_of_their_case_and_seed(tmp_path: Path) -> None:
    _store(tmp_path / "0", ("final", "side1"))
    for index, case in enumerate(CASES):
        label, own = _batch(index)["label"][0].numpy().astype(np.uint8), _outputs(index, ("final", "side1"))
        masks = {kind: mask.numpy() for kind, (mask, _) in own.items()}
        for kind in AUGMENTED_KINDS:
            with np.load(mask_path(tmp_path / "0", case, kind)) as arrays:
                masks[kind] = arrays["mask"]
        for kind, mask, faults in faulty_masks(case, label, masks, (2.0, 1.0, 1.0), STRUCTURES, 5):
            with np.load(mask_path(tmp_path / "0", case, kind)) as arrays:
                np.testing.assert_array_equal(arrays["mask"], mask)
                assert str(arrays["faults"]) == faults


def test_every_file_has_its_digest_opinions_too(tmp_path: Path) -> None:
    _store(tmp_path / "0", ("final", "side1"))
    digests = mask_digests(tmp_path / "0")
    assert digests is not None
    kinds = ("final", "side1", *MADE, OPINION, VIEWS)
    assert set(digests) == {f"{case}/{kind}" for case in CASES for kind in kinds}
    for name, digest in digests.items():
        assert sha256(tmp_path / "0" / "masks" / f"{name}.npz") == digest
    for index, case in enumerate(CASES):
        path = mask_path(tmp_path / "0", case, OPINION)
        codes = Opinion(case, path, "0").codes()
        np.testing.assert_array_equal(codes, encode(_segmented(index).log_p))
        with np.load(path) as arrays:
            assert bool(arrays["unseen"]) == (case != "c")
            assert str(arrays["segmenter"]) == "0"


def test_the_opinion_over_views_is_the_modules(tmp_path: Path) -> None:
    _store(tmp_path / "0", ("final", "side1"))
    for index, case in enumerate(CASES):
        path = mask_path(tmp_path / "0", case, VIEWS)
        expected = _of_views(_batch(index)["image"][0, 0], _segmented(index).log_p)
        np.testing.assert_array_equal(Opinion(case, path, "0").codes(), encode(expected))
        assert (encode(expected) != encode(_segmented(index).log_p)).any()
        with np.load(path) as arrays:
            assert bool(arrays["unseen"]) == (case != "c")
            assert str(arrays["segmenter"]) == "0"


def test_only_the_first_process_writes_the_table(tmp_path: Path) -> None:
    _store(tmp_path, ("final", "side1"), zero=False)
    assert not (tmp_path / "cases.csv").exists()
    assert mask_digests(tmp_path) is None
    assert {p.stem for p in tmp_path.rglob("*.npz")} == {"final", "side1", *MADE, OPINION, VIEWS}
