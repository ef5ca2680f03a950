"""Masks in layers: one-hot NIfTI and the segments of 3D Slicer, judged as the label map that they are."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from whqa.assessment import TrainedRun, assess
from whqa.assessment.label_map import parse_label_map
from whqa.errors import InputError
from whqa.structures import MMWHS

Array = np.ndarray
NAMES = (
    *("left ventricle", "right ventricle", "left atrium", "right atrium", "myocardium"),
    *("aorta", "pulmonary artery"),
)


@pytest.fixture(scope="module")
def scan(phantoms: Path) -> nib.Nifti1Image:
    return nib.load(next(phantoms.rglob("ct_train_1001_image.nii.gz")))


@pytest.fixture(scope="module")
def indices(phantoms: Path) -> Array:
    values = np.asanyarray(nib.load(next(phantoms.rglob("ct_train_1001_label.nii.gz"))).dataobj)
    return MMWHS.to_indices(values.astype(np.int16), "mask")


def _one_hot(indices: Array, order: Array | None = None) -> Array:
    layers = np.stack([indices == i for i in range(8)], axis=-1).astype(np.uint8)
    return layers if order is None else layers[..., order]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("axes", [4, 5])
def test_one_hot_layers_in_the_order_of_the_label_map(
    run: TrainedRun, scan: nib.Nifti1Image, indices: Array, tmp_path: Path, dtype: type, axes: int
) -> None:
    layers = _one_hot(indices).astype(dtype)
    path = tmp_path / "mask.nii.gz"
    nib.save(nib.Nifti1Image(layers if axes == 4 else layers[:, :, :, None], scan.affine), path)
    found = assess((scan.get_fdata(), scan.affine), path, run)
    np.testing.assert_array_equal(found.mask, indices)
    (note,) = [w for w in found.quality["warnings"] if "layers" in w]
    assert "background and lv, rv, la, ra, myo, ao, pa, in this order" in note
    assert found.corrected_values is not None
    assert found.corrected_values.shape == indices.shape


def test_one_hot_layers_in_another_order_are_stated_as_advised(
    run: TrainedRun, scan: nib.Nifti1Image, indices: Array, tmp_path: Path
) -> None:
    order = np.array([0, 5, 3, 1, 4, 2, 6, 7])  # that of the values: myo 205, la 420, ...
    path, image = tmp_path / "mask.nii", (scan.get_fdata(), scan.affine)
    nib.save(nib.Nifti1Image(_one_hot(indices, order), scan.affine), path)
    wrong = assess(image, path, run).quality
    assert any("exchanged" in warning for warning in wrong["warnings"])
    assert wrong["verdict"]["decision"] != "accept"
    stated = parse_label_map("myo=1,la=2,lv=3,ra=4,rv=5,ao=6,pa=7")
    found = assess(image, path, run, label_map=stated)
    np.testing.assert_array_equal(found.mask, indices)
    assert not [w for w in found.quality["warnings"] if "layers" in w]


def test_layers_that_are_no_label_map_are_refused(
    run: TrainedRun, scan: nib.Nifti1Image, indices: Array, tmp_path: Path
) -> None:
    layers, path = _one_hot(indices), tmp_path / "mask.nii"
    more = np.concatenate([layers, np.zeros_like(layers[..., :1])], axis=-1)
    overlapping = layers.copy()
    overlapping[indices == 1, 2] = 1
    for array, says in (
        (more, r"9 classes, .* say which layer is which, counted from 0: --label-map lv=1"),
        (overlapping, "must be 3-D"),
        (layers * np.float32(0.9) + np.float32(0.0125), "probabilities of each class"),
        (layers[..., 1:], "one layer for each structure"),
    ):
        nib.save(nib.Nifti1Image(array, scan.affine), path)
        with pytest.raises(InputError, match=says):
            assess((scan.get_fdata(), scan.affine), path, run)


def _seg_nrrd(path: Path, layers: Array, segments: list[tuple[str, int, int]], affine: Array) -> Path:
    """As 3D Slicer writes it: layers (layer, X, Y, Z), segments of name, value and layer."""
    place = np.diag([-1.0, -1, 1, 1]) @ affine
    vectors = [f"({','.join(map(str, column))})" for column in place[:3].T.tolist()]
    # a single layer has no axis of its own
    shape, no_axis, of_list = (layers.shape, "none ", "list ") if len(layers) > 1 else (layers.shape[1:], "", "")
    lines = [
        *("NRRD0004", "type: unsigned char", f"dimension: {len(shape)}", "space: left-posterior-superior"),
        f"sizes: {' '.join(map(str, shape))}",
        f"space directions: {no_axis}{' '.join(vectors[:3])}",
        *(f"kinds: {of_list}domain domain domain", "encoding: gzip", f"space origin: {vectors[3]}"),
    ]
    for number, (name, value, layer) in enumerate(segments):
        fields = {"Name": name, "LabelValue": value, "Layer": layer}
        lines += [f"Segment{number}_{key}:={content}" for key, content in fields.items()]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + gzip.compress(layers.tobytes(order="F")))
    return path


@pytest.mark.parametrize("distinct", [True, False])
def test_segments_in_layers_are_read_by_their_names(
    run: TrainedRun, scan: nib.Nifti1Image, indices: Array, tmp_path: Path, distinct: bool
) -> None:
    """Values may repeat in another layer."""
    pytest.importorskip("SimpleITK")
    layers = np.zeros((2, *indices.shape), np.uint8)
    segments = [(name, i if distinct else (i + 1) // 2, i % 2) for i, name in enumerate(NAMES, start=1)]
    for i, (_, value, layer) in enumerate(segments, start=1):
        layers[layer][indices == i] = value
    path = _seg_nrrd(tmp_path / "case.seg.nrrd", layers, segments, scan.affine)
    found = assess((scan.get_fdata(), scan.affine), path, run)
    np.testing.assert_array_equal(found.mask, indices)
    assert any("read by the names in the file: lv 1, rv 2" in warning for warning in found.quality["warnings"])


@pytest.mark.parametrize("layered", [True, False])
def test_segments_cropped_to_what_they_hold(
    run: TrainedRun, scan: nib.Nifti1Image, indices: Array, tmp_path: Path, layered: bool
) -> None:
    """3D Slicer stores the box that holds all segments; the place of its first voxel stands in the file."""
    pytest.importorskip("SimpleITK")
    inside = np.argwhere(indices)
    first, last = inside.min(axis=0), inside.max(axis=0) + 1
    part, place = indices[tuple(map(slice, first, last))], scan.affine.copy()
    place[:3, 3] = (scan.affine @ [*first, 1])[:3]
    assert part.shape != indices.shape
    layers = np.stack([part * (part <= 3), part * (part > 3)]) if layered else part[None]
    segments = [(name, i, int(layered and i > 3)) for i, name in enumerate(NAMES, start=1)]
    path = _seg_nrrd(tmp_path / "case.seg.nrrd", layers.astype(np.uint8), segments, place)
    found = assess((scan.get_fdata(), scan.affine), path, run)
    np.testing.assert_array_equal(found.mask, indices)
    assert any("are a part of the image's" in warning for warning in found.quality["warnings"])


def test_segments_that_overlap_are_refused(
    run: TrainedRun, scan: nib.Nifti1Image, indices: Array, tmp_path: Path
) -> None:
    pytest.importorskip("SimpleITK")
    layers = np.zeros((2, *indices.shape), np.uint8)
    layers[0][indices == 1] = 1
    layers[1][indices > 0] = 1
    segments = [("left ventricle", 1, 0), ("myocardium", 1, 1)]
    path = _seg_nrrd(tmp_path / "case.seg.nrrd", layers, segments, scan.affine)
    with pytest.raises(InputError) as error:
        assess((scan.get_fdata(), scan.affine), path, run)
    voxels = int(np.count_nonzero(indices == 1))
    assert re.search(rf"'left ventricle' and 'myocardium' overlap in {voxels:,} voxel", str(error.value))
