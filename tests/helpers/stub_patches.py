"""Cases, masks and opinions without a disk, and the patches that are cut from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whqa.loading.augmentation import Augmentation
from whqa.loading.patches import PatchDataset

N_CLASSES = 4
STRONG = Augmentation(rotate_deg=(40, 40, 40), scale=0.3, probability=1.0)


@dataclass
class ArrayCase:
    """Stands for a prepared case without a disk."""

    pixels: np.ndarray
    labels: np.ndarray
    id: str = "a"
    spacing: tuple[float, float, float] = (1.5, 1.5, 1.5)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    def image(self) -> np.ndarray:
        return self.pixels

    def label(self) -> np.ndarray:
        return self.labels

    @property
    def minimum(self) -> float:
        return float(self.pixels.min())

    def structures(self) -> list[np.ndarray]:
        return [np.argwhere(self.labels == v) for v in np.unique(self.labels) if v]


@dataclass
class ArrayMask:
    values: np.ndarray
    path: Path
    case: str = "a"
    reads: int = 0

    def mask(self) -> np.ndarray:
        self.reads += 1
        return self.values


@dataclass
class SureOpinion:
    """Stands for a stored opinion: labels that the segmenter is sure of."""

    said: np.ndarray
    path: Path

    def codes(self) -> np.ndarray:
        return np.where(np.arange(N_CLASSES)[:, None, None, None] == self.said, 2, 200).astype(np.uint8)


def random_volume(shape: tuple[int, int, int] = (24, 30, 27), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).astype(np.float16), rng.integers(0, 4, shape).astype(np.uint8)


def patch_dataset(case: ArrayCase, items: list[Any] | None = None, **kwargs: Any) -> PatchDataset:
    options = {"size": (8, 9, 10), "foreground": 0.5, "augmentation": None, "seed": 0, "n_classes": N_CLASSES} | kwargs
    return PatchDataset({"a": case}, items or ["a"], **options)  # type: ignore[arg-type, dict-item]
