"""A small cohort with predictions of another program, and its masks brought in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from whqa.data.cache import Cache, PreparedCase
from whqa.data.case import Cohort
from whqa.data.folds import Folds, make_folds
from whqa.data.preprocess import Preprocess
from whqa.data.sources.folder import read_folder
from whqa.masks.external import ExternalMethod
from whqa.masks.importing import Imported, import_masks

VALUES = {"rv": 1, "myo": 2, "lv": 3}
SHAPE = (14, 12, 10)
# Axes of the stored images: straight, turned and flipped, oblique.
TURN = np.array([[0, 2.0, 0], [0, 0, -2.5], [-3.0, 0, 0]])
OBLIQUE = np.diag([2.0, 2.5, 3.0]) @ np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]])
AXES = {"a": np.diag([2.0, 2.5, 3.0]), "b": TURN, "c": OBLIQUE, "d": np.diag([-2.0, -2.5, 3.0])}


def affine_of(axes: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (-20, 7, 33)
    return affine


def labels(seed: int) -> np.ndarray:
    """A small heart of random blocks, every structure present."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(SHAPE, np.int16)
    for value, start in ((1, 2), (2, 4), (3, 6)):
        at = rng.integers(start - 1, start + 1, 3)
        labels[at[0] : at[0] + 5, at[1] : at[1] + 4, at[2] : at[2] + 3] = value
    return labels


def save_image(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def perturbed(case: str) -> np.ndarray:
    return np.roll(labels(ord(case)), 1, axis=1)


def program_root(tmp_path: Path) -> Path:
    """Images, references, and predictions of another program."""
    for case, axes in AXES.items():
        image = np.random.default_rng(ord(case)).normal(100, 20, SHAPE).astype(np.float32)
        save_image(tmp_path / "data" / f"{case}_image.nii.gz", image, affine_of(axes))
        save_image(tmp_path / "data" / f"{case}_label.nii.gz", labels(ord(case)), affine_of(axes))
        save_image(tmp_path / "preds" / f"{case}.nii.gz", perturbed(case), affine_of(axes))
    return tmp_path


class Study:
    """A cohort in a cache; `bring` imports a method's masks."""

    def __init__(self, root: Path, spacing: float | None = None, **settings: Any) -> None:
        self.root, self.experiment = root, root / "runs" / "x"
        self.cohort: Cohort = read_folder(root / "data", scheme="acdc", **settings)
        cache = Cache(root / "cache", Preprocess(spacing=(spacing,) * 3))
        self.cases: dict[str, PreparedCase] = {c.id: cache.prepare(self.cohort, c) for c in self.cohort.cases}
        self.folds: Folds = make_folds(self.cohort, 2, 0)

    def bring(self, **settings: Any) -> Imported:
        method = ExternalMethod("nnunet", **{"root": self.root / "preds", "unseen": True} | settings)
        return import_masks(method, self.experiment, self.cohort, self.folds, self.cases)

    def masks(self, **settings: Any) -> dict[str, np.ndarray]:
        return {item.case: item.load()[0] for item in self.bring(**settings).items}


def canonical(path: Path) -> np.ndarray:
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
