"""A DICOM series against SimpleITK's reader, and everything that keeps a folder from being one volume."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from whqa.data.dicom.series import DicomImage, read_series
from whqa.errors import InputError

Array = np.ndarray


def _seen_by_itk(folder: Path) -> tuple[Array, Array]:
    """Voxels (X, Y, Z) and affine, voxel -> RAS mm."""
    sitk = pytest.importorskip("SimpleITK", reason="the extra whqa[itk] is not installed")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


def _packed(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"scan/{file.name}")
    return path


def test_a_series_lies_where_simpleitk_says(dicom_files: ModuleType, tmp_path: Path) -> None:
    array, affine = dicom_files.oblique()
    folder = dicom_files.write_series(tmp_path / "scan", array, affine)
    (folder / "notes.txt").write_text("no DICOM")
    found = read_series(folder)
    np.testing.assert_array_equal(found.array, array)
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    assert found.array.dtype == np.float32
    assert found.modality == "ct"
    (folder / "notes.txt").unlink()
    voxels, place = _seen_by_itk(folder)
    np.testing.assert_array_equal(found.array, voxels)
    np.testing.assert_allclose(found.affine, place, atol=1e-5)


def test_an_archive_and_sub_folders_are_the_same_series(dicom_files: ModuleType, tmp_path: Path) -> None:
    array, affine = dicom_files.oblique()
    folder = dicom_files.write_series(tmp_path / "study" / "scan", array, affine)
    for path in (_packed(folder, tmp_path / "scan.zip"), folder.parent):
        found = read_series(path)
        np.testing.assert_array_equal(found.array, array)
        np.testing.assert_allclose(found.affine, affine, atol=1e-5)


def test_a_multi_frame_file_with_frames_in_any_order(dicom_files: ModuleType, tmp_path: Path) -> None:
    array, affine = dicom_files.oblique()
    order = [3, 0, 6, 1, 2, 5, 4]
    found = read_series(dicom_files.write_enhanced(tmp_path / "scan.dcm", array, affine, order))
    np.testing.assert_array_equal(found.array, array)
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)
    assert found.source.places == tuple(order)


def test_a_tilted_gantry_keeps_its_shear(dicom_files: ModuleType, tmp_path: Path) -> None:
    array, affine = dicom_files.oblique()
    affine[:3, 2] += 0.4 * affine[:3, 1]
    found = read_series(dicom_files.write_series(tmp_path / "scan", array, affine))
    np.testing.assert_array_equal(found.array, array)
    np.testing.assert_allclose(found.affine, affine, atol=1e-5)


def test_positions_rounded_to_a_tenth_are_one_stack(dicom_files: ModuleType, tmp_path: Path) -> None:
    def rounded(data: Any, k: int) -> None:
        data.ImagePositionPatient = [data.ImagePositionPatient[0], data.ImagePositionPatient[1], f"{k * 0.75:.1f}"]

    affine = np.diag([-0.7, -0.7, 0.75, 1.0])
    array = np.random.default_rng(0).integers(0, 99, (6, 5, 40)).astype(np.float32)
    found = read_series(dicom_files.write_series(tmp_path / "scan", array, affine, rounded))
    np.testing.assert_array_equal(found.array, array)
    np.testing.assert_allclose(found.affine, affine, atol=0.01)


def _dropped(*places: int) -> Any:
    def change(data: Any, k: int) -> None:
        if k in places:
            data.SOPInstanceUID = ""

    return change


def _uneven(data: Any, k: int) -> None:
    data.ImagePositionPatient = [0, 0, (0, 1, 2.5, 3.1, 4.4, 5, 7)[k]]


def _turned(data: Any, k: int) -> None:
    if k == 2:
        data.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]


def _without_place(data: Any, k: int) -> None:
    del data.ImagePositionPatient


def _coloured(data: Any, k: int) -> None:
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0


def _unknown_syntax(data: Any, k: int) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import HTJ2KLossless

    data.file_meta.TransferSyntaxUID = HTJ2KLossless
    data.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])


def _torn(data: Any, k: int) -> None:
    if k == 4:
        data.PixelData = data.PixelData[:-40]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_dropped(3), r"1 slice\(s\) are missing, the first between IM0014 and IM0028, 5 mm apart .* 2.5; export the "),
        (_dropped(1, 4, 5), r"3 slice\(s\) are missing"),
        (_dropped(*range(1, 7)), "one slice"),
        (_uneven, r"slices lie 0.562 to 1.87 mm apart; convert the series in its folder: dcm2niix .*_Eq"),
        (_turned, "several orientations, 6 like IM0000 and 1 others like IM0014; move the 1 into a folder"),
        (_without_place, "does not say where it lies"),
        (_coloured, "a picture in colours"),
        (_unknown_syntax, "compressed by High-Throughput JPEG 2000 .*no decoder is installed; export it without"),
        (_torn, r"IM0028: a damaged DICOM file \(.*\); export or copy it again"),
    ],
)
def test_what_is_no_volume_is_refused_with_cause_and_remedy(
    dicom_files: ModuleType, tmp_path: Path, change: Any, says: str
) -> None:
    array, affine = dicom_files.oblique()
    folder = dicom_files.write_series(tmp_path / "scan", array, affine, change)
    with pytest.raises(InputError, match=says) as error:
        read_series(folder)
    assert str(error.value).startswith(str(folder))


def test_a_slice_that_is_there_twice(dicom_files: ModuleType, tmp_path: Path) -> None:
    """A copy of a file is left out; another slice at its place is refused, and so are phases."""
    array, affine = dicom_files.oblique()
    folder = dicom_files.write_series(tmp_path / "scan", array, affine)
    shutil.copy(folder / "IM0007", folder / "copy")
    np.testing.assert_array_equal(read_series(folder).array, array)
    dicom_files.write_series(folder / "more", array, affine, _dropped(*range(1, 7)))
    with pytest.raises(InputError, match="IM0000 and more/IM0000 lie at the same place; remove one"):
        read_series(folder)
    dicom_files.write_series(folder / "more", array, affine)
    with pytest.raises(InputError, match=r"holds 2 volumes of 7 slices in one series.*dcm2niix"):
        read_series(folder)


def test_several_series_are_named_with_what_chooses_one(dicom_files: ModuleType, tmp_path: Path) -> None:
    array, affine = dicom_files.oblique()
    folder = tmp_path / "study"
    dicom_files.write_series(folder / "a", array, affine)
    dicom_files.write_series(folder / "b", array + 1, affine, series="9")
    says = r'holds 2 series; choose one: --series 7 \(CT "series 7" 7 slice\(s\)\); --series 9 \(CT "series 9"'
    with pytest.raises(InputError, match=says):
        read_series(folder)
    for chosen in ("9", "1.2.3.9"):
        np.testing.assert_array_equal(read_series(folder, chosen).array, array + 1)
    with pytest.raises(InputError, match="--series 8 is none of its series; there are --series 7 "):
        read_series(folder, "8")
    of_mask = read_series(folder, meant=["1.2.3.9", "1.2.3.1000"])
    np.testing.assert_array_equal(of_mask.array, array + 1)
    assert "the one that the mask names was taken" in of_mask.notes[0]


def test_a_localizer_beside_the_scan_is_left_out(dicom_files: ModuleType, tmp_path: Path) -> None:
    def scout(data: Any, k: int) -> None:
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    array, affine = dicom_files.oblique()
    dicom_files.write_series(tmp_path / "a", array, affine)
    dicom_files.write_series(tmp_path / "b", array, affine, scout, series="1")
    found = read_series(tmp_path)
    assert found.source.series == "1.2.3.7"
    assert "localizers were left out" in found.notes[0]


def test_files_without_an_image_are_named(dicom_files: ModuleType, tmp_path: Path) -> None:
    path = dicom_files.write_structures(tmp_path / "rt.dcm", [])
    with pytest.raises(InputError, match=r"no CT or MR image \(RT Structure Set Storage\); give the folder"):
        read_series(path)
    array, affine = dicom_files.oblique()
    folder = dicom_files.write_series(tmp_path / "scan", array, affine)
    with pytest.raises(InputError, match=f"one slice of a series; give its folder, {folder}"):
        read_series(folder / "IM0000")


@pytest.mark.parametrize(
    "name",
    [
        *("MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_expb"),
        *("MR_small_jp2klossless", "MR_small_jpeg_ls_lossless"),
    ],
)
def test_transfer_syntaxes_of_real_files(dicom_files: ModuleType, tmp_path: Path, name: str) -> None:
    """pydicom's own test file, a second slice beside it: all syntaxes give the voxels of the plain one."""
    import pydicom
    from pydicom.data import get_testdata_file

    arrays = []
    for this in ("MR_small", name):
        folder = tmp_path / this
        folder.mkdir(exist_ok=True)
        for k in range(2):
            data = pydicom.dcmread(get_testdata_file(f"{this}.dcm"))
            data.SOPInstanceUID += f".{k}"
            data.ImagePositionPatient[2] += 2.0 * k
            data.save_as(folder / f"{k}")
        found = read_series(folder)
        assert isinstance(found, DicomImage)
        assert found.modality == "mr"
        arrays.append(found.array)
    np.testing.assert_array_equal(*arrays)
    assert np.ptp(arrays[0]) > 100


def test_jpeg_lossless_as_archives_store_it_has_a_decoder(dicom_files: ModuleType) -> None:
    """We lean on gdcm for the syntax of most clinical archives, which pydicom alone cannot unpack."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

    pytest.importorskip("gdcm", reason="the extra whqa[dicom] is not installed")
    assert all(get_decoder(uid).is_available for uid in (JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless))
