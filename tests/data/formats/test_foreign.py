"""What people give in place of a volume: told by its bytes, whatever its name, and the step that helps."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import shlex
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.io import savemat

from whqa.data.formats.volume_files import describe_foreign, read_grid, read_image, read_label
from whqa.errors import InputError
from whqa.structures import ACDC

ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
PLACE = np.diag([-1.5, -1.5, 2.0, 1.0])
DICOM = bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00\xc8\x00\x00\x00" + bytes(64)
IMPLICIT = b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100" + bytes(64)
EXPLICIT = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + bytes(64)


def zipped(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, block in content.items():
            archive.writestr(name, block)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return buffer.getvalue()


def written(save: Callable) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def figure(kind: str) -> bytes:
    from matplotlib import image

    return written(lambda buffer: image.imsave(buffer, np.zeros((4, 4, 3)), format=kind))


FILES: dict[str, tuple[bytes, str]] = {
    "DICOM": (DICOM, "a DICOM file; convert the series in its folder: dcm2niix -z y -o "),
    "DICOM without preamble": (EXPLICIT, "a DICOM file; .* dcm2niix -z y -o "),
    "DICOM, implicit": (IMPLICIT, "a DICOM file; .* dcm2niix -z y -o "),
    "DICOM, gzipped": (gzip.compress(DICOM), "a DICOM file; .* dcm2niix"),
    "DICOM zip": (zipped({"s/1": DICOM}), "an archive of DICOM files; convert them: unzip .* && dcm2niix -z y -o "),
    "PNG": (figure("png"), "a PNG picture; it has neither depth nor millimetres"),
    "JPEG": (figure("jpg"), "a JPEG picture"),
    "TIFF": (figure("tiff"), "a TIFF picture"),
    "GIF": (figure("gif"), "a GIF picture"),
    "BMP": (b"BM" + b"\x46\0\0\0" + bytes(4) + b"\x36" + bytes(80), "a BMP picture"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
    "zip": (zipped({"a.txt": b"x"}), "a zip archive; unpack it .*: unzip "),
    "damaged zip": (zipped({"a.txt": b"x"})[:40], "a damaged zip archive; download or copy it again"),
    "npz": (written(lambda b: np.savez(b, a=ARRAY)), "an archive of NumPy arrays"),
    "npy": (written(lambda b: np.save(b, ARRAY)), "a NumPy array; it states no place"),
    "tar": (tarred(), "a tar archive; unpack it .*: tar -xf "),
    "tar.gz": (gzip.compress(tarred()), "a tar archive"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7z archive; .*: 7z x "),
    "rar": (b"Rar!\x1a\x07\0" + bytes(99), "a rar archive; .*: unrar x "),
    "bzip2": (bz2.compress(bytes(999)), "compressed with bzip2; unpack it: bunzip2 -k "),
    "xz": (lzma.compress(bytes(999)), "compressed with xz; unpack it: xz -dk "),
    "twice": (gzip.compress(gzip.compress(bytes(999))), "compressed twice"),
    "MATLAB": (written(lambda b: savemat(b, {"a": ARRAY})), "a MATLAB file; .* niftiwrite"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file"),
    "MINC 2": (b"\x89HDF\r\n\x1a\n" + bytes(99) + b"minc-2.0", "a MINC 2 file; convert it: mnc2nii "),
    "MINC 1": (b"CDF\x01" + bytes(99), "a MINC 1 file; convert it: python -c "),
    "GIFTI": (b'<?xml version="1.0" encoding="UTF-8"?>\n<GIFTI Version="1.0">', "a GIFTI surface; it holds no voxels"),
    "TRK": (b"TRACK\0" + bytes(994), "a TrackVis file of fibres"),
    "TCK": (b"mrtrix tracks\ncount: 0\nEND\n", "an MRtrix file of fibres"),
    "MIF": (b"mrtrix image\ndim: 3,4,5\nEND\n", "an MRtrix image; convert it: mrconvert "),
    "VTK": (b"# vtk DataFile Version 3.0\nx\n", "a VTK file; convert it .*SimpleITK"),
    "VTI": (b'<VTKFile type="ImageData">', "a VTK XML file"),
    "Interfile": (b"!INTERFILE :=\n", "an Interfile header"),
    "PAR": (b"# === DATA DESCRIPTION FILE ====\n", "a PAR/REC header; convert it: parrec2nii -c "),
    "AFNI": (b"\ntype  = string-attribute\nname  = X\n", "an AFNI header; convert it: python -c "),
    "Bruker": (b"##TITLE=Parameter List\n", "a Bruker parameter file"),
    "HTML": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "a page of the web, .*; download or copy it again"),
    "XML": (b'<?xml version="1.0"?>\n<a/>', "an XML file"),
    "JSON": (b'{\n  "labels": {}\n}', "a JSON file; give the NIfTI file of the scan"),
    "CSV": (b"case,dice,hd95\na,0.9,3\n", "a table of text"),
    "git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
        "a pointer of git-lfs, .*: git -C .* lfs pull",
    ),
    "git-annex": (b"/annex/objects/MD5E-s12--00.nii.gz\n", "a pointer of git-annex; fetch it: git annex get "),
    "empty": (b"", "an empty file; download or copy it again"),
    "empty, gzipped": (gzip.compress(b""), "an empty file"),
    "zeros": (bytes(5000), "nothing but zeros, as an interrupted copy leaves"),
    "pickle": (b"\x80\x04\x95" + bytes(20), "a Python pickle"),
    "NRRD": (b"NRRD0004\ntype: int16\n", r"an NRRD file; name it so: mv .*\.nrrd"),
    "MetaImage": (b"ObjectType = Image\nNDims = 3\n", r"a MetaImage header; name it so: mv .*\.mha"),
}


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.dcm", "scan.nrrd", "it's a scan"])
@pytest.mark.parametrize("kind", FILES)
def test_files_are_told_by_their_bytes(tmp_path: Path, kind: str, name: str) -> None:
    block, words = FILES[kind]
    if name.endswith("nrrd") and kind == "NRRD":
        pytest.skip("its own name")
    if name.endswith("nrrd"):
        pytest.importorskip("SimpleITK", reason="the extra whqa[itk] is not installed")
    path = tmp_path / name
    path.write_bytes(block)
    for read in (read_grid, read_image, lambda p: read_label(p, ACDC)):
        with pytest.raises(InputError, match=rf"not an? (NIfTI|NRRD) file but {words}") as error:
            read(path)
        assert str(error.value).startswith(f"{path}: ")
        assert "\n" not in str(error.value)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a volume but a folder without any volume; give one file"):
        read_grid(tmp_path)
    (tmp_path / "b.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"not a volume but a folder; give one file, such as .*b\.nii\.gz"):
        read_image(tmp_path)
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "IM0001").write_bytes(DICOM)
    folder = shlex.quote(str(tmp_path))
    with pytest.raises(InputError) as error:
        read_grid(tmp_path)
    assert str(error.value).endswith(
        f"a folder of DICOM files; convert the series in its folder: dcm2niix -z y -o {folder} {folder}"
    )


def save_mgh(path: Path) -> None:
    nib.save(nib.MGHImage(ARRAY, PLACE), path)


def save_pair(path: Path) -> None:
    nib.save(nib.Nifti1Pair(ARRAY, PLACE), path)


def save_analyze(path: Path) -> None:
    nib.save(nib.AnalyzeImage(ARRAY, PLACE), path)


def save_npy(path: Path) -> None:
    np.save(path, ARRAY)


@pytest.mark.parametrize(
    ("name", "save", "words"),
    [
        ("a.mgz", save_mgh, "a FreeSurfer volume"),
        ("a.mgh", save_mgh, "a FreeSurfer volume"),
        ("a.hdr", save_pair, r"the header of a NIfTI pair \(.hdr and .img\)"),
        ("a.img", save_pair, r"the voxels of .*a\.hdr"),
        ("a.hdr", save_analyze, "an ANALYZE 7.5 header, which does not tell left from right"),
    ],
)
def test_what_nibabel_reads_is_converted_by_the_command(tmp_path: Path, name: str, save: Callable, words: str) -> None:
    save(tmp_path / name)
    with pytest.raises(InputError, match=rf"not a NIfTI file but {words}.*convert it: python -c ") as error:
        read_grid(tmp_path / name)
    line = str(error.value).partition("convert it: python ")[2].removesuffix(" and look at its sides")
    subprocess.run([sys.executable, *shlex.split(line)], check=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array, ARRAY)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.uint64, np.float16, np.float64])
def test_arrays_of_every_kind_are_converted_by_the_command(tmp_path: Path, kind: type) -> None:
    values = (np.indices((4, 5, 6)).sum(axis=0) % 2).astype(kind)
    np.save(tmp_path / "a.npy", values)
    nib.save(nib.Nifti1Image(values.astype(np.uint8), PLACE), tmp_path / "scan.nii.gz")
    with pytest.raises(InputError, match="a NumPy array") as error:
        read_grid(tmp_path / "a.npy")
    line = re.search(r"python (-c .*)", str(error.value))
    assert line is not None
    words = shlex.split(line[1].replace("IMAGE.nii.gz", str(tmp_path / "scan.nii.gz")))
    subprocess.run([sys.executable, *words[:5]], check=True)
    np.testing.assert_array_equal(read_image(Path(words[4])).array, values.astype(np.float64))


def test_voxels_without_their_header(tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(ARRAY.tobytes()[1:])
    assert describe_foreign(tmp_path / "a.img") == (
        "voxels without the header that belongs to them (a.hdr); put it beside them"
    )


def test_noise_is_called_nothing(tmp_path: Path) -> None:
    """The reader says then what it expected; a wrong name would send people astray."""
    rng = np.random.default_rng(0)
    for size in (3, 40, 400, 4000):
        for _ in range(40):
            (tmp_path / "a.nii").write_bytes(b"\x7f" + rng.bytes(size))
            assert describe_foreign(tmp_path / "a.nii") is None


def test_volumes_under_another_format_s_name_need_no_simpleitk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    nib.save(nib.Nifti1Image(np.arange(27.0).reshape(3, 3, 3), np.eye(4)), tmp_path / "a.nii")
    plain = (tmp_path / "a.nii").read_bytes()
    for name, content, says in (
        ("b.nrrd", plain, r"but a NIfTI file; name it so: mv .*b\.nrrd .*b\.nii$"),
        ("b.mha", gzip.compress(plain), r"but a NIfTI file; name it so: mv .*b\.mha .*b\.nii\.gz$"),
        ("c.nrrd", b"# vtk DataFile Version 3.0\n", "but a VTK file"),
        ("._a.nii", b"\0\5\x16\7\0\2\0\0Mac OS X", r"macOS .*give the file itself, .*/a\.nii"),
        ("Thumbs.db", bytes.fromhex("d0cf11e0a1b11ae1"), "Windows thumbnail"),
    ):
        (tmp_path / name).write_bytes(content + bytes(600 if content != plain else 0))
        with pytest.raises(InputError, match=says):
            read_grid(tmp_path / name)
