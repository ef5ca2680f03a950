"""A mask on its image's grid: what has the same voxels comes there exactly, everything else is named with its cause."""

from __future__ import annotations

import itertools
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff
from scipy.spatial.transform import Rotation

from whqa.data.alignment import check_lattice, on_lattice_of, resampled_onto
from whqa.data.formats.volume_files import Volume, read_grid, read_image, read_label
from whqa.errors import InputError
from whqa.structures import ACDC

SHAPE = (7, 6, 5)
PLACE = np.array([[-1.5, 0.0, 0.0, 31.3], [0.0, -1.5, 0.0, -7.1], [0.0, 0.0, 2.5, 30.7], [0, 0, 0, 1]])
TILT = np.eye(4)
TILT[:3, :3] = Rotation.from_euler("xyz", [12, -7, 20], degrees=True).as_matrix()
MASK = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)
MASK[0, 0, 0] = MASK[-1, -1, -1] = 3


def volume(array: np.ndarray, affine: np.ndarray, name: str = "mask.nii.gz") -> Volume:
    return Volume(array, np.asarray(affine, float), Path(name))


TURNS = [
    np.array([[axis, sign] for axis, sign in zip(axes, signs, strict=True)])
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@given(
    st.sampled_from(TURNS),
    st.tuples(*[st.integers(-4, 4)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.booleans(),
)
def test_any_turn_crop_and_pad_of_a_mask_comes_back(
    turn: np.ndarray, first: tuple[int, ...], size: tuple[int, ...], tilted: bool
) -> None:
    """A window of the lattice, anywhere and of any size, stored with its axes in any order and direction."""
    place = TILT @ PLACE if tilted else PLACE
    inside = [(max(0, f), min(n, f + s)) for f, s, n in zip(first, size, SHAPE, strict=True)]
    assume(all(low < high for low, high in inside))
    expected, window = np.zeros_like(MASK), np.zeros(size, np.uint8)
    kept = tuple(slice(low, high) for low, high in inside)
    expected[kept] = MASK[kept]
    assume(expected.any())
    window[tuple(slice(low - f, high - f) for (low, high), f in zip(inside, first, strict=True))] = MASK[kept]
    moved = np.eye(4)
    moved[:3, 3] = first
    turned = np.asarray(apply_orientation(window, turn))
    mask = volume(turned, place @ moved @ inv_ornt_aff(turn, size))
    image = volume(np.zeros(SHAPE, np.float32), place, "image.nii.gz")
    found = on_lattice_of(image, mask)
    np.testing.assert_array_equal(found.array, expected)
    np.testing.assert_allclose(found.affine, place, atol=1e-6)
    is_turned, is_moved = turn.tolist() != [[0, 1], [1, 1], [2, 1]], (size, first) != (SHAPE, (0, 0, 0))
    assert len(found.notes) == is_turned + is_moved
    check_lattice(image, mask)


def test_the_image_s_own_grid_is_left_as_it_is() -> None:
    mask = volume(MASK, PLACE)
    assert on_lattice_of(volume(MASK, PLACE, "image.nii"), mask) is mask


def test_what_is_cut_off_is_told() -> None:
    moved = np.eye(4)
    moved[0, 3] = 2
    found = on_lattice_of(volume(MASK, PLACE, "image.nii"), volume(MASK, PLACE @ moved))
    cut = np.count_nonzero(MASK[-2:])
    assert found.notes == (
        f"its 7 x 6 x 5 voxels reach beyond the image's 7 x 6 x 5: {cut} voxel(s) that it marks lie outside and were "
        "cut off",
    )
    np.testing.assert_array_equal(found.array[2:], MASK[:-2])
    moved[0, 3] = 90
    with pytest.raises(InputError, match=r"all that it marks lies outside of the image image\.nii"):
        on_lattice_of(volume(MASK, PLACE, "image.nii"), volume(MASK, PLACE @ moved))


def test_a_turn_is_told_by_the_names_of_the_axes() -> None:
    ras = nib.as_closest_canonical(nib.Nifti1Image(MASK, PLACE))
    found = on_lattice_of(volume(MASK, PLACE, "image.nii"), volume(np.asarray(ras.dataobj), ras.affine))
    assert found.notes == ("its axes were turned from RAS to the image's LPS",)
    np.testing.assert_array_equal(found.array, MASK)


def changed(**settings: object) -> np.ndarray:
    affine = PLACE.copy()
    if "shift" in settings:
        affine[:3, 3] += affine[:3, :3] @ np.array(settings["shift"])
    if "scale" in settings:
        affine[:3, :3] = affine[:3, :3] * np.array(settings["scale"])
    if "degrees" in settings:
        affine[:3, :3] = Rotation.from_euler("z", settings["degrees"], degrees=True).as_matrix() @ affine[:3, :3]
    return affine


@pytest.mark.parametrize(
    ("affine", "cause"),
    [
        (
            changed(shift=(0.5, 0.5, 0)),
            "its voxels lie between the image's, 0.5 x 0.5 x 0 of a voxel away; resample it",
        ),
        (changed(shift=(0, 0, 3.25)), "its voxels lie between the image's, 0 x 0 x 0.25 of a voxel away; resample it"),
        (changed(scale=2), "its spacing is 3 x 3 x 5 mm, the image's 1.5 x 1.5 x 2.5 mm; resample it"),
        (changed(scale=(1, 1, 1.1)), "its spacing is 1.5 x 1.5 x 2.75 mm, the image's 1.5 x 1.5 x 2.5 mm; resample"),
        (changed(degrees=10), "its axes are turned by 10 degrees; resample it"),
        (np.eye(4), "the mask has the identity as its affine, a lost place; if its voxels are in the other's order"),
        (np.diag([-1.0, -1, 1, 1]), "the mask has the identity as its affine, a lost place"),
        (np.diag([1.5, 1.5, 2.5, 1]), "the mask has the identity as its affine, a lost place"),
    ],
)
def test_causes(affine: np.ndarray, cause: str) -> None:
    with pytest.raises(InputError) as error:
        on_lattice_of(volume(MASK, PLACE, "image.nii"), volume(MASK, affine))
    assert str(error.value).startswith(f"mask.nii.gz: its grid differs from that of image.nii: {cause}")
    assert error.value.code == "grid-mismatch"


@given(st.tuples(*[st.integers(-200, 200)] * 3), st.booleans())
def test_a_lost_place_is_not_believed_where_it_lies_on_the_lattice_by_chance(
    origin: tuple[int, ...], mask_is_lost: bool
) -> None:
    """The other's origin is a whole number of voxels from 0, as of many resampled scans."""
    assume(any(origin))
    place, lost = np.diag([-1.0, -1, 1, 1]), np.eye(4)
    place[:3, 3] = origin
    image, mask = (place, lost) if mask_is_lost else (lost, place)
    with pytest.raises(InputError, match=f"the {'mask' if mask_is_lost else 'image'} has the identity as its affine"):
        on_lattice_of(volume(MASK, image, "image.nii"), volume(MASK, mask))
    with pytest.raises(InputError, match=r"is not the image's|has the identity"):
        on_lattice_of(volume(MASK, lost, "image.nii"), volume(MASK[1:], lost))


def save(path: Path, array: np.ndarray, affine: np.ndarray, change: Callable[[nib.Nifti1Header], object]) -> Path:
    image = nib.Nifti1Image(array, affine)
    image.set_qform(affine, 1)
    block = image.to_bytes()
    header = nib.Nifti1Header(block[:348], check=False)
    change(header)
    path.write_bytes(header.binaryblock + block[348:])
    return path


def same(header: nib.Nifti1Header) -> None:
    pass


def no_codes(header: nib.Nifti1Header) -> None:
    header["qform_code"] = header["sform_code"] = 0


def test_a_mask_that_took_the_image_s_other_place(tmp_path: Path) -> None:
    def two(header: nib.Nifti1Header) -> None:
        header.set_sform(TILT @ PLACE, 2)

    image = read_grid(save(tmp_path / "image.nii", MASK.astype(np.int16), PLACE, two))
    found = on_lattice_of(image, read_label(save(tmp_path / "mask.nii", MASK, PLACE, same), ACDC))
    np.testing.assert_array_equal(found.array, ACDC.to_indices(MASK, ""))
    np.testing.assert_allclose(found.affine, TILT @ PLACE, atol=1e-4)
    assert found.notes == ("mask and image agree by the image's qform, not by the place that is used",)
    other = save(tmp_path / "other.nii", MASK, changed(degrees=30), same)
    with pytest.raises(InputError, match="the image's sform and qform contradict each other and none fits, its axes"):
        on_lattice_of(image, read_label(other, ACDC))


def test_a_whole_shift_between_two_stated_places_is_no_crop(tmp_path: Path) -> None:
    """By the sform the mask would be cut; by the qform it is the image's own grid, and that is believed."""

    def two(header: nib.Nifti1Header) -> None:
        header.set_sform(changed(shift=(2, 0, 0)), 2)

    image = read_grid(save(tmp_path / "image.nii", MASK.astype(np.int16), PLACE, two))
    found = on_lattice_of(image, read_label(save(tmp_path / "mask.nii", MASK, PLACE, same), ACDC))
    np.testing.assert_array_equal(found.array, ACDC.to_indices(MASK, ""))


@pytest.mark.parametrize("rule", ["pixdim", "affine"])
def test_a_mask_that_believed_the_other_spacing(tmp_path: Path, rule: str) -> None:
    def lie(header: nib.Nifti1Header) -> None:
        header["pixdim"][3], header["qform_code"] = 8, 0

    image = read_grid(save(tmp_path / "image.nii", MASK.astype(np.int16), PLACE, lie), rule)  # type: ignore[arg-type]
    for size in (2.5, 8):
        affine = PLACE.copy()
        affine[2, 2] = size
        found = on_lattice_of(image, read_label(save(tmp_path / "mask.nii", MASK, affine, same), ACDC))
        np.testing.assert_array_equal(found.array, ACDC.to_indices(MASK, ""))
        assert len(found.notes) == ((size == 8) != (rule == "pixdim"))


def test_a_mask_of_an_image_without_orientation_as_each_reader_writes_it(tmp_path: Path) -> None:
    """All of them mean the same voxels, though they place them differently."""
    image = save(tmp_path / "image.nii", MASK.astype(np.int16), PLACE, no_codes)
    grid, expected = read_grid(image), ACDC.to_indices(MASK, "")
    places = [nib.load(image).affine, np.diag([-1.5, -1.5, 2.5, 1]), np.diag([1.5, 1.5, 2.5, 1])]
    for place in places:
        found = on_lattice_of(grid, read_label(save(tmp_path / "mask.nii", MASK, place, same), ACDC))
        np.testing.assert_array_equal(found.array, expected)
    sitk = pytest.importorskip("SimpleITK", reason="the extra whqa[itk] is not installed")
    sitk.WriteImage(sitk.Cast(sitk.ReadImage(str(image)), sitk.sitkUInt8), str(tmp_path / "itk.nii.gz"))
    found = on_lattice_of(grid, read_label(tmp_path / "itk.nii.gz", ACDC))
    np.testing.assert_array_equal(found.array, expected)


def advised(image: Path, mask: Path) -> Volume:
    """The mask after the command in the message was run as it stands there."""
    with pytest.raises(InputError) as error:
        on_lattice_of(read_image(image), read_label(mask, ACDC))
    words = shlex.split(str(error.value).partition(": python -c")[2])
    subprocess.run([sys.executable, "-c", *words], check=True)
    return on_lattice_of(read_image(image), read_label(Path(words[-1]), ACDC))


def test_the_command_that_gives_a_mask_its_place_back(tmp_path: Path) -> None:
    folder = tmp_path / "a scan's folder"
    folder.mkdir()
    image = save(folder / "image.nii", MASK.astype(np.int16), PLACE, same)
    found = advised(image, save(folder / "mask.nii", MASK, np.eye(4), same))
    np.testing.assert_array_equal(found.array, ACDC.to_indices(MASK, ""))


@pytest.mark.parametrize("name", ["mask.nii", "mask.nrrd"])
def test_the_command_that_resamples(tmp_path: Path, name: str) -> None:
    image = save(tmp_path / "image.nii", MASK.astype(np.int16), PLACE, same)
    fine = np.repeat(np.repeat(np.repeat(MASK, 2, 0), 2, 1), 2, 2)
    affine = changed(scale=0.5)
    affine[:3, 3] -= affine[:3, :3] @ [0.5, 0.5, 0.5]
    mask = save(tmp_path / "mask.nii", fine, affine, same)
    if name.endswith("nrrd"):
        sitk = pytest.importorskip("SimpleITK", reason="the extra whqa[itk] is not installed")
        sitk.WriteImage(sitk.ReadImage(str(mask)), str(tmp_path / name))
    np.testing.assert_array_equal(advised(image, tmp_path / name).array, ACDC.to_indices(MASK, ""))


@pytest.mark.parametrize(
    ("shape", "spacing"), [((4, 5, 1), (1.0, 1.0, 8.0)), ((4, 5, 3), (1.0, 1.0, 8.0)), ((5, 5, 5), (3.1, 2.3, 4.7))]
)
def test_resampling_keeps_the_outer_half_of_the_outermost_voxels(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    labels = np.random.default_rng(0).integers(1, 8, shape).astype(np.uint8)
    affine = np.diag([*spacing, 1.0])
    image = Volume(np.zeros((23, 24, 29), np.float32), np.eye(4), Path("scan.nii.gz"))
    found = resampled_onto(image, Volume(labels, affine, Path("mask.nii.gz"))).array
    # each voxel of the image lies in one of the mask, or outside of all
    at = np.floor(np.indices(image.shape).reshape(3, -1) / np.array(spacing)[:, None] + 0.5).astype(int)
    inside = (at < np.array(shape)[:, None]).all(axis=0)
    expected = np.zeros(inside.shape, np.uint8)
    expected[inside] = labels[tuple(at[:, inside])]
    np.testing.assert_array_equal(found, expected.reshape(image.shape))
