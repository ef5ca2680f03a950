"""Pictures of the fixed and of the worst judged masks: which, where, and that they are pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch

from whqa.callbacks import overlays as module
from whqa.callbacks.overlays import Overlays
from whqa.quality import ErrorPrediction
from whqa.structures import ACDC

SHAPE = (10, 11, 12)


def _label() -> np.ndarray:
    label = np.zeros(SHAPE, np.int64)
    label[3:8, 3:8, 3:9] = 2
    return label


def _judge(overlays: Overlays, items: list[tuple[str, str]], gaps: list[int], indices: list[int] | None = None) -> None:
    """A test epoch in which mask i is said to have `gaps[i]` wrong voxels more than it has."""
    trainer = SimpleNamespace(datamodule=SimpleNamespace(test_items=items))
    overlays.on_test_epoch_start(trainer, SimpleNamespace())
    for index in range(len(items)) if indices is None else indices:
        label, mask = _label(), np.roll(_label(), 1, axis=0)
        predicted = mask != label
        predicted.ravel()[np.flatnonzero(~predicted.ravel())[: gaps[index]]] = True
        batch: dict[str, Any] = {
            "image": torch.from_numpy(np.random.default_rng(0).standard_normal((1, 1, *SHAPE))).float(),
            "label": torch.from_numpy(label)[None],
            "mask": torch.from_numpy(mask)[None],
            "spacing": torch.tensor([[1.5, 1.5, 3.0]]),
            "index": torch.tensor([index]),
            "case": [items[index][0]],
            "kind": [items[index][1]],
        }
        verdict = ErrorPrediction(torch.from_numpy(predicted).float(), torch.from_numpy(predicted))
        overlays.on_test_batch_end(trainer, SimpleNamespace(), verdict, batch, 0)
    overlays.on_test_epoch_end(trainer, SimpleNamespace())


def _made(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in tmp_path.rglob("*.png"))


@pytest.mark.parametrize("n", [0, 1, 9])
def test_the_final_masks_of_the_first_cases_by_name_are_drawn(tmp_path: Path, n: int) -> None:
    items = [(case, kind) for case in ("c", "a", "b") for kind in ("final", "early")]
    _judge(Overlays(tmp_path / "figures", ACDC, n), items, [0] * 6, [0, 1, 2, 3, 4, 5])
    assert _made(tmp_path) == ([] if n == 0 else [f"{c}-final.png" for c in "abc"])
    for path in tmp_path.rglob("*.png"):
        picture = matplotlib.image.imread(path)
        assert picture.shape[0] > 100
        assert picture.std() > 0.01


def test_the_masks_whose_qi_is_farthest_off_are_drawn_as_well(tmp_path: Path) -> None:
    items = [(case, kind) for case in "abcdef" for kind in ("final", "side1")]
    gaps = [0, 400, 10, 400, 90, 400, 20, 400, 70, 400, 30, 400]
    overlays = Overlays(tmp_path, ACDC, 1)
    # the sampler of several processes repeats cases
    _judge(overlays, items, gaps, [*range(12), 4, 4])
    assert _made(tmp_path) == ["a-final.png", "c-final.png", "e-final.png"]
    assert not overlays.worst


def test_masks_of_other_programs_count_and_stand_in_for_final_ones(tmp_path: Path) -> None:
    items = [(case, kind) for case in "abc" for kind in ("nnunet", "someone")]
    _judge(Overlays(tmp_path, ACDC, 1), items, [0, 50, 1, 2, 3, 60])
    assert _made(tmp_path) == ["a-nnunet.png", "a-someone.png", "c-someone.png"]


def test_every_process_draws_only_what_is_among_the_worst_of_all(tmp_path: Path, monkeypatch) -> None:
    elsewhere = {7: 0.9, 9: 0.00001}
    monkeypatch.setattr(module, "gather_by_index", lambda mine: mine | elsewhere)
    items = [(case, "final") for case in "abcd"]
    _judge(Overlays(tmp_path, ACDC, 1), items, [0, 50, 20, 30])
    assert _made(tmp_path) == ["a-final.png", "b-final.png"]
