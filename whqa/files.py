"""Files that appear whole or not at all: everything is written beside its target, then renamed."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import shlex
import stat
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import numpy.typing as npt

from whqa.errors import InputError

COPY_AGAIN = "copy or download it again"
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)
# Letters of what a library says of a damaged file, which may quote the file.
_LONGEST_REASON = 200


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` (same suffixes); on success it replaces `path`, on error it is removed.

    Raises:
        OSError: the disk does not take it; `filename` is `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{uuid.uuid4().hex[:8]}.{path.name}"
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        # nobody knows the temporary name, and what a disk says while it is written to comes without any
        bare = error.errno is not None and error.filename is None
        if bare or error.filename == str(temporary) or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def system_trouble(error: OSError, place: object) -> str | None:
    """One line about a path that cannot be used; None for what may be a fault of whqa.

    Args:
        error: of the operating system.
        place: what to name where the error names no path.
    """
    if error.errno in _TOO_MANY_FILES:
        return f"{error.filename or place}: {error.strerror}; allow more: ulimit -n 4096"
    full, locked = error.errno in (errno.ENOSPC, errno.EDQUOT), error.errno == errno.EROFS
    if error.errno is None or not (error.filename or full or locked):
        return None
    return f"{error.filename or place}: {error.strerror}; {'free some space or ' if full else ''}choose another path"


def remedy_of(error: BaseException, path: Path) -> str:
    """What helps where a file of somebody else's could not be read: another copy, or the leave to read this one."""
    return f"let it be read: chmod u+r {shlex.quote(str(path))}" if isinstance(error, PermissionError) else COPY_AGAIN


def as_named(path: str | Path) -> Path:
    """The absolute path whose last parts are those that the user named: a symbolic link keeps its own name."""
    return Path(os.path.abspath(path))


def write_arrays(path: Path, **arrays: npt.ArrayLike) -> None:
    """Write arrays by name as a compressed .npz, atomically; the same arrays make the same bytes."""
    # zlib's level 1 takes half the time of numpy's 6, for a tenth more bytes of masks and softmax
    with atomic_path(path) as temporary, ZipFile(temporary, "w", ZIP_DEFLATED, compresslevel=1) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(values), allow_pickle=False)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity are refused because JSON has no such numbers."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextmanager
def reading(path: Path, what: str, remedy: str) -> Iterator[None]:
    """For reading a file that whqa wrote: whatever is wrong with it becomes one line that says what to do.

    Args:
        path: of the file.
        what: it should be, such as "a calibration".
        remedy: what puts it right, the end of the line.

    Raises:
        InputError: the file is missing, torn, or something else; too many open files and a full memory are no fault of
            the file and pass.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {remedy}") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _TOO_MANY_FILES:
            raise
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not readable as {what} ({reason[:_LONGEST_REASON]}); {remedy}") from None


def read_json(path: Path, remedy: str) -> Any:
    """Read JSON.

    Raises:
        InputError: the file is missing or is not JSON; ends with `remedy`.
    """
    with reading(path, "JSON", remedy):
        return json.loads(path.read_text(encoding="utf-8"))


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV table atomically; nan becomes an empty field, floats keep nine significant digits."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({k: _text(v) for k, v in row.items()} for row in rows)


ONLY_EMPTY_IS_MISSING: dict[str, Any] = {"keep_default_na": False, "na_values": [""]}
"""For pandas, which else takes a patient called NA for a missing value of a table by `write_rows`."""


def _text(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.9g}"
    return value


def is_text(path: Path) -> bool:
    """Whether a path can be written into a text: names on a disk may be any bytes."""
    try:
        return bool(str(path).encode("utf-8"))
    except UnicodeEncodeError:
        return False


def printable(text: str) -> str:
    """With ? for what is not: names come from files, and a terminal obeys control characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


def sha256(path: Path) -> str:
    """Hexadecimal digest of a file's bytes, read in pieces.

    Raises:
        InputError: there is no such file, or it cannot be read.
    """
    try:
        # to open a pipe would wait for ever
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: not a regular file; give a file")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; correct its name") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); correct its permissions") from None
