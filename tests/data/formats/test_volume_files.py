"""Reading against nibabel's own reader, and every way in which a file can be bad."""

from __future__ import annotations

import gzip
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
import pytest

from whqa.data.formats.volume_files import (
    HeaderConflictWarning,
    header_from_bytes,
    header_to_bytes,
    read_grid,
    read_image,
    read_label,
    voxel_sizes,
    write_volume,
)
from whqa.errors import InputError
from whqa.structures import ACDC, MMWHS

OBLIQUE = np.array([[0.0, -1.9, 0.3, 12.0], [1.2, 0.0, 0.0, -7.0], [0.0, 0.25, 2.4, 30.0], [0, 0, 0, 1]])


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None, change: Callable | None = None) -> Path:
    """A NIfTI file; `change` edits the raw header bytes afterwards, past nibabel's own checks."""
    kind = nib.Nifti2Image if change == "nifti2" else nib.Nifti1Image
    nib.save(kind(array, np.eye(4) if affine is None else affine), path)
    if callable(change):
        packed = path.suffix == ".gz"
        block = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
        header = nib.Nifti1Header(block[:348], check=False)
        change(header)
        block = header.binaryblock + block[348:]
        path.write_bytes(gzip.compress(block) if packed else block)
    return path


def random(shape: tuple[int, ...] = (5, 6, 7), dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["int16", ">i2", "uint8", "uint16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_image_equals_what_nibabel_reads(tmp_path: Path, name: str, dtype: str) -> None:
    path = save(tmp_path / name, random(dtype=dtype), OBLIQUE)
    volume = read_image(path)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, nib.load(path).get_fdata(dtype=np.float32))
    np.testing.assert_allclose(volume.affine, nib.load(path).affine)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("int16", "int16"), (">i2", "int16"), ("uint8", "uint8"), ("int32", "float32"), ("float64", "float32")],
)
def test_small_integers_may_stay_what_they_are(tmp_path: Path, dtype: str, kept: str) -> None:
    path = save(tmp_path / "a.nii.gz", random(dtype=dtype), OBLIQUE)
    compact = read_image(path, compact=True)
    assert compact.array.dtype == np.dtype(kept)
    np.testing.assert_array_equal(compact.array, read_image(path).array)
    scaled = save(tmp_path / "b.nii", random(dtype=dtype), change=lambda h: h.set_slope_inter(0.5, 3))
    assert read_image(scaled, compact=True).array.dtype == np.float32
    with pytest.raises(InputError, match="empty image"):
        read_image(save(tmp_path / "c.nii", np.full((3, 3, 3), 7, dtype)), compact=True)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    def scale(header: nib.Nifti1Header) -> None:
        header["scl_slope"], header["scl_inter"] = 2.5, -1024

    path = save(tmp_path / "a.nii.gz", random(), change=scale)
    np.testing.assert_allclose(read_image(path).array, random() * 2.5 - 1024)
    np.testing.assert_allclose(read_image(path).array, nib.load(path).get_fdata())


