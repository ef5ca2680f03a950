"""Two hearts in which faults are made, one of even voxels, one of few thick slices; a study of another program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from external_study import Study, program_root

from whqa.data.phantom import make_phantom
from whqa.masks.corruption import Fault, corrupt, draw_faults
from whqa.structures import MMWHS


@dataclass(frozen=True)
class LabelledHeart:
    """A mask (D, H, W), its mm along D, H, W, and its structures in the order of their indices."""

    mask: npt.NDArray[np.uint8]
    spacing: tuple[float, float, float]
    structures: tuple[str, ...] = MMWHS.keys

    def draw(self, n: int, seed: int, **options: Any) -> list[Fault]:
        return draw_faults(self.mask, n, seed, spacing=self.spacing, structures=self.structures, **options)

    def spoil(self, faults: Sequence[Fault]) -> npt.NDArray[np.uint8]:
        return corrupt(self.mask, self.spacing, self.structures, faults)

    def error_rate(self, faults: Sequence[Fault]) -> float:
        return float((self.spoil(faults) != self.mask).mean())


@pytest.fixture(scope="session")
def even_heart() -> LabelledHeart:
    """Voxels of 4 mm."""
    return LabelledHeart(_indices(0, 4.0), (4.0, 4.0, 4.0))


@pytest.fixture(scope="session")
def sliced_heart() -> LabelledHeart:
    """3 x 3 x 12 mm."""
    return LabelledHeart(_indices(1, 3.0)[:, :, ::4].copy(), (3.0, 3.0, 12.0))


def _indices(number: int, spacing: float) -> npt.NDArray[np.uint8]:
    return MMWHS.to_indices(make_phantom(3, number, "ct", spacing).label, "phantom")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images, references, and predictions of another program."""
    return program_root(tmp_path)


@pytest.fixture
def study(root: Path) -> Study:
    """A study of these."""
    return Study(root)
