"""A cohort of arrays on disk in place of prepared scans, with masks of it, and the data module of a fold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whqa.data.folds import Folds
from whqa.loading.augmentation import Augmentation
from whqa.loading.datamodule import WholeHeartDataModule
from whqa.masks.store import MaskItem, write_mask

FOLDS = Folds((("a1", "a2", "b1"), ("c1", "d1"), ("e1", "f1", "g1")), seed=0)
KINDS = ("final", "early")


@dataclass(frozen=True)
class StubCase:
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


def write_cases(root: Path) -> dict[str, Any]:
    cases = {}
    for number, name in enumerate(c for fold in FOLDS.folds for c in fold):
        rng = np.random.default_rng(number)
        shape = (12 + number, 14, 10)
        np.save(root / f"{name}-image.npy", rng.standard_normal(shape).astype(np.float16))
        np.save(root / f"{name}-label.npy", rng.integers(0, 3, shape).astype(np.uint8))
        cases[name] = StubCase(name, root, shape)
    return cases


def write_masks(root: Path, cases: dict[str, Any]) -> list[MaskItem]:
    items = []
    for name, case in cases.items():
        for step, kind in enumerate(KINDS):
            rng = np.random.default_rng(step)
            mask = np.where(rng.random(case.shape) < 0.05 * (step + 1), 0, case.label())
            path = root / name / f"{kind}.npz"
            write_mask(path, mask, rng.random(case.shape), "0", unseen=True)
            items.append(MaskItem(name, kind, path, "0", True, float(np.mean(mask != case.label()))))
    return items


def data_module(cases: dict[str, Any], held_out: Sequence[int] = (0,), **kwargs: Any) -> WholeHeartDataModule:
    options: dict[str, Any] = {
        "patch": (8, 8, 8),
        "batch_size": 2,
        "steps_per_epoch": 3,
        "validation_fraction": 0.2,
        "augmentation": Augmentation(),
        "n_classes": 3,
    }
    return WholeHeartDataModule(cases, FOLDS, held_out, **(options | kwargs))
