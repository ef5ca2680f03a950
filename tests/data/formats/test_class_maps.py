"""Softmax of other programs: nnU-Net's axes are the file's in reverse; what is no softmax of this grid is refused."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from scipy.special import expit, softmax

from whqa.data.formats.volume_files import Grid, class_maps_in_memory, read_class_maps, read_grid
from whqa.errors import InputError

SHAPE = (7, 5, 4)
AFFINE = np.diag([-1.5, 2.0, 3.0, 1.0])


def _softmax(n: int = 3, seed: int = 0) -> np.ndarray:
    """(class, X, Y, Z)"""
    return softmax(np.random.default_rng(seed).normal(0, 3, (n, *SHAPE)), axis=0).astype(np.float32)


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    path = tmp_path / "case_0000.nii.gz"
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32), AFFINE), path)
    return read_grid(path)


def _npz(folder: Path, compressed: bool = True, **arrays: Any) -> Path:
    path = folder / "case.npz"
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def _as_nnunet(p_CXYZ: np.ndarray) -> np.ndarray:
    return p_CXYZ.transpose(0, 3, 2, 1)


@pytest.mark.parametrize("key", ["probabilities", "softmax"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nnunets_axes_are_those_of_the_file_in_reverse(
    key: str, order: Any, dtype: Any, grid: Grid, tmp_path: Path
) -> None:
    p = _softmax()
    path = _npz(tmp_path, order == "C", **{key: np.array(_as_nnunet(p), dtype, order=order)})
    found = read_class_maps(path, [grid])
    np.testing.assert_allclose(found.array, p, atol=1e-3)
    np.testing.assert_array_equal(found.affine, AFFINE)
    np.testing.assert_array_equal(found.best(), found.array.argmax(axis=0))
    in_memory = class_maps_in_memory(_as_nnunet(p), [grid])
    np.testing.assert_array_equal(in_memory.array, p)


def test_the_pickle_beside_it_is_never_opened(grid: Grid, tmp_path: Path) -> None:
    path = _npz(tmp_path, probabilities=_as_nnunet(_softmax()))
    path.with_suffix(".pkl").write_bytes(b"this is no pickle")
    read_class_maps(path, [grid])


def test_the_first_grid_of_its_shape_is_its_own(grid: Grid, tmp_path: Path) -> None:
    path = _npz(tmp_path, probabilities=_as_nnunet(_softmax()))
    other = class_maps_in_memory(np.ones((2, 2, 2, 2)) / 2, [_grid_of(tmp_path, (2, 2, 2))])
    assert other.array.shape == (2, 2, 2, 2)
    found = read_class_maps(path, [_grid_of(tmp_path, (4, 5, 7)), grid])
    np.testing.assert_array_equal(found.affine, AFFINE)


def _grid_of(folder: Path, shape: tuple[int, int, int]) -> Grid:
    path = folder / "other.nii"
    nib.save(nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), np.diag([9, 9, 9, 1.0])), path)
    return read_grid(path)


def test_what_nobody_predicted_may_be_zero_in_every_class(grid: Grid, tmp_path: Path) -> None:
    p = _softmax()
    p[:, :2] = 0
    found = read_class_maps(_npz(tmp_path, probabilities=_as_nnunet(p)), [grid])
    assert not found.best()[:2].any()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_nifti_file_has_one_volume_a_class(dtype: Any, grid: Grid, tmp_path: Path) -> None:
    p, path = _softmax(), tmp_path / "case.nii.gz"
    image = nib.Nifti1Image(np.moveaxis(p, 0, -1), AFFINE)
    image.set_data_dtype(dtype)  # 8 bits are scaled
    nib.save(image, path)
    found = read_class_maps(path, [grid])
    np.testing.assert_allclose(found.array, p, atol=1e-6 if dtype is np.float32 else 0.003)
    np.testing.assert_array_equal(found.affine, AFFINE)


def _sigmoids() -> np.ndarray:
    """Regions within each other, background none: what regions_class_order gives."""
    logits = np.random.default_rng(1).normal(0, 4, SHAPE)
    return np.stack([expit(logits), expit(logits - 2), expit(logits - 4)]).astype(np.float16)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"probabilities": _softmax()}, r"have 4 x 5 x 7 voxels \(X x Y x Z.*not the 7 x 5 x 4 of .*case_0000.*give"),
        ({"softmax": _as_nnunet(_softmax())[:, 1:]}, r"not the 7 x 5 x 4 .*; nnU-Net 1 cuts.*predict with nnU-Net 2"),
        ({"probabilities": _as_nnunet(_sigmoids())}, r"do not add up to 1 in \d+\.\d % of the v.*regions_class_order"),
        ({"probabilities": _as_nnunet(np.log(_softmax()))}, "holds values below 0 or no numbers.*are they logits"),
        ({"probabilities": _as_nnunet(_softmax() * np.nan)}, "holds values below 0 or no numbers"),
        ({"probabilities": _as_nnunet(_softmax())[:1]}, "have the shape 1 x 4 x 5 x 7, must be classes x Z x Y x X"),
        ({"probabilities": _softmax()[0]}, "have the shape 7 x 5 x 4, must be classes"),
        ({"probabilities": _as_nnunet(_softmax()).round().astype(int)}, "are of type int64, not floating-point"),
        ({"probabilities": np.array([{}], dtype=object)}, "are of type object, not floating-point"),
        ({"logits": _as_nnunet(_softmax()), "x": np.zeros(1)}, "holds no probabilities or softmax but logits, x; "),
    ],
)  # fmt: skip
def test_what_is_no_softmax_of_this_grid_is_refused_in_one_line(
    arrays: dict[str, Any], says: str, grid: Grid, tmp_path: Path
) -> None:
    path = _npz(tmp_path, **arrays)
    with pytest.raises(InputError, match=says) as caught:
        read_class_maps(path, [grid])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", pickle.dumps({}), "cut", "npy", None])
def test_a_damaged_file_is_refused_in_one_line(content: Any, grid: Grid, tmp_path: Path) -> None:
    path = _npz(tmp_path, probabilities=_as_nnunet(_softmax()))
    if content == "cut":
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "npy":
        np.save(path.with_suffix(".npy"), _as_nnunet(_softmax()))
        path.with_suffix(".npy").replace(path)
    elif content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match="write it again with nnUNetv2_predict --save_probabilities") as caught:
        read_class_maps(path, [grid])
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_terabytes_that_are_declared_are_refused_before_they_are_read(grid: Grid, tmp_path: Path) -> None:
    fields = {"descr": "<f2", "fortran_order": False, "shape": (3, 10**4, 10**4, 10**4)}
    with zipfile.ZipFile(tmp_path / "case.npz", "w") as archive, archive.open("probabilities.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, fields)
    with pytest.raises(InputError, match=r"1e\+04 x 1e\+04 x 1e\+04 voxels"):
        read_class_maps(tmp_path / "case.npz", [grid])


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 1)])
def test_a_nifti_file_without_classes_is_refused(shape: tuple[int, ...], grid: Grid, tmp_path: Path) -> None:
    path = tmp_path / "case.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(shape, np.float32), AFFINE), path)
    with pytest.raises(InputError, match=r"must be X x Y x Z x classes, background first"):
        read_class_maps(path, [grid])
