"""What a file is that is no volume of a format that is read here: told by its bytes, with the one step that helps.

Names are believed only where bytes say nothing: voxels that lie beside a header of their own.
"""

from __future__ import annotations

import itertools
import re
import shlex
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from whqa.data.formats.advice import python_line, written_beside
from whqa.data.formats.file_names import is_volume, stem
from whqa.data.formats.stream import first_bytes
from whqa.errors import InputError

_HEAD_BYTES = 1 << 16
_FILES_LOOKED_AT = 20
_AGAIN = "download or copy it again"
_SERIES, _ARCHIVE = "a folder of DICOM files", "an archive of DICOM files"
_BY_NIBABEL = "n.save(n.load(sys.argv[1]), sys.argv[2])"
_BY_ITK = "s.WriteImage(s.ReadImage(sys.argv[1]), sys.argv[2])"
_OF_ARRAY = (
    "import numpy as p; a = p.load(sys.argv[1]); a = a.astype('i4' if a.dtype.kind in 'biu' else 'f4'); "
    "n.save(n.Nifti1Image(a, n.load(sys.argv[2]).affine), sys.argv[3])"
)

_Step = Callable[[Path], str]


def _shell(*words: str | Path) -> str:
    return shlex.join(str(word) for word in words)


def convert_dicom(path: Path) -> str:
    """The command that makes NIfTI files of the series in a folder, or in that of a file, in words."""
    if path.is_file() and first_bytes(path, 4, inflate=False) == b"PK\3\4":
        folder = path.with_suffix("")
        unpack, convert = ("unzip", path, "-d", folder), ("dcm2niix", "-z", "y", "-o", folder, folder)
        return f"convert them: {_shell(*unpack)} && {_shell(*convert)}"
    folder = path if path.is_dir() else path.parent
    return f"convert the series in its folder: {_shell('dcm2niix', '-z', 'y', '-o', folder, folder)}"


def _nibabel(path: Path) -> str:
    target = path.with_name(f"{path.name.partition('.')[0]}.nii.gz")
    return f"convert it: {python_line(_BY_NIBABEL, path, target)}"


def _itk(path: Path) -> str:
    target = path.with_name(f"{path.name.partition('.')[0]}.nii.gz")
    return f'convert it (pip install "whqa[itk]"): {python_line(_BY_ITK, path, target, library="SimpleITK as s")}'


def _array(path: Path) -> str:
    line = python_line(_OF_ARRAY, path, Path("IMAGE.nii.gz"), written_beside(path, "volume"))
    return f"it states no place, save it with that of the image: {line}"


def _renamed(ending: str) -> _Step:
    return lambda path: f"name it so: {_shell('mv', path, path.with_name(stem(path.name) + ending))}"


def _named_nifti(path: Path) -> str:
    packed = first_bytes(path, 2, inflate=False) == b"\x1f\x8b"
    return _renamed(".nii.gz" if packed else ".nii")(path)


def _beside_itself(path: Path) -> str:
    return f"give the file itself, {path.with_name(path.name.removeprefix('._'))}"


def _run(before: str, *words: str) -> _Step:
    """A program with the file as its last argument, or in place of `{}`."""
    return lambda path: f"{before}: {_shell(*(str(path) if w == '{}' else w for w in words))}"


def _said(step: str) -> _Step:
    return lambda path: step


def _fetched(path: Path) -> str:
    return f"fetch it: {_shell('git', '-C', path.absolute().parent, 'lfs', 'pull')}"


_PICTURE = _said("it has neither depth nor millimetres; export the scan itself, as NIfTI or DICOM")
_SURFACE = _said("it holds no voxels; give the label map that it was made from")
_NO_SCAN = _said("give the NIfTI file of the scan")
_UNPACK = "unpack it and give a volume of its content"

