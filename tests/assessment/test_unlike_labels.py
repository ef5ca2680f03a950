"""Masks whose values are not those of the label map: the cause, and a remedy that the command takes."""

from __future__ import annotations

import re
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.assessment import TrainedRun, assess
from whqa.assessment.label_map import parse_label_map
from whqa.errors import InputError
from whqa.structures import MMWHS

Array = np.ndarray


def _refused(run: TrainedRun, scan: nib.Nifti1Image, mask: object, label_map: object = None) -> str:
    with pytest.raises(InputError) as error:
        assess((scan.get_fdata(), scan.affine), mask, run, label_map=label_map)
    return str(error.value)


def test_image_and_mask_that_are_exchanged(run: TrainedRun, scan: nib.Nifti1Image, values: Array) -> None:
    for array in (np.round(scan.get_fdata()).astype(np.int16), scan.get_fdata()):
        with pytest.raises(InputError, match="mask: is no label map, but image is one; give the image first"):
            assess((values, scan.affine), (array, scan.affine), run)


@pytest.mark.parametrize("scaling", [(2, 0), (1, -1024), (0.5, 0)])
def test_labels_that_their_header_scales_and_the_command_that_mends_it(
    run: TrainedRun, scan: nib.Nifti1Image, values: Array, tmp_path: Path, scaling: tuple[float, float]
) -> None:
    """As written with the header of a CT."""
    path = tmp_path / "mask.nii"
    nib.save(nib.Nifti1Image(values, scan.affine), path)
    block = bytearray(path.read_bytes())
    block[112:120] = struct.pack("<2f", *scaling)
    path.write_bytes(block)
    said = _refused(run, scan, path)
    assert f"(slope {scaling[0]:g}, intercept {scaling[1]:g})" in said
    words = shlex.split(said.partition("take the scaling out: ")[2])
    subprocess.run([sys.executable, *words[1:]], check=True)
    found = assess((scan.get_fdata(), scan.affine), Path(words[-1]), run)
    np.testing.assert_array_equal(found.mask, MMWHS.to_indices(values, "mask"))


def test_values_of_other_organs_are_ignored_as_advised(run: TrainedRun, scan: nib.Nifti1Image, values: Array) -> None:
    more = values.copy()
    more[0, 0, :2] = 9, 255
    said = _refused(run, scan, (more, scan.affine))
    assert "unknown label value(s) 9, 255; the label map 'mmwhs' has lv 500" in said
    advised = re.search(r"--label-map (\S+)$", said)
    assert advised is not None
    found = assess((scan.get_fdata(), scan.affine), (more, scan.affine), run, label_map=parse_label_map(advised[1]))
    np.testing.assert_array_equal(found.mask, MMWHS.to_indices(values, "mask"))


def test_values_of_another_map(run: TrainedRun, scan: nib.Nifti1Image, values: Array) -> None:
    indices = MMWHS.to_indices(values, "mask")
    affine = scan.affine
    assert "are those of totalsegmentator_highres: --label-map totalsegmentator_highres if" in _refused(
        run, scan, (indices, affine)
    )
    said = _refused(run, scan, (np.where(indices, indices + 20, 0), affine))
    assert "say which value is which, such as --label-map lv=21,rv=22" in said
    assert "it marks one thing alone" in _refused(run, scan, ((indices > 0).astype(np.uint8), affine))


def test_many_other_organs_are_ignored_in_one_step(run: TrainedRun, scan: nib.Nifti1Image, values: Array) -> None:
    more = values.copy()
    more[0, 0, :25] = range(1, 26)
    said = _refused(run, scan, (more, scan.affine))
    assert "unknown label value(s) 1, 2, 3, 4, 5, 6, 7, 8 and 17 more; the label map 'mmwhs'" in said
    advised = parse_label_map(said.rpartition("--label-map ")[2])
    found = assess((scan.get_fdata(), scan.affine), (more, scan.affine), run, label_map=advised)
    np.testing.assert_array_equal(found.mask, MMWHS.to_indices(values, "mask"))


@pytest.mark.parametrize(
    ("alter", "how"),
    [
        (lambda v: np.where(v, v + 1, 0), "1 added to each"),
        (lambda v: np.where(v, v - 100, 0), "100 taken from each"),
        (lambda v: v.astype(np.uint8), "their higher bits cut off"),
    ],
)
def test_values_that_a_program_altered_lose_no_structure(
    alter: Callable[[Array], Array], how: str, run: TrainedRun, scan: nib.Nifti1Image, values: Array
) -> None:
    mask = alter(values)
    said = _refused(run, scan, (mask, scan.affine))
    assert f"they are those of 'mmwhs' with {how}; if so: --label-map" in said
    advised = parse_label_map(said.rpartition("--label-map ")[2])
    found = assess((scan.get_fdata(), scan.affine), (mask, scan.affine), run, label_map=advised)
    np.testing.assert_array_equal(found.mask, MMWHS.to_indices(values, "mask"))


def test_an_image_in_place_of_a_mask(run: TrainedRun, scan: nib.Nifti1Image) -> None:
    noise = np.arange(scan.get_fdata().size).reshape(scan.shape) % 2000
    noise[0, 0, 0] = 500
    said = _refused(run, scan, (noise.astype(np.int16), scan.affine))
    assert said.endswith("has 1,999 different values, as an image has; give a label map")
