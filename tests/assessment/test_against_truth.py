"""What was said beside the truth, in one line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.assessment import Assessment, TrainedRun, assess
from whqa.assessment.against_truth import said_and_true
from whqa.errors import InputError
from whqa.structures import MMWHS


@pytest.fixture(scope="module")
def label(phantoms: Path) -> Path:
    return next((phantoms / "data").rglob("ct_train_1001_label.nii.gz"))


@pytest.fixture(scope="module")
def found(run: TrainedRun, label: Path) -> Assessment:
    """Of a mask that lacks the aorta."""
    image = label.with_name(label.name.replace("label", "image"))
    volume = nib.load(label)
    values = np.asanyarray(volume.dataobj).astype(np.int16)
    values[values == MMWHS.values["ao"]] = 0
    return assess(image, (values, volume.affine), run)


def test_the_line_holds_what_was_said_and_what_is_true(found: Assessment, label: Path) -> None:
    line = said_and_true(found, label)
    assert line.startswith("said / true: QI over the heart ")
    assert "\n" not in line
    truth = MMWHS.to_indices(np.asanyarray(nib.load(label).dataobj).astype(np.int64), "label")
    error = found.mask != truth
    said = found.quality["qi"]["volume"]["value"]
    assert f"volume {said:.3f} / {1 - error.mean():.3f};" in line
    dice = 2 * (found.error_map & error).sum() / (found.error_map.sum() + error.sum())
    assert f"error Dice {dice:.3f};" in line
    expected = found.quality["structures"]["ao"]["dice_expected"]
    assert f"ao {'n/a' if expected is None else f'{expected:.2f}'} / 0.00" in line
    assert len(re.findall(r"(?:lv|rv|la|ra|myo|pa) \S+ / 1\.00", line)) == 6
    assert line.endswith("changed nothing") == np.array_equal(found.mask, found.corrected)


def test_the_truth_is_of_the_box_that_was_judged(found: Assessment, label: Path) -> None:
    box = (slice(8, 20), slice(6, 22), slice(5, 24))
    part = replace(found, box=box)
    truth = MMWHS.to_indices(np.asanyarray(nib.load(label).dataobj).astype(np.int64), "label")[box]
    mask = found.mask[box]
    line = said_and_true(part, label)
    assert f" / {1 - (mask != truth).mean():.3f}; error Dice" in line
    lv = 1 + found.scheme.keys.index("lv")
    dice = 2 * ((mask == lv) & (truth == lv)).sum() / ((mask == lv).sum() + (truth == lv).sum())
    assert f" / {dice:.2f}, rv" in line


def test_a_reference_on_another_grid_is_refused(found: Assessment, label: Path, tmp_path: Path) -> None:
    volume = nib.load(label)
    for name, values, affine in (
        ("smaller", np.asanyarray(volume.dataobj)[1:], volume.affine),
        ("moved", np.asanyarray(volume.dataobj), volume.affine + np.eye(4)[[3, 0, 1, 2]] * 3),
    ):
        path = tmp_path / f"{name}.nii.gz"
        nib.save(nib.Nifti1Image(values, affine, volume.header), path)
        with pytest.raises(InputError, match="does not lie on the grid of the image; leave --reference out") as caught:
            said_and_true(found, path)
        assert str(path) in str(caught.value)