def test_nifti2_and_a_single_frame(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", random((5, 6, 7, 1)), OBLIQUE, "nifti2")
    np.testing.assert_array_equal(read_image(path).array, random((5, 6, 7, 1))[..., 0])


def set_pixdim(*sizes: float) -> Callable:
    def change(header: nib.Nifti1Header) -> None:
        header["pixdim"][1:4] = sizes

    return change


def test_pixdim_rule_rescales_the_affine_and_warns(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", random(), np.diag([-1.0, -1, 1, 1]), set_pixdim(1.5, 1.5, 10))
    with pytest.warns(HeaderConflictWarning, match=r"a\.nii\.gz: pixdim says 1.5 x 1.5 x 10 mm.*using pixdim"):
        volume = read_image(path)
    np.testing.assert_allclose(volume.affine, np.diag([-1.5, -1.5, 10, 1]))
    with pytest.warns(HeaderConflictWarning, match="using affine"):
        np.testing.assert_allclose(read_image(path, "affine").affine, np.diag([-1.0, -1, 1, 1]))
    with pytest.raises(
        InputError, match=r"a\.nii\.gz: pixdim says .* the affine 1 x 1 x 1 mm; set data\.spacing_rule=pixdim or"
    ):
        read_image(path, "refuse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(path, announce=False)


def test_pixdim_rule_keeps_the_directions_of_an_oblique_affine(tmp_path: Path) -> None:
    wanted = (1.1, 2.2, 3.3)
    path = save(tmp_path / "a.nii.gz", random(), OBLIQUE, set_pixdim(*wanted))
    affine = read_image(path, announce=False).affine
    np.testing.assert_allclose(voxel_sizes(affine), wanted, rtol=1e-6)
    np.testing.assert_allclose(affine[:3, :3] / wanted, OBLIQUE[:3, :3] / voxel_sizes(OBLIQUE), atol=1e-6)


def test_a_sound_header_is_silent_under_every_rule(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", random(), OBLIQUE)
    for rule in ("pixdim", "affine", "refuse"):
        np.testing.assert_allclose(read_image(path, rule).affine, OBLIQUE, atol=1e-6)  # type: ignore[arg-type]


def truncated(path: Path, keep: Callable[[int], int]) -> Path:
    block = path.read_bytes()
    path.write_bytes(block[: keep(len(block))])
    return path


def test_every_truncation_is_found(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(20, 20, 20)).astype("float32")
    for keep in (lambda n: 10, lambda n: n // 2, lambda n: n - 100, lambda n: n - 1):
        for name in ("a.nii.gz", "a.nii"):
            path = truncated(save(tmp_path / name, noise), keep)
            with pytest.raises(InputError, match=rf"^\S*{name}: (truncated|not a NIfTI)"):
                read_image(path)


def test_damage_that_only_the_checksum_shows(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", random())
    block = bytearray(path.read_bytes())
    block[-8] ^= 0xFF
    path.write_bytes(block)
    with pytest.raises(InputError, match="damaged"):
        read_image(path)


def test_declared_size_is_checked_before_memory_is_asked_for(tmp_path: Path) -> None:
    def huge(header: nib.Nifti1Header) -> None:
        header["dim"][1:4] = 30000

    for name in ("a.nii", "a.nii.gz"):
        with pytest.raises(InputError, match="declares 54,000,000,000,000 bytes"):
            read_image(save(tmp_path / name, random(), change=huge))


def set_field(name: str, value: object, index: object = ...) -> Callable:
    def change(header: nib.Nifti1Header) -> None:
        header[name][index] = value

    return change


def singular(header: nib.Nifti1Header) -> None:
    header["srow_x"], header["srow_y"] = (1, 0, 0, 0), (1, 0, 0, 0)


def nan_affine(header: nib.Nifti1Header) -> None:
    header["srow_x"][:] = np.nan


def qform_only(**fields: object) -> Callable:
    def change(header: nib.Nifti1Header) -> None:
        header["sform_code"], header["qform_code"] = 0, 1
        for name, value in fields.items():
            header[name] = value

    return change


BAD_HEADERS = {
    "zero spacing": (set_pixdim(1, 0, 1), "pixdim gives a spacing of 1 x 0 x 1"),
    "nan spacing": (set_pixdim(1, np.nan, 1), "pixdim gives a spacing of 1 x nan x 1"),
    "singular affine": (singular, "singular affine|affine gives a spacing"),
    "nan affine": (nan_affine, "affine gives a spacing of nan"),
    "complex voxels": (set_field("datatype", 32), "not real numbers"),
    "unknown type": (set_field("datatype", 12345), "not real numbers"),
    "rgb voxels": (set_field("datatype", 128), "not real numbers"),
    "not nifti": (set_field("magic", b"abc"), "not a NIfTI file"),
    "negative size": (set_field("dim", -3, 1), "empty image"),
    "no size": (set_field("dim", 0, 2), "empty image"),
    "no dimensions": (set_field("dim", 0, 0), "declares 0 dimensions"),
    "negative spacing": (set_pixdim(1, -1, 1), "pixdim gives a spacing of 1 x -1 x 1"),
    "infinite spacing": (set_pixdim(1, np.inf, 1), "pixdim gives a spacing of 1 x inf x 1"),
    "spacing of nanometres": (set_pixdim(1, 1e-6, 1), "pixdim gives a spacing of 1 x 1e-06 x 1"),
    "spacing of kilometres": (set_pixdim(1, 1e6, 1), "pixdim gives a spacing of 1 x 1e\\+06 x 1"),
    "metres": (set_field("xyzt_units", 1), "lengths are in metres"),
    "unknown transform": (set_field("sform_code", 99), "sform_code 99 is not one of 0 to 5"),
    "quaternion longer than 1": (qform_only(quatern_b=1, quatern_c=1), "orientation in the header is not valid"),
    "handedness of -3": (qform_only(pixdim=[-3, 1, 1, 1, 1, 1, 1, 1]), r"pixdim\[0\] is -3, must be -1 or 1"),
    "infinite slope": (set_field("scl_slope", np.inf), "scaling in the header is not valid, slope inf"),
    "nan intercept": (set_field("scl_inter", np.nan), "slope 1 and intercept nan"),
    "slope that overflows": (set_field("scl_slope", 3e38), r"\d+ voxel\(s\) are NaN or infinite"),
    "bits of another type": (set_field("bitpix", 8), "voxels of type int16 and of 8 bits"),
    "voxels within the header": (set_field("vox_offset", 100), "puts the voxels at byte 100, must be 352"),
    "voxels nowhere": (set_field("vox_offset", 0), "puts the voxels at byte 0"),
    "voxels far behind": (set_field("vox_offset", 1e12), r"puts the voxels at byte 1e\+12"),
    "voxels behind the end": (set_field("vox_offset", 8192), "truncated"),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_bad_headers(tmp_path: Path, case: str) -> None:
    change, message = BAD_HEADERS[case]
    path = save(tmp_path / "bad.nii.gz", random(), change=change)
    with pytest.raises(InputError, match=message) as error:
        read_image(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def with_value(value: float) -> np.ndarray:
    array = random(dtype="float32")
    array[2, 3, 4] = value
    return array


BAD_IMAGES = {
    "2-D": (random((5, 6)), "2-D of shape 5 x 6, must be 3-D"),
    "4-D": (random((5, 6, 7, 2)), "4-D of shape 5 x 6 x 7 x 2, must be 3-D"),
    "nan": (with_value(np.nan), r"1 voxel\(s\) are NaN or infinite"),
    "infinite": (with_value(np.inf), r"1 voxel\(s\) are NaN or infinite"),
    "too large for float32": (with_value(1).astype("float64") * 1e300, "NaN or infinite"),
    "all alike": (np.zeros((5, 6, 7), "int16"), "empty image, every voxel has the value 0"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images(tmp_path: Path, case: str) -> None:
    array, message = BAD_IMAGES[case]
    with pytest.raises(InputError, match=rf"bad\.nii\.gz: .*{message}"):
        read_image(save(tmp_path / "bad.nii.gz", array))


def test_a_handedness_of_0_means_1(tmp_path: Path) -> None:
    """As the reference implementation has it; nibabel mends the header to the same."""
    for value, unset in ((0, 1), (-1, -1)):
        path = save(tmp_path / "a.nii.gz", random(), change=qform_only(pixdim=[value, 1, 1, 1, 1, 1, 1, 1]))
        np.testing.assert_array_equal(read_grid(path).affine, np.diag([1.0, 1, unset, 1]))


@pytest.mark.parametrize("slope", [0, np.nan])
def test_no_scaling(tmp_path: Path, slope: float) -> None:
    path = save(tmp_path / "a.nii.gz", random(), change=set_field("scl_slope", slope))
    np.testing.assert_array_equal(read_image(path).array, random())


def test_several_gzip_members_are_one_file(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", random())
    raw = path.read_bytes()
    path.write_bytes(b"".join(gzip.compress(raw[i : i + 100]) for i in range(0, len(raw), 100)))
    np.testing.assert_array_equal(read_image(path).array, random())


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_follows_the_voxels(tmp_path: Path, name: str) -> None:
    """Padding is harmless; much more means that the header declares less than there is, as of several frames."""
    path = save(tmp_path / name, random())
    pack = gzip.compress if name.endswith("gz") else bytes
    raw = path.read_bytes() if name == "a.nii" else gzip.decompress(path.read_bytes())
    path.write_bytes(pack(raw + bytes(512)))
    np.testing.assert_array_equal(read_image(path).array, random())
    path.write_bytes(pack(raw + bytes(100_000)))
    with pytest.raises(InputError, match="goes on behind the 420 bytes of voxels"):
        read_image(path)


def test_voxels_are_the_same_whatever_the_block(tmp_path: Path) -> None:
    """More voxels than are read at a time, and a number of bytes that blocks do not divide."""
    for dtype in ("uint8", "int16", "float64"):
        array = random((71, 83, 97), dtype)
        for name in ("a.nii", "a.nii.gz"):
            volume = read_image(save(tmp_path / name, array, OBLIQUE))
            np.testing.assert_array_equal(volume.array, array.astype("float32"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii.gz")
    with pytest.raises(InputError, match="not a regular file"):
        read_image(tmp_path / "pipe.nii.gz")


def test_more_voxels_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii.gz", random())
    with monkeypatch.context() as patch:
        patch.setattr(os, "sysconf", lambda name: 10)
        with pytest.raises(InputError, match="declares 420 bytes of voxels, this machine has 100 bytes"):
            read_image(path)

    def no_room(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "empty", no_room)
    with pytest.raises(InputError, match="210 voxels do not fit into memory"):
        read_image(path)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    text = tmp_path / "text.nii.gz"
    text.write_text("not an image")
    for path, message in (
        (tmp_path / "none.nii", "no such file"),
        (text, "not a NIfTI"),
        (tmp_path, "not a volume but a folder"),
    ):
        with pytest.raises(InputError, match=message):
            read_image(path)


def test_label_values_become_indices(tmp_path: Path) -> None:
    values = np.array([0, 205, 420, 421, 500, 550, 600, 820, 850], "int16").reshape(3, 3, 1)
    for dtype in ("int16", "int32", "uint16", "float32", "float64"):
        label = read_label(save(tmp_path / "a.nii.gz", values.astype(dtype)), MMWHS)
        assert label.array.dtype == np.uint8
        assert label.array.ravel().tolist() == [0, 5, 3, 3, 1, 4, 2, 6, 7]


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (422, "int16", r"unknown label value\(s\) \[422\]; scheme 'mmwhs'"),
        (-1, "int16", r"\[-1\]"),
        (10**6, "int32", r"\[1000000\]"),
        (420.5, "float32", "whole numbers"),
        (np.nan, "float32", "NaN or infinite"),
        (1e30, "float64", "are no labels"),
    ],
)
def test_bad_label_values(tmp_path: Path, value: float, dtype: str, message: str) -> None:
    array = np.full((4, 4, 4), 420, dtype)
    array[1, 2, 3] = value
    with pytest.raises(InputError, match=rf"bad\.nii\.gz: .*{message}"):
        read_label(save(tmp_path / "bad.nii.gz", array), MMWHS)


def test_an_empty_label_map_is_read(tmp_path: Path) -> None:
    """A mask under judgement may have nothing in it: that is a result, not a bad file."""
    assert not read_label(save(tmp_path / "a.nii.gz", np.zeros((3, 3, 3), "uint8")), ACDC).array.any()


def test_written_volume_keeps_a_header_even_where_it_lies(tmp_path: Path) -> None:
    lying = save(tmp_path / "a.nii.gz", random(), np.diag([-1.0, -1, 1, 1]), set_pixdim(1.5, 1.5, 10))
    header = header_from_bytes(header_to_bytes(read_grid(lying).header))
    write_volume(tmp_path / "b.nii.gz", random(dtype="uint8"), None, header)
    old, new = nib.load(lying), nib.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(new.affine, old.affine)
    assert new.header.get_zooms() == old.header.get_zooms() == (1.5, 1.5, 10)
    assert new.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(new.get_fdata(), random())


def test_written_volume_with_its_own_affine(tmp_path: Path) -> None:
    write_volume(tmp_path / "new" / "b.nii.gz", random(dtype="float32"), OBLIQUE)
    volume = read_image(tmp_path / "new" / "b.nii.gz", "refuse")
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-6)
    np.testing.assert_array_equal(volume.array, random())
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["b.nii.gz"]
    with pytest.raises(ValueError, match="needs an affine or a header"):
        write_volume(tmp_path / "c.nii.gz", random(), None)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.nii.gz", random())
    before = path.read_bytes()

    def half(image: nib.Nifti1Image, stream: BinaryIO) -> None:
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nib.Nifti1Image, "to_stream", half)
    with pytest.raises(OSError, match="disk full"):
        write_volume(path, random(), OBLIQUE)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
