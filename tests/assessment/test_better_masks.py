"""What is done with masks that are better than those of the run's own segmenters, and with other organs in a mask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from whqa.assessment import TrainedRun, assess, likeness
from whqa.report.assessment_page import render_report
from whqa.structures import MMWHS

Case = tuple[Path, tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def case(phantoms: Path) -> Case:
    """A scan and its label map with another organ beside the heart."""
    root = phantoms / "data" / "phantom-ct-6-6mm-seed0"
    label = nib.load(next(root.rglob("ct_train_1001_label.nii.gz")))
    values = np.asanyarray(label.dataobj).astype(np.int16)
    values[(values == 0) & (np.indices(values.shape)[0] % 2 == 0)] = 9
    return next(root.rglob("ct_train_1001_image.nii.gz")), (values, label.affine)


@pytest.fixture
def eager(run: TrainedRun, correcting: Callable[[TrainedRun, float], TrainedRun]) -> TrainedRun:
    """A run that corrects whatever it can."""
    return correcting(run, 0.0)


SCHEME: dict[str, Any] = {**MMWHS.values, "ignore": 9}


def test_voxels_of_other_organs_are_never_corrected(eager: TrainedRun, case: Case) -> None:
    found = assess(*case, eager, label_map=SCHEME)
    values = case[1][0]
    assert found.quality["correction"]["changed_voxels"] == (found.corrected != found.mask).sum() > 0
    assert (found.corrected[values == 0] > 0).any(), "the run would give background to the heart"
    assert found.corrected_values is not None
    np.testing.assert_array_equal(found.corrected_values[values == 9], 9)
    assert not found.corrected[values == 9].any()


def test_a_mask_better_than_the_run_s_own_is_left_alone_and_the_page_says_why(
    eager: TrainedRun, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = "The number of separate pieces of the pulmonary artery is 1; in the run's own cases it is 2 to 12."
    monkeypatch.setattr(likeness, "better_than_own", lambda *_: [piece])
    found = assess(*case, eager, label_map=SCHEME)
    np.testing.assert_array_equal(found.corrected, found.mask)
    correction = found.quality["correction"]
    assert not correction["applied"]
    assert correction["reason"].startswith("left alone: the mask is more like the run's references")
    (warning,) = [w for w in found.quality["warnings"] if "probably too low" in w]
    assert warning.endswith(piece)
    page = render_report(found)
    assert "more like the run&#39;s references" in page
    assert "probably too low" in page
    monkeypatch.setattr(likeness, "unfamiliar", lambda *_: [{"feature": "noise", "message": "Noise."}])
    strange = assess(*case, eager, label_map=SCHEME).quality
    assert not [w for w in strange["warnings"] if "too low" in w], "of a strange scan nothing is known"
    assert not strange["correction"]["applied"]


def test_a_mask_that_is_lost_on_the_grid_of_the_run_is_left_alone(eager: TrainedRun, case: Case) -> None:
    values = np.zeros_like(case[1][0])
    values[5, 5, 5] = 500
    correction = assess(case[0], (values, case[1][1]), eager).quality["correction"]
    assert (correction["applied"], correction["changed_voxels"]) == (False, 0)
    assert correction["reason"] == "left alone: the mask has no voxel on the grid of the run"
