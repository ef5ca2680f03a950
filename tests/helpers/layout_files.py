"""Files of public data sets as small as they may be, for tests of their readers."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.data.sources.totalsegmentator import FILES
from whqa.errors import InputError


def put(path: Path, mark: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((4, 5, 6), dtype=np.uint8)
    array[1:3, 1:3, 1:3] = mark
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


def raises(message: str) -> pytest.RaisesExc[InputError]:
    return pytest.raises(InputError, match=re.escape(message))


def patient(root: Path, name: str, info: str | None = "ED: 1\nES: 12\n", frames: tuple[int, ...] = (1, 12)) -> Path:
    for frame in frames:
        put(root / name / f"{name}_frame{frame:02}.nii.gz")
        put(root / name / f"{name}_frame{frame:02}_gt.nii.gz")
    if info is not None:
        (root / name / "Info.cfg").write_text(info)
    return root / name


def subject(root: Path, name: str, empty: tuple[str, ...] = ()) -> Path:
    folder = root / name
    put(folder / "ct.nii.gz")
    for key, file in FILES.items():
        put(folder / "segmentations" / f"{file}.nii.gz", mark=key not in empty)
    return folder
