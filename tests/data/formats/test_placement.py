"""Where a header puts its voxels: every place that it states, what it leaves open, and what readers make of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whqa.data.formats.volume_files import read_grid, read_image, readings, write_volume

SHAPE = (5, 6, 7)
PLACE = np.array([[-1.5, 0.0, 0.0, 31.0], [0.0, -1.5, 0.0, -7.0], [0.0, 0.0, 2.5, 30.0], [0, 0, 0, 1]])
TURN = np.array([[0.0, -1.0, 0, 4], [1, 0, 0, -9], [0, 0, 1, 20], [0, 0, 0, 1]])


def save(path: Path, change: Callable[[nib.Nifti1Header], object], affine: np.ndarray = PLACE) -> Path:
    """A NIfTI file whose raw header was changed, past nibabel's own checks."""
    image = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(SHAPE), affine)
    image.set_qform(affine, 1)
    block = image.to_bytes()
    header = nib.Nifti1Header(block[:348], check=False)
    change(header)
    path.write_bytes(header.binaryblock + block[348:])
    return path


def codes(qform: int, sform: int) -> Callable[[nib.Nifti1Header], None]:
    def change(header: nib.Nifti1Header) -> None:
        header["qform_code"], header["sform_code"] = qform, sform

    return change


def found(path: Path) -> set[str]:
    return {doubt.code for doubt in read_grid(path).doubts}


def test_a_header_that_states_no_orientation_says_so(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", codes(0, 0))
    (doubt,) = read_grid(path).doubts
    assert doubt.code == "unstated-orientation"
    assert "left and right, front and back are unknown; LAS is assumed" in doubt.text
    np.testing.assert_allclose(read_grid(path).affine, nib.load(path).affine)
    assert read_image(path).notes == (doubt.text,)


@pytest.mark.parametrize("stated", [(1, 0), (0, 1), (1, 1), (2, 4)])
def test_a_header_that_states_one_place_leaves_nothing_open(tmp_path: Path, stated: tuple[int, int]) -> None:
    path = save(tmp_path / "a.nii", codes(*stated))
    assert found(path) == set()
    assert read_image(path).notes == ()
    (place,) = readings(read_grid(path)).values()
    np.testing.assert_allclose(place, PLACE, atol=1e-5)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1)])
@pytest.mark.parametrize("size", [1, 0.75])
def test_an_affine_that_a_program_has_lost(tmp_path: Path, signs: tuple[int, ...], size: float) -> None:
    """`np.eye(4)`, or what SimpleITK gives an array without a place."""
    affine = np.diag([*(size * np.array(signs)), 1.0])
    assert found(save(tmp_path / "a.nii", codes(0, 1), affine)) == {"identity-affine"}
    affine[0, 3] = 0.5
    assert found(save(tmp_path / "a.nii", codes(0, 1), affine)) == set()


def test_qform_and_sform_may_put_the_voxels_at_two_places(tmp_path: Path) -> None:
    def change(header: nib.Nifti1Header) -> None:
        header.set_sform(TURN @ PLACE, 2)

    path = save(tmp_path / "a.nii", change)
    (doubt,) = read_grid(path).doubts
    assert doubt.code == "two-places"
    assert "the sform is used" in doubt.text
    places = readings(read_grid(path))
    assert list(places) == ["sform", "qform"]
    np.testing.assert_allclose(places["qform"], PLACE, atol=1e-5)
    np.testing.assert_allclose(places["sform"], read_grid(path).affine, atol=1e-5)


@given(st.integers(0, 2), st.floats(-3, 3))
def test_two_places_are_two_from_a_tenth_of_a_voxel_on(
    tmp_path_factory: pytest.TempPathFactory, axis: int, voxels: float
) -> None:
    shift = np.eye(4)
    shift[axis, 3] = voxels * 1.5

    def change(header: nib.Nifti1Header) -> None:
        header.set_sform(shift @ PLACE, 2)

    path = save(tmp_path_factory.getbasetemp() / "two.nii", change)
    if abs(abs(voxels) - 0.1) > 1e-3:
        assert (found(path) == {"two-places"}) == (abs(voxels) > 0.1)
        assert len(readings(read_grid(path))) == 1 + (abs(voxels) > 0.1)


def test_every_reading_of_a_header_with_two_spacings(tmp_path: Path) -> None:
    def change(header: nib.Nifti1Header) -> None:
        header["pixdim"][3], header["qform_code"] = 5, 0

    path = save(tmp_path / "a.nii", change)
    sizes = {name: np.linalg.norm(place[:3, 2]) for name, place in readings(read_grid(path, "affine")).items()}
    assert sizes == pytest.approx({"sform": 2.5, "sform with the spacing of pixdim": 5})
    assert found(path) == set()


def test_readings_of_no_stated_place_are_those_of_known_readers(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", codes(0, 0))
    places = list(readings(read_grid(path)).values())
    np.testing.assert_allclose(places[0], nib.load(path).affine)
    sitk = pytest.importorskip("SimpleITK", reason="the extra whqa[itk] is not installed")
    sitk.WriteImage(sitk.ReadImage(str(path)), str(tmp_path / "b.nii"))
    written = nib.load(tmp_path / "b.nii").affine
    assert any(np.allclose(place, written, atol=1e-5) for place in places)


QUATERNIONS = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda q: np.linalg.norm(q) > 0.1)


@given(QUATERNIONS, st.floats(1.00001, 1.004))
def test_a_quaternion_just_longer_than_1_is_that_of_a_half_turn(
    tmp_path_factory: pytest.TempPathFactory, vector: tuple[float, ...], length: float
) -> None:
    """As the reference implementation and ITK have it; nibabel reads the header that goes on to the results."""
    folder = tmp_path_factory.getbasetemp()
    b, c, d = np.array(vector) / np.linalg.norm(vector)

    def change(header: nib.Nifti1Header) -> None:
        header["qform_code"], header["sform_code"] = 1, 0
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = b * length, c * length, d * length

    path = save(folder / "q.nii", change)
    volume = read_image(path)
    turn = 2 * np.outer([b, c, d], [b, c, d]) - np.eye(3)
    np.testing.assert_allclose(volume.affine[:3, :3] / [1.5, 1.5, 2.5], turn, atol=1e-5)
    write_volume(folder / "written.nii", volume.array, None, volume.header)
    np.testing.assert_allclose(nib.load(folder / "written.nii").get_qform(), volume.affine, atol=1e-4)
