"""The bytes of a file that may be gzipped, through a window of fixed size.

A broken or hostile file may declare terabytes, or hold a few kilobytes that inflate to them. So the length is checked
before memory is asked for, and nothing is inflated further than declared and a short tail. gzip is read with ISA-L
(python-isal), which inflates twice as fast as zlib. Format: RFC 1952.
"""

from __future__ import annotations

import math
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from isal import igzip, igzip_lib

from whqa.errors import InputError

# Deflate cannot shrink data by more than this factor (zlib's technical details), so a header that declares more lies.
_MAX_DEFLATE_RATIO = 1032
# What may follow the voxels: padding. The end has to be reached, for gzip's checksum stands there.
_MAX_TAIL = 1 << 16
# Small enough for the processor's cache, a multiple of every voxel's size.
_BLOCK_BYTES = 1 << 18
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment] # its stub has it for an instance
_READ_ERRORS = (EOFError, OSError, OverflowError, zlib.error, _ISAL_ERROR)
_AGAIN = "copy or download it again"


def first_bytes(path: Path, count: int) -> bytes:
    """Up to `count` bytes from the beginning, inflated.

    Raises:
        InputError: no such file, not a regular file, or its gzip stream is damaged there.
    """
    try:
        with _open(path) as stream:
            return stream.read(count)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except _READ_ERRORS as error:
        raise InputError(f"{path}: truncated, damaged or not readable ({cause(error)}); {_AGAIN}") from None


def check_size(path: Path, start: int, declared: int) -> None:
    """Whether the file can hold `declared` bytes of voxels from `start` on, by its size alone.

    Raises:
        InputError: it cannot, or it is not compressed and far longer.
    """
    size, compressed = path.stat().st_size, _is_gzip(path)
    if start + declared > size * (_MAX_DEFLATE_RATIO if compressed else 1):
        raise InputError(
            f"{path}: truncated, the header declares {declared:,} bytes of voxels but the file has {size:,} bytes; "
            f"{_AGAIN}"
        )
    if not compressed and size > start + declared + _MAX_TAIL:
        raise _too_long(path, declared)


def voxel_blocks(path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """The voxels from byte `start` on as flat blocks in native byte order, each gone when the next one comes.

    The length is checked here, before the first block is asked for, so that the caller may allocate.

    Raises:
        InputError: the file is truncated, damaged or goes on far behind the voxels; some of it while iterating.
    """
    declared = math.prod(shape) * dtype.itemsize
    check_size(path, start, declared)
    _check_memory(path, declared)
    if _is_gzip(path) and _stated_length(path) != (start + declared) % 2**32:
        _check_length(path, start, declared)
    return _blocks(path, start, declared, dtype)


def cause(error: BaseException) -> str:
    """What an exception says, in a few words."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _open(path: Path) -> IO[bytes]:
    # to open a pipe would wait for ever
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")
    stream: IO[bytes] = igzip.open(path) if _is_gzip(path) else open(path, "rb")  # noqa: SIM115 - the caller closes it
    return stream


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _stated_length(path: Path) -> int:
    """What the last four bytes state: the inflated length modulo 2^32, of a file that is one gzip member."""
    with open(path, "rb") as stream:
        stream.seek(-4, os.SEEK_END)
        return int.from_bytes(stream.read(4), "little")


def _check_memory(path: Path, declared: int) -> None:
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return
    if declared > memory:
        raise InputError(
            f"{path}: the header declares {declared:,} bytes of voxels, this machine has {memory:,} bytes of memory; "
            "crop or resample the scan"
        )


def _check_length(path: Path, start: int, declared: int) -> None:
    """Inflate once for the length alone: of several members, or of one whose last bytes are damaged."""
    end, window, length = start + declared + _MAX_TAIL, bytearray(_BLOCK_BYTES), 0
    try:
        with _open(path) as stream:
            while length <= end and (got := stream.readinto(window)):  # type: ignore[attr-defined]
                length += got
    except _READ_ERRORS as error:
        raise _damaged(path, error) from None
    if length > end:
        raise _too_long(path, declared)
    if length < start + declared:
        raise _truncated(path, max(0, length - start), declared)


def _blocks(path: Path, start: int, declared: int, dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    window = memoryview(bytearray(min(_BLOCK_BYTES, declared)))
    native, done = dtype.newbyteorder("="), 0
    try:
        with _open(path) as stream:
            _skip(stream, start)
            while done < declared:
                part = window[: min(len(window), declared - done)]
                if (got := _fill(stream, part)) < len(part):
                    raise _truncated(path, done + got, declared)
                yield np.frombuffer(part, dtype).astype(native, copy=False)
                done += got
            _check_tail(stream, path, declared)
    except _READ_ERRORS as error:
        raise _damaged(path, error) from None


def _skip(stream: IO[bytes], count: int) -> None:
    while count and (got := len(stream.read(min(count, _BLOCK_BYTES)))):
        count -= got


def _fill(stream: IO[bytes], part: memoryview) -> int:
    filled = 0
    while filled < len(part) and (got := stream.readinto(part[filled:])):  # type: ignore[attr-defined]
        filled += got
    return filled


def _check_tail(stream: IO[bytes], path: Path, declared: int) -> None:
    tail = 0
    while got := len(stream.read(_BLOCK_BYTES)):
        tail += got
        if tail > _MAX_TAIL:
            raise _too_long(path, declared)


def _damaged(path: Path, error: BaseException) -> InputError:
    return InputError(f"{path}: truncated or damaged ({cause(error)}); {_AGAIN}")


def _truncated(path: Path, got: int, declared: int) -> InputError:
    return InputError(f"{path}: truncated, {got:,} of {declared:,} bytes of voxels; {_AGAIN}")


def _too_long(path: Path, declared: int) -> InputError:
    return InputError(
        f"{path}: goes on behind the {declared:,} bytes of voxels that its header declares; header or file is damaged"
    )
