"""Small data sets that describe themselves, with changes to the description."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from whqa.data.case import Cohort
from whqa.data.sources.decathlon import read_decathlon
from whqa.data.sources.nnunet import read_nnunet

Build = Callable[..., Path]
Read = Callable[..., Cohort]


def _put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.arange(120, dtype="int16").reshape(4, 5, 6), np.eye(4)), path)
    return path


def _describe(root: Path, plain: dict[str, Any], changes: dict[str, Any]) -> Path:
    changed = {key: value for key, value in (plain | changes).items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(changed), encoding="utf-8", errors="surrogatepass")
    return root


def _nnunet(root: Path, **changes: Any) -> Path:
    for case in ("a", "b"):
        _put(root / "imagesTr" / f"{case}_0000.nii.gz")
        _put(root / "labelsTr" / f"{case}.nii.gz")
    _put(root / "imagesTs" / "c_0000.nii.gz")
    labels = {"background": 0, "LV": 1, "MYO": 2}
    plain = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 2, "file_ending": ".nii.gz"}
    return _describe(root, plain, changes)


def _decathlon(root: Path, **changes: Any) -> Path:
    names = ["a.nii.gz", "b.nii.gz"]
    for name in names:
        _put(root / "imagesTr" / name)
        _put(root / "labelsTr" / name)
    _put(root / "imagesTs" / "c.nii.gz")
    plain = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "left atrium"},
        "numTraining": 2,
        "training": [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in names],
        "test": ["./imagesTs/c.nii.gz"],
    }
    return _describe(root, plain, changes)


@pytest.fixture
def put() -> Callable[[Path], Path]:
    """Writes a sound scan."""
    return _put


@pytest.fixture
def nnunet() -> Build:
    """Writes two training cases a, b and c for testing; keywords change dataset.json, None removes a key."""
    return _nnunet


@pytest.fixture
def decathlon() -> Build:
    """The same in the other layout."""
    return _decathlon


@pytest.fixture(params=["nnunet", "decathlon"])
def source(request: pytest.FixtureRequest) -> str:
    """Both layouts that describe themselves."""
    return str(request.param)


@pytest.fixture
def build(source: str) -> Build:
    """Writes a data set in that layout."""
    return {"nnunet": _nnunet, "decathlon": _decathlon}[source]


@pytest.fixture
def read(source: str) -> Read:
    """Reads that layout."""
    return {"nnunet": read_nnunet, "decathlon": read_decathlon}[source]
