"""What was said beside the truth, in one line."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.assessment import Assessment, TrainedRun, assess
from whqa.assessment.against_truth import Reference, read_truth, said_and_true
from whqa.assessment.one_heart import CHAMBERS
from whqa.errors import InputError
from whqa.structures import MMWHS, LabelScheme, label_scheme


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


def _read(path: Path, stated: LabelScheme | None = None) -> Reference:
    return read_truth(path, stated, MMWHS)


def test_the_line_holds_what_was_said_and_what_is_true(found: Assessment, label: Path) -> None:
    line = said_and_true(found, _read(label))
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
    line = said_and_true(part, _read(label))
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
            said_and_true(found, _read(path))
        assert str(path) in str(caught.value)


def test_a_reference_has_the_values_that_are_stated_of_the_mask(found: Assessment, label: Path, tmp_path: Path) -> None:
    volume = nib.load(label)
    values = np.asanyarray(volume.dataobj).astype(np.int16)
    left, right = MMWHS.values["lv"], MMWHS.values["rv"]
    exchanged = np.where(values == left, right, np.where(values == right, left, values))
    path = tmp_path / "exchanged.nii.gz"
    nib.save(nib.Nifti1Image(exchanged, volume.affine, volume.header), path)
    stated = label_scheme({**MMWHS.values, "lv": right, "rv": left})
    assert said_and_true(found, _read(path, stated)) == said_and_true(found, _read(label))


def test_the_outline_of_a_heart_is_held_against_that_of_the_chambers(
    run: TrainedRun, label: Path, tmp_path: Path
) -> None:
    image = label.with_name(label.name.replace("label", "image"))
    volume = nib.load(label)
    values = np.asanyarray(volume.dataobj).astype(np.int16)
    chambers = np.isin(values, [MMWHS.values[key] for key in CHAMBERS])
    heart = chambers * 51 + (values == MMWHS.values["ao"]) * 52
    path = tmp_path / "heart.nii.gz"
    nib.save(nib.Nifti1Image(heart.astype(np.int16), volume.affine, volume.header), path)
    stated = label_scheme({"heart": 51, "ao": 52})
    judged = assess(image, path, run, label_map=stated)
    # in the mask's own values and in the run's
    for truth in (path, label):
        line = said_and_true(judged, _read(truth, stated))
        assert re.search(r"QI over the heart \S+ / 1\.000; volume \S+ / 1\.000;", line)
        assert re.search(r"Dice heart \S+ / 1\.00, ao \S+ / 1\.00;", line)
