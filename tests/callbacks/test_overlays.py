"""Pictures of the fixed cases: which, where, and that they are pictures."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import torch

from whqa.callbacks.overlays import Overlays
from whqa.data.judged import ErrorPrediction
from whqa.structures import ACDC

SHAPE = (10, 11, 12)
ITEMS = [(case, kind) for case in ("c", "a", "b") for kind in ("final", "early")]


def _show(overlays: Overlays, case: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    label = np.zeros(SHAPE, np.int64)
    label[3:8, 3:8, 3:9] = 2
    batch: dict[str, Any] = {
        "image": torch.from_numpy(rng.standard_normal((1, 1, *SHAPE))).float(),
        "label": torch.from_numpy(label)[None],
        "mask": torch.from_numpy(np.roll(label, 1, axis=0))[None],
        "spacing": torch.tensor([[1.5, 1.5, 3.0]]),
        "index": torch.tensor([0]),
        "case": [case],
        "kind": [kind],
    }
    probability = torch.from_numpy(rng.random(SHAPE)).float()
    trainer = SimpleNamespace(datamodule=SimpleNamespace(test_items=ITEMS))
    overlays.on_test_batch_end(trainer, SimpleNamespace(), ErrorPrediction(probability, probability > 0.5), batch, 0)


@pytest.mark.parametrize("n", [0, 1, 2, 9])
def test_the_final_masks_of_the_first_cases_by_name_are_drawn(tmp_path: Path, n: int) -> None:
    overlays = Overlays(tmp_path / "figures", ACDC, n)
    for case, kind in ITEMS[: 6 if n else 2]:
        _show(overlays, case, kind)
    made = sorted(p.name for p in tmp_path.rglob("*"))
    assert made == ([] if n == 0 else sorted(["figures", *(f"{c}-final.png" for c in "abc"[:n])]))
    for path in tmp_path.rglob("*.png"):
        picture = matplotlib.image.imread(path)
        assert picture.shape[0] > 100
        assert picture.std() > 0.01
