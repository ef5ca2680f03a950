"""Label maps as programs store them: with a rounding, in 64 bits, as floats; and maps that only look like them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import zoom

from whqa.data.formats.volume_files import Volume, label_values, read_grid, read_label
from whqa.errors import InputError
from whqa.structures import ACDC, MMWHS, TOTALSEGMENTATOR_V1, LabelScheme

LABELS = np.random.default_rng(0).choice([0, 205, 420, 500, 550, 600, 820, 850], (6, 7, 8)).astype(np.float32)


def save(path: Path, array: np.ndarray, stored: str | None = None) -> Path:
    """As nibabel writes an array, in integers with a slope where another type is asked for."""
    image = nib.Nifti1Image(array, np.diag([1.5, -1.5, 2, 1]), dtype=array.dtype)
    if stored is not None:
        image.header.set_data_dtype(stored)
    nib.save(image, path)
    return path


def memory(array: np.ndarray, scheme: LabelScheme | None = None) -> Volume:
    return label_values(Volume(array, np.eye(4), Path("mask")), scheme)


@pytest.mark.parametrize("stored", ["int16", "uint8", "uint16"])
@pytest.mark.parametrize(
    ("scheme", "values"),
    [
        (MMWHS, [0, 205, 420, 500, 550, 600, 820, 850]),
        (ACDC, [0, 1, 2, 3]),
        (TOTALSEGMENTATOR_V1, [0, *range(1, 105)]),
    ],
)
def test_labels_that_were_rounded_into_integers_come_back(
    tmp_path: Path, scheme: LabelScheme, values: list[int], stored: str
) -> None:
    array = np.random.default_rng(1).choice(values, (9, 9, 9)).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", array, stored)
    off = np.abs(nib.load(path).get_fdata() - array).max()
    assert off > 0
    label = read_label(path, scheme)
    np.testing.assert_array_equal(label.array, scheme.to_indices(array.astype(np.int32), ""))
    assert any("stored with a rounding" in note for note in label.notes) == (off > 1e-4)


@given(st.integers(0, 2**32 - 1), st.floats(-0.009, 0.009))
def test_labels_within_a_hundredth_come_back_and_further_ones_do_not(
    tmp_path_factory: pytest.TempPathFactory, seed: int, offset: float
) -> None:
    folder = tmp_path_factory.getbasetemp()
    noise = np.random.default_rng(seed).uniform(-1, 1, LABELS.shape).astype(np.float32) * np.float32(offset)
    label = read_label(save(folder / "a.nii", LABELS + noise), MMWHS)
    np.testing.assert_array_equal(label.array, MMWHS.to_indices(LABELS.astype(int), ""))
    far = LABELS.copy()
    far[1, 2, 3] += 0.02 + abs(offset)
    with pytest.raises(InputError, match="must be whole numbers; was the label map resampled as an image"):
        read_label(save(folder / "a.nii", far), MMWHS)


@pytest.mark.parametrize("stored", [None, "int16", "uint8"])
@pytest.mark.parametrize(
    ("scheme", "values"), [(MMWHS, [0, 205, 500]), (ACDC, [0, 1, 3]), (TOTALSEGMENTATOR_V1, [0, 7, 44, 49])]
)
def test_interpolated_maps_are_refused(
    tmp_path: Path, scheme: LabelScheme, values: list[int], stored: str | None
) -> None:
    blocks = np.random.default_rng(2).choice(values, (5, 5, 5)).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", zoom(blocks, 3.1, order=1), stored)
    with pytest.raises(InputError, match=r"whole numbers|unknown label value"):
        read_label(path, scheme)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float32", "float64", "uint32"])
@pytest.mark.parametrize(("largest", "kept"), [(200, "uint8"), (850, "int16"), (-3, "int16"), (70_000, "int32")])
def test_labels_come_in_the_smallest_type_that_others_open(tmp_path: Path, dtype: str, largest: int, kept: str) -> None:
    if largest < 0 and dtype.startswith("u"):
        pytest.skip("no sign")
    array = np.zeros((4, 5, 6), dtype)
    array[1, 2, 3] = largest
    values = label_values(read_grid(save(tmp_path / "a.nii", array))).array
    in_memory = memory(array)
    for found in (values, in_memory.array):
        assert found.dtype == kept
        np.testing.assert_array_equal(found, array)
    assert in_memory.notes == ()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32"])
def test_ordinary_types_stay(tmp_path: Path, dtype: str) -> None:
    array = np.arange(120).reshape(4, 5, 6).astype(dtype)
    assert label_values(read_grid(save(tmp_path / "a.nii", array))).array.dtype == dtype
    assert memory(array).array is array


def test_memory_is_read_as_a_file_is(tmp_path: Path) -> None:
    array = np.asfortranarray(LABELS + np.float32(0.004))
    found = memory(array, MMWHS)
    np.testing.assert_array_equal(found.array, LABELS)
    assert found.notes == read_label(save(tmp_path / "a.nii", array), MMWHS).notes
    for view in (array[::2, ::-1], np.ascontiguousarray(array)):
        np.testing.assert_array_equal(memory(view, MMWHS).array, np.rint(view))
    assert memory(LABELS > 300).array.dtype == np.uint8
    with pytest.raises(InputError, match=r"^mask: label values must be whole numbers"):
        memory(array / 3, MMWHS)
    with pytest.raises(InputError, match=r"^mask: label values up to 1e\+30 are no labels"):
        memory(array * 0 + np.float32(1e30), MMWHS)


def test_a_probability_is_said_to_be_one_and_the_command_makes_a_mask_of_it(tmp_path: Path) -> None:
    array = np.random.default_rng(3).random((6, 7, 8)).astype(np.float32)
    path = save(tmp_path / "it's a map.nii.gz", array)
    with pytest.raises(
        InputError, match="holds a probability from 0 to 1, not labels; threshold it: python -c"
    ) as error:
        read_label(path, ACDC)
    words = shlex.split(str(error.value).partition(": python")[2])
    subprocess.run([sys.executable, *words], check=True)
    np.testing.assert_array_equal(label_values(read_grid(Path(words[-1]))).array, array > 0.5)
