"""A cohort of small scans on disk, to be prepared."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from whqa.data.case import Case, Cohort
from whqa.data.preprocess import Preprocess
from whqa.structures import ACDC

SETTINGS = Preprocess((2.0, 2.0, 2.0))


def scan(shape: tuple[int, int, int] = (16, 18, 20)) -> tuple[np.ndarray, np.ndarray]:
    image = np.random.default_rng(0).integers(0, 500, shape).astype("int16")
    label = np.zeros(shape, "uint8")
    label[4:8, 4:12, 4:12], label[8:10, 4:12, 4:12], label[10:14, 4:12, 4:12] = 1, 2, 3
    return image, label


def save(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 2, 1])), path)
    return path


def cohort(folder: Path, label: np.ndarray | None = None, cases: int = 1) -> Cohort:
    image, default = scan()
    made = tuple(
        Case(
            f"c{i}",
            f"p{i}",
            "mr",
            save(folder / f"c{i}_image.nii.gz", image + np.int16(i)),
            save(folder / f"c{i}_label.nii.gz", default if label is None else label),
        )
        for i in range(cases)
    )
    return Cohort("mine", made, ACDC)


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name not in ("hashes", "locks")) if folder.exists() else []