# Where the bytes stand, the bytes, what has them, and what helps.
_MAGIC: tuple[tuple[int, bytes, str, _Step], ...] = (
    (128, b"DICM", "a DICOM file", convert_dicom),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG picture", _PICTURE),
    (0, b"\xff\xd8\xff", "a JPEG picture", _PICTURE),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture", _PICTURE),
    (0, b"GIF8", "a GIF picture", _PICTURE),
    (0, b"II*\0", "a TIFF picture", _PICTURE),
    (0, b"MM\0*", "a TIFF picture", _PICTURE),
    (0, b"II+\0", "a TIFF picture", _PICTURE),
    (0, b"MM\0+", "a TIFF picture", _PICTURE),
    (8, b"WEBP", "a WebP picture", _PICTURE),
    (8, b"AVI ", "a film", _PICTURE),
    (4, b"ftyp", "a film or picture", _PICTURE),
    (0, b"%PDF", "a PDF document", _NO_SCAN),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", _run(_UNPACK, "7z", "x", "{}")),
    (0, b"Rar!\x1a\x07", "a rar archive", _run(_UNPACK, "unrar", "x", "{}")),
    (257, b"ustar", "a tar archive", _run(_UNPACK, "tar", "-xf", "{}")),
    (0, b"BZh", "compressed with bzip2", _run("unpack it", "bunzip2", "-k", "{}")),
    (0, b"\xfd7zXZ\0", "compressed with xz", _run("unpack it", "xz", "-dk", "{}")),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", _run("unpack it", "zstd", "-d", "{}")),
    (0, b"\x04\x22\x4d\x18", "compressed with lz4", _run("unpack it", "lz4", "-d", "{}")),
    (0, b"\x1f\x9d", "compressed with compress", _run("unpack it", "uncompress", "-k", "{}")),
    (0, b"\x1f\x8b", "compressed twice, or a gzip file of something else", _run("unpack it", "gunzip", "-k", "{}")),
    (0, b"\x93NUMPY", "a NumPy array", _array),
    (0, b"MATLAB ", "a MATLAB file", _said("write it from MATLAB with niftiwrite, with the place of the scan")),
    (0, b"CDF\x01", "a MINC 1 file", _nibabel),
    (0, b"CDF\x02", "a MINC 1 file", _nibabel),
    (0, b"TRACK\0", "a TrackVis file of fibres", _SURFACE),
    (0, b"mrtrix tracks", "an MRtrix file of fibres", _SURFACE),
    (0, b"mrtrix image", "an MRtrix image", lambda path: _converted(path, "mrconvert")),
    (0, b"# vtk DataFile", "a VTK file", _itk),
    (0, b"<VTKFile", "a VTK XML file", _said("save it from ParaView or 3D Slicer as NIfTI")),
    (0, b"!INTERFILE", "an Interfile header", _said("save it from the program that wrote it as NIfTI or DICOM")),
    (0, b"\0\5\x16\7\0\2\0\0", "what macOS writes beside a file (its name begins with ._)", _beside_itself),
    (0, b"\0\0\0\1Bud1", "a folder's view of macOS (.DS_Store)", _NO_SCAN),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a Windows thumbnail cache or a document of Office", _NO_SCAN),
    (344, b"n+1\0", "a NIfTI file", _named_nifti),
    (4, b"n+2\0", "a NIfTI file", _named_nifti),
    (0, b"NRRD000", "an NRRD file", _renamed(".nrrd")),
    (0, b"ObjectType", "a MetaImage header", _renamed(".mha")),
    (0, b"NDims", "a MetaImage header", _renamed(".mha")),
    (0, b"MATRIX7", "an ECAT file", _nibabel),
    (0, b"SIMPLE  =", "a FITS file", _said("it is no format of medical scans; export the scan as NIfTI")),
    (0, b"##TITLE=", "a Bruker parameter file", _said("convert the study with dicomifier or bruker2nifti")),
    (0, b"solid ", "an STL surface", _SURFACE),
    (0, b"ply\n", "a PLY surface", _SURFACE),
    (0, b"\xff\xff\xfe", "a FreeSurfer surface", _SURFACE),
    (
        0,
        b"version https://git-lfs",
        "a pointer of git-lfs, not the file itself",
        _fetched,
    ),
    (0, b"PAR1", "a Parquet table", _NO_SCAN),
    (0, b"SQLite format 3", "a database", _NO_SCAN),
    (0, b"\x80\x02", "a Python pickle", _NO_SCAN),
    (0, b"\x80\x03", "a Python pickle", _NO_SCAN),
    (0, b"\x80\x04", "a Python pickle", _NO_SCAN),
    (0, b"\x80\x05", "a Python pickle", _NO_SCAN),
)
# Of text, behind what may stand before it.
_TEXT: tuple[tuple[bytes, str, _Step], ...] = (
    (rb"<!doctype html|<html", "a page of the web, as a failed download leaves", _said(_AGAIN)),
    (rb"(<\?xml[^>]*>\s*)?(<!doctype gifti[^>]*>\s*)?<gifti", "a GIFTI surface", _SURFACE),
    (rb"<\?xml", "an XML file", _NO_SCAN),
    (rb"# === data description file", "a PAR/REC header", _run("convert it", "parrec2nii", "-c", "{}")),
    (rb"type *= *(string|integer|float)-attribute", "an AFNI header", _nibabel),
    (rb"(\.\./)*(\.git)?/annex/objects", "a pointer of git-annex", _run("fetch it", "git", "annex", "get", "{}")),
    (rb"[\[{]\s*([\"\]}\[{]|-?\d)", "a JSON file", _NO_SCAN),
    (rb"\w[^\n,;\t]*([,;\t][^\n,;\t]*)+\r?\n\w", "a table of text", _NO_SCAN),
)
_BESIDE = {".img": ".hdr", ".rec": ".par", ".brik": ".head", ".raw": ".mhd", ".zraw": ".mhd"}
_VR = rb"AE|AS|AT|CS|DA|DS|DT|FL|FD|IS|LO|LT|OB|OF|OW|PN|SH|SL|SQ|SS|ST|TM|UI|UL|UN|US|UT"


