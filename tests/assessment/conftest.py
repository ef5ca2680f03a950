"""A trained run, as assess takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from whqa.assessment import TrainedRun, load_run
from whqa.judges.calibration import CorrectionRule


@pytest.fixture(scope="module")
def run(judged: Path) -> TrainedRun:
    """The tiny study's run with fold 0."""
    (directory,) = (judged / "runs").glob("*/errormap")
    return load_run(directory.parent)


@pytest.fixture
def correcting(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainedRun]:
    """Makes a run correct by a rule, as if that had helped all of its unseen masks; more of its calibration by name."""

    def make(run: TrainedRun, rule: CorrectionRule | None, **more: Any) -> TrainedRun:
        for network in run.networks:
            calibration = replace(network.module.calibration, **more)
            monkeypatch.setattr(network.module, "calibration", calibration)
        better = {f"dice_{key}_corrected": run.cases[f"dice_{key}"] + 0.1 for key in run.scheme.keys}
        return replace(run, cases=run.cases.assign(**better), correction=rule, n_held_back=1)

    return make


@pytest.fixture(scope="module")
def scan(phantoms: Path) -> nib.Nifti1Image:
    """The scan of a phantom."""
    return nib.load(next(phantoms.rglob("ct_train_1001_image.nii.gz")))


@pytest.fixture(scope="module")
def values(phantoms: Path) -> np.ndarray:
    """Its label map in MMWHS's values, int16 (X, Y, Z)."""
    return np.asanyarray(nib.load(next(phantoms.rglob("ct_train_1001_label.nii.gz"))).dataobj).astype(np.int16)
