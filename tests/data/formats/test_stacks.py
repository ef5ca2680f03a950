"""Several volumes in one file: what they are is said, and the command that is told makes the one that is wanted."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.data.formats.volume_files import label_values, read_grid, read_image
from whqa.errors import InputError

LABELS = np.random.default_rng(0).integers(0, 4, (7, 8, 9))
ONE_HOT = np.eye(4, dtype=np.float32)[LABELS]
SOFTMAX = (0.8 * ONE_HOT + 0.05).astype(np.float32)


def said(path: Path, array: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(array, np.diag([-1.5, -1.5, 2, 1])), path)
    with pytest.raises(InputError) as error:
        read_grid(path)
    return str(error.value)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(
    ("array", "words"),
    [
        (ONE_HOT, "one layer for each class"),
        (SOFTMAX, "probabilities of each class"),
        (ONE_HOT[..., 1:], "one layer for each structure"),
    ],
)
def test_layers_of_classes_become_a_label_map(tmp_path: Path, array: np.ndarray, words: str, first: bool) -> None:
    text = said(tmp_path / "a b.nii.gz", np.moveaxis(array, -1, 0) if first else array)
    assert f"4-D of shape {'4' if first and array.shape[-1] == 4 else '3' if first else '7'} x " in text
    assert words in text
    line = shlex.split(text.partition(": python ")[2])
    subprocess.run([sys.executable, *line], check=True)
    np.testing.assert_array_equal(label_values(read_grid(Path(line[-1]))).array, LABELS)


def test_what_no_label_map_can_be_made_of(tmp_path: Path) -> None:
    assert "layers that overlap" in said(tmp_path / "a.nii", np.ones((7, 8, 9, 2), np.uint8))
    assert "a field of vectors" in said(tmp_path / "a.nii", np.ones((7, 8, 9, 1, 3), np.float32))
    series = np.random.default_rng(0).integers(0, 900, (7, 8, 9, 5)).astype(np.int16)
    text = said(tmp_path / "a.nii", series)
    assert "a series or several channels" in text
    line = shlex.split(text.partition(": python ")[2])
    subprocess.run([sys.executable, *line], check=True)
    np.testing.assert_array_equal(read_image(Path(line[-1])).array, series[..., 0])
    colours = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "voxels are colours" in said(tmp_path / "a.nii", colours)