def describe_foreign(path: Path) -> str | None:
    """What a file or folder is that is no volume, and what to do with it, or None where its bytes do not tell.

    The text continues "not a NIfTI file but ...". It is for files that a reader has refused: sound volumes of the
    formats that are read have no place here.
    """
    if path.is_dir():
        return _folder(path)
    try:
        raw = first_bytes(path, _HEAD_BYTES, inflate=False)
        head = first_bytes(path, _HEAD_BYTES)
    except InputError:
        return None
    if not head:
        return f"an empty file; {_AGAIN}"
    found = _zip(path, raw) or _known(path, head) or _text(path, head) or _voxels_beside(path)
    if found:
        return found
    if not head.strip(b"\0"):
        return f"nothing but zeros, as an interrupted copy leaves; {_AGAIN}"
    return None


def holds_dicom(path: Path) -> bool:
    """Whether a file, what lies in a folder, or what a zip archive holds, is DICOM; told by the first files.

    Files that cannot be opened are none.
    """
    if path.is_dir():
        return (_folder(path) or "").startswith(_SERIES)
    try:
        head = first_bytes(path, _HEAD_BYTES, inflate=False)
    except InputError:
        return False
    return is_dicom_head(head) or (_zip(path, head) or "").startswith(_ARCHIVE)


def refuse_folder(path: Path) -> None:
    """Whether `path`, which was given as a volume, is a folder.

    Raises:
        InputError: it is; the text says what lies in it and what to do.
    """
    if path.is_dir():
        raise InputError(f"{path}: not a volume but {_folder(path)}")


def _folder(path: Path) -> str:
    try:
        files = sorted(itertools.islice((p for p in path.rglob("*") if p.is_file()), 200))
    except OSError:
        return "a folder; give one file"
    for file in [f for f in files if f.name == "DICOMDIR"] + files[:_FILES_LOOKED_AT]:
        try:
            head = first_bytes(file, 256, inflate=False)
        except InputError:
            continue
        if is_dicom_head(head):
            return f"{_SERIES}; {convert_dicom(path)}"
        if file.name in ("2dseq", "acqp", "visu_pars"):
            return "a Bruker study; convert it with dicomifier or bruker2nifti"
    volume = next((file for file in files if is_volume(file.name)), None)
    return f"a folder; give one file, such as {volume}" if volume else "a folder without any volume; give one file"


