"""NRRD and MHA against the same scan as NIfTI, and what their headers must not do."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from whqa.data.formats.volume_files import read_grid, read_image, read_label, voxel_sizes, write_volume
from whqa.data.preprocess import Geometry, Preprocess, preprocess_image, restore_labels
from whqa.errors import InputError
from whqa.structures import MMWHS

sitk = pytest.importorskip("SimpleITK", reason="the extra whqa[itk] is not installed")

SHARED = Path(__file__).parents[3] / "../shared/data"
FORMATS = ("nii.gz", "nrrd", "mha")


def scan(dtype: str = "int16", seed: int = 0) -> sitk.Image:
    """An oblique volume of 9 x 8 x 7 voxels."""
    values = np.random.default_rng(seed).integers(0, 200, (7, 8, 9)).astype(dtype)
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((1.5, 1.25, 2.5))
    image.SetOrigin((-31.5, 17.25, 120.75))
    turned = Rotation.from_euler("XYZ", (0.3, -0.2, 0.5)).as_matrix()
    image.SetDirection((turned @ np.diag([1, 1, -1.0])).ravel())
    return image


def save(path: Path, image: sitk.Image, packed: bool = True) -> Path:
    sitk.WriteImage(image, str(path), useCompression=packed)
    return path


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_three_formats_give_one_volume(tmp_path: Path, dtype: str, packed: bool) -> None:
    volumes = [read_image(save(tmp_path / f"a.{suffix}", scan(dtype), packed), "refuse") for suffix in FORMATS]
    truth = nib.load(tmp_path / "a.nii.gz")
    for volume in volumes:
        assert volume.array.dtype == np.float32
        np.testing.assert_array_equal(volume.array, truth.get_fdata(dtype=np.float32))
        np.testing.assert_allclose(volume.affine, truth.affine, atol=1e-5)


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
@pytest.mark.parametrize("name", ["whole_heart/ct_train_1002_image", "acdc/patient001_image"])
def test_real_scans_with_all_that_their_headers_hold(tmp_path: Path, name: str, suffix: str) -> None:
    """ITK carries the fields of a NIfTI header over as lines of its own: `dim[0] = 3`."""
    path = SHARED / f"{name}.nii.gz"
    if not path.is_file():
        pytest.skip("the shared real scans are not here")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        image = sitk.ReadImage(str(path))
        save(tmp_path / f"a.{suffix}", image)
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(True)
    volume = read_image(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(volume.array, read_image(path, announce=False).array)
    corner = [int(n) - 1 for n in volume.shape]
    place = np.diag([-1, -1, 1]) @ image.TransformIndexToPhysicalPoint(corner)
    np.testing.assert_allclose(volume.affine[:3] @ [*corner, 1], place, atol=1e-4)
    assert sitk.ProcessObject.GetGlobalWarningDisplay()


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_big_endian_files(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a.{suffix}", scan(), packed=False)
    block = path.read_bytes()
    for little, big in ((b"endian: little", b"endian: big"), (b"MSB = False", b"MSB = True")):
        block = block.replace(little, big)
    voxels = 9 * 8 * 7 * 2
    path.write_bytes(block[:-voxels] + np.frombuffer(block[-voxels:], "<i2").byteswap().tobytes())
    np.testing.assert_array_equal(read_image(path).array, sitk.GetArrayFromImage(scan()).transpose())


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_label_maps(tmp_path: Path, suffix: str) -> None:
    values = np.array([0, 205, 420, 421, 500, 550, 600, 820, 850], "int16").reshape(1, 3, 3)
    path = save(tmp_path / f"a.{suffix}", sitk.GetImageFromArray(values))
    assert read_label(path, MMWHS).array.ravel(order="F").tolist() == [0, 5, 3, 3, 1, 4, 2, 6, 7]
    save(path, sitk.GetImageFromArray(values + np.int16(1)))
    with pytest.raises(InputError, match=r"unknown label value\(s\) \[1, 206"):
        read_label(path, MMWHS)


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_results_are_written_as_nifti_on_the_same_grid(tmp_path: Path, suffix: str) -> None:
    volume = read_image(save(tmp_path / f"a.{suffix}", scan()))
    mask = (volume.array > 100).astype(np.uint8)
    _, geometry = preprocess_image(volume, "ct", Preprocess(spacing=(None, None, None)))
    geometry = Geometry.from_dict(geometry.to_dict())
    back = restore_labels(np.ones(geometry.shape, np.uint8), geometry)
    assert back.shape == volume.shape
    write_volume(tmp_path / "mask.nii.gz", mask, None, geometry.header)
    written = nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_allclose(written.affine, volume.affine, atol=1e-5)
    np.testing.assert_allclose(written.header.get_zooms(), voxel_sizes(volume.affine), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(written.dataobj), mask)
    again = sitk.ReadImage(str(tmp_path / "mask.nii.gz"))
    for was, now in zip(
        (scan().GetOrigin(), scan().GetDirection()), (again.GetOrigin(), again.GetDirection()), strict=True
    ):
        np.testing.assert_allclose(now, was, atol=1e-5)


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd", "nhdr"])
def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    save(path, scan(), packed=False)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    wanted = "detached header" if suffix in ("mhd", "nhdr") else re.escape('pip install "whqa[itk]"')
    with pytest.raises(InputError, match=rf"a\.{suffix}: .*{wanted}"):
        read_grid(path)


def test_detached_headers_are_not_followed(tmp_path: Path) -> None:
    for suffix in ("nhdr", "mhd"):
        with pytest.raises(InputError, match=rf"a\.{suffix}: a detached header may point to any file"):
            read_image(save(tmp_path / f"a.{suffix}", scan(), packed=False))
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(9 * 8 * 7 * 2))
    for suffix, line in (("mha", "ElementDataFile = {}"), ("nrrd", "data file: {}"), ("nrrd", "DATAFILE: {}")):
        path = tmp_path / f"b.{suffix}"
        save(tmp_path / f"c.{suffix}", scan(), packed=False)
        head = (tmp_path / f"c.{suffix}").read_bytes()[: -9 * 8 * 7 * 2]
        for target in (str(secret), "secret.raw", "../secret.raw", "LIST"):
            entry = line.format(target).encode()
            block = head.replace(b"ElementDataFile = LOCAL", entry) if suffix == "mha" else head[:-1] + entry + b"\n\n"
            path.write_bytes(block)
            with pytest.raises(InputError, match="its voxels stand in another file"):
                read_image(path)


def edited(old: str, new: str) -> Callable[[bytes], bytes]:
    def edit(block: bytes) -> bytes:
        assert re.search(old.encode(), block)
        return re.sub(old.encode(), new.encode(), block, count=1)

    return edit


BAD = {
    "huge, nrrd": ("nrrd", edited("sizes: .*", "sizes: 30000 30000 30000"), "declares 54,000,000,000,000 bytes"),
    "huge, mha": ("mha", edited("DimSize = .*", "DimSize = 30000 30000 30000"), "declares 54,000,000,000,000 bytes"),
    "more than stored, nrrd": ("nrrd", edited("sizes: 9", "sizes: 10"), "truncated"),
    "more than stored, mha": ("mha", edited("DimSize = 9", "DimSize = 10"), "truncated"),
    "zero size": ("mha", edited("DimSize = 9", "DimSize = 0"), "shape 0 x 8 x 7"),
    "compressed size": ("mha", edited("(CompressedDataSize = ).*", r"\g<1>999999"), "truncated"),
    "cut compressed size": ("mha", edited("(CompressedDataSize = ).*", r"\g<1>99"), "truncated or damaged"),
    "no spacing": ("mha", edited("ElementSpacing", "ElementSpocing"), "no field 'ElementSpacing'"),
    "no directions": ("nrrd", edited("space directions: .*\n", ""), "no field 'spacedirections'"),
    "no space": ("nrrd", edited("space: .*\n", ""), "no field 'space'"),
    "zero spacing": ("mha", edited("ElementSpacing = .*", "ElementSpacing = 1 0 1"), "spacing of|cannot read"),
    "negative spacing": ("mha", edited("ElementSpacing = .*", "ElementSpacing = 1 -1 1"), "a spacing of 1 x -1 x 1 mm"),
    "nan spacing": ("mha", edited("ElementSpacing = .*", "ElementSpacing = 1 nan 1"), "1 nan 1.*is not supported"),
    "infinite spacing": ("mha", edited("ElementSpacing = .*", "ElementSpacing = 1 1e999 1"), "is not supported"),
    "singular": ("mha", edited("TransformMatrix = .*", "TransformMatrix = 1 0 0 1 0 0 0 0 1"), "singular|cannot read"),
    "scaled axes": ("mha", edited("TransformMatrix = .*", "TransformMatrix = 2 0 0 0 1 0 0 0 1"), "not of length 1"),
    "ascii": ("nrrd", edited("encoding: gzip", "encoding: ascii"), "'ascii'.*is not supported"),
    "colours": ("nrrd", edited("kinds: .*", "kinds: RGB-color domain domain"), "is not supported"),
    "channels": ("mha", edited("(?=DimSize)", "ElementNumberOfChannels = 3\n"), "'3'.*is not supported"),
    "4-D": ("mha", edited("NDims = 3", "NDims = 4"), "NDims.*'4'.*is not supported"),
    "twice": ("mha", edited("(?=DimSize)", "NDims = 3\n"), "malformed or repeated"),
    "skip": ("nrrd", edited("(?=kinds)", "byte skip: -1\n"), "'-1'.*is not supported"),
    "microns": ("nrrd", edited("(?=kinds)", 'space units: "um" "um" "um"\n'), "is not supported"),
    "text": ("nrrd", lambda block: b"not an image", "not an NRRD file"),
    "empty": ("mha", lambda block: b"", "not an MHA file"),
    "cut header": ("mha", lambda block: block[:100], "not an MHA file"),
    "cut voxels": ("nrrd", lambda block: block[:-20], "truncated or damaged"),
    "checksum": ("mha", lambda block: block[:-1] + bytes([block[-1] ^ 1]), "truncated or damaged"),
    "carriage return": ("nrrd", edited("(?=kinds)", "content: x\rdata file: y\n"), "is damaged"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files(tmp_path: Path, capfd: pytest.CaptureFixture, case: str) -> None:
    suffix, change, message = BAD[case]
    path = save(tmp_path / f"bad.{suffix}", scan())
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=message) as error:
        read_image(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_what_follows_the_voxels(tmp_path: Path) -> None:
    for suffix in ("nrrd", "mha"):
        path = save(tmp_path / f"a.{suffix}", scan(), packed=False)
        block = path.read_bytes()
        path.write_bytes(block + bytes(100))
        np.testing.assert_array_equal(read_image(path).array, sitk.GetArrayFromImage(scan()).transpose())
        path.write_bytes(block + bytes(100_000))
        with pytest.raises(InputError, match="goes on behind"):
            read_image(path)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_image(tmp_path / "none.nrrd")
