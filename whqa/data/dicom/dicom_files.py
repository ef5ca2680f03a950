"""The DICOM files of a folder, of a zip archive, or one alone; each is opened for its header, and later for its voxels.

pydicom is optional, so it is imported where it is used.
"""

from __future__ import annotations

import hashlib
import io
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from whqa.data.formats.volume_files import describe_foreign, holds_dicom, is_dicom_head
from whqa.data.sources.listing import list_files
from whqa.errors import InputError
from whqa.files import sha256

EXTRA = 'pip install "whqa[dicom]"'
"""What installs the readers of DICOM."""
_LARGEST_MEMBER = 1 << 32
_HEAD_BYTES = 256


@dataclass(frozen=True, eq=False)
class DicomFile:
    """One file: its name for messages, its header without voxels (a pydicom Dataset), and how it is opened again."""

    name: str
    header: Any
    open: Callable[[], BinaryIO]


def read_headers(path: Path) -> list[DicomFile]:
    """The headers of all DICOM files below a folder, in a zip archive or of one file; other files are left out.

    Raises:
        InputError: pydicom is not installed, a file is damaged, or there is none.
    """
    require_dicom(path)
    import pydicom

    found = []
    for name, opened in _members(path):
        with opened() as stream:
            head = stream.read(_HEAD_BYTES)
            if not is_dicom_head(head):
                continue
            stream.seek(0)
            try:
                with quiet():
                    header = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
            except Exception as error:
                # whatever a damaged file makes of the reader; without DICM it may be something else
                if head[128:132] != b"DICM":
                    continue
                raise damaged(f"{path}: {name}" if name != path.name else f"{path}", error) from None
        found.append(DicomFile(name, header, opened))
    if not found:
        raise InputError(f"{path}: no DICOM files but {describe_foreign(path) or 'something unknown'}")
    return found


def with_voxels(file: DicomFile) -> Any:
    """The whole Dataset of a file."""
    import pydicom

    with quiet(), file.open() as stream:
        return pydicom.dcmread(stream, force=True)


def damaged(where: str, error: Exception) -> InputError:
    """What a file is called that its reader gave up on."""
    why = " ".join(str(error).split())[:150] or type(error).__name__
    return InputError(f"{where}: a damaged DICOM file ({why}); export or copy it again")


@contextmanager
def told_as_damaged(path: Path) -> Iterator[None]:
    """Values of a header are parsed when they are asked for: whatever that raises is the file's fault, in one line."""
    try:
        with quiet():
            yield
    except InputError:
        raise
    except Exception as error:
        raise damaged(str(path), error) from None


def folder_digest(folder: Path) -> str:
    """Hexadecimal digest of the names and bytes of all files below a folder."""
    lines = [f"{path.relative_to(folder).as_posix()} {sha256(path)}\n" for path in _files_below(folder)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def require_dicom(path: Path) -> None:
    """Whether the extra is installed.

    Raises:
        InputError: it is not.
    """
    try:
        import highdicom  # noqa: F401
        import pydicom  # noqa: F401
    except ImportError:
        raise InputError(f"{path}: DICOM is read by an extra of whqa, which is not installed; {EXTRA}") from None


@contextmanager
def quiet() -> Iterator[None]:
    """pydicom's complaints about odd but readable values stay off standard error."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _members(path: Path) -> Iterator[tuple[str, Callable[[], BinaryIO]]]:
    if path.is_dir():
        for file in _files_below(path):
            yield file.relative_to(path).as_posix(), lambda file=file: file.open("rb")  # type: ignore[misc]
        return
    if not holds_dicom(path) or not zipfile.is_zipfile(path):
        yield path.name, lambda: path.open("rb")
        return
    archive = zipfile.ZipFile(path)
    for info in sorted(archive.infolist(), key=lambda member: member.filename):
        if info.is_dir():
            continue
        if info.file_size > _LARGEST_MEMBER:
            raise InputError(
                f"{path}: {info.filename} unpacks to {info.file_size:,} bytes; unpack it and give the folder"
            )
        yield info.filename, lambda info=info: io.BytesIO(_unpacked(path, archive, info))  # type: ignore[misc]


def _unpacked(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(member)
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, ValueError, EOFError) as error:
        why = " ".join(str(error).split())[:150]
        raise InputError(f"{path}: {member.filename} cannot be unpacked ({why}); pack or copy it again") from None


def _files_below(folder: Path) -> list[Path]:
    return list(list_files(folder, endings=None).files.values())