def _zip(path: Path, raw: bytes) -> str | None:
    if raw[:4] not in (b"PK\3\4", b"PK\5\6"):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:200]
            if names and all(name.endswith(".npy") for name in names):
                return "an archive of NumPy arrays; save the volume in it as NIfTI, with the affine of the image"
            for name in [n for n in names if not n.endswith("/")][:_FILES_LOOKED_AT]:
                with archive.open(name) as member:
                    if is_dicom_head(member.read(256)):
                        return f"{_ARCHIVE}; {convert_dicom(path)}"
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError, EOFError):
        return f"a damaged zip archive; {_AGAIN}"
    return f"a zip archive; {_UNPACK}: {_shell('unzip', path)}"


def _known(path: Path, head: bytes) -> str | None:
    for start, magic, what, step in _MAGIC:
        if head[start : start + len(magic)] == magic:
            return f"{what}; {step(path)}"
    if is_dicom_head(head):
        return f"a DICOM file; {convert_dicom(path)}"
    if head[:8] == b"\x89HDF\r\n\x1a\n" or head[512:520] == b"\x89HDF\r\n\x1a\n":
        if b"minc-2.0" in head:
            return f"a MINC 2 file; {_converted(path, 'mnc2nii')}"
        return "an HDF5 file; save the volume in it as NIfTI, with the affine of the scan"
    if head[:2] == b"BM" and len(head) > 26 and head[6:10] == bytes(4):
        return f"a BMP picture; {_PICTURE(path)}"
    if len(head) >= 284 and head[:4] == b"\0\0\0\1" and struct.unpack(">i", head[20:24])[0] in (0, 1, 3, 4):
        return f"a FreeSurfer volume (MGH); {_nibabel(path)}"
    return _header_alone(path, head)


def _header_alone(path: Path, head: bytes) -> str | None:
    for mark, (size, place) in itertools.product("<>", ((348, 344), (540, 4))):
        if len(head) < size or struct.unpack(f"{mark}i", head[:4])[0] != size:
            continue
        if head[place : place + 3] in (b"ni1", b"ni2"):
            return f"the header of a NIfTI pair (.hdr and .img); {_nibabel(path)}"
        if size == 348 and 1 <= struct.unpack(f"{mark}h", head[40:42])[0] <= 7 and head[344:348] == bytes(4):
            return f"an ANALYZE 7.5 header, which does not tell left from right; {_nibabel(path)} and look at its sides"
    return None


def _text(path: Path, head: bytes) -> str | None:
    text = head[:4096].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if re.search(rb"[\x00-\x08\x0e-\x1f]", text):
        return None
    for pattern, what, step in _TEXT:
        if re.match(pattern, text):
            return f"{what}; {step(path)}"
    return None


def _voxels_beside(path: Path) -> str | None:
    """Bare voxels, whose header is another file of the same stem."""
    bare = path.name.lower().removesuffix(".gz")
    ending = _BESIDE.get(Path(bare).suffix)
    if ending is None:
        return None
    wanted = Path(bare).stem + ending
    header = next((p for p in path.parent.iterdir() if p.name.lower().removesuffix(".gz") == wanted), None)
    if header is None:
        return f"voxels without the header that belongs to them ({Path(path.name).stem}{ending}); put it beside them"
    return f"the voxels of {header}; {(_itk if ending == '.mhd' else _nibabel)(header)}"


def _converted(path: Path, program: str) -> str:
    return f"convert it: {_shell(program, path, path.with_name(stem(path.name).partition('.')[0] + '.nii.gz'))}"


def is_dicom_head(head: bytes) -> bool:
    """Whether a file that begins so (256 bytes) is DICOM, with or without a preamble.

    Without one, the first element is of group 2 or 8, of explicit or implicit type.
    """
    if head[128:132] == b"DICM":
        return True
    if head[:2] not in (b"\x02\0", b"\x08\0") or head[3:4] != b"\0" or len(head) < 16:
        return False
    return re.match(_VR, head[4:6]) is not None or (head[6:8] == bytes(2) and head[4] <= 64 and head[2] <= 0x20)
