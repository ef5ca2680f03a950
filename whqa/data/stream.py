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
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
from isal import igzip, igzip_lib, isal_zlib

from whqa.errors import InputError

Encoding = Literal["raw", "gzip", "zlib"]

# Deflate cannot shrink data by more than this factor (zlib's technical details), so a header that declares more lies.
_MAX_DEFLATE_RATIO = 1032
# What may follow the voxels: padding. The end has to be reached, for gzip's checksum stands there.
_MAX_TAIL = 1 << 16
# Small enough for the processor's cache, a multiple of every voxel's size.
_BLOCK_BYTES = 1 << 18
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment] # its stub has it for an instance
_READ_ERRORS = (EOFError, OSError, OverflowError, zlib.error, _ISAL_ERROR)
_AGAIN = "copy or download it again"


@dataclass(frozen=True)
class Payload:
    """The part of a file that holds the voxels: its first byte, its length in the file, and how it is encoded."""

    start: int
    length: int
    encoding: Encoding


def first_bytes(path: Path, count: int, inflate: bool = True) -> bytes:
    """Up to `count` bytes from the beginning; of a gzip file what it holds, if that is wanted.

    Raises:
        InputError: no such file, not a regular file, or its gzip stream is damaged there.
    """
    try:
        with _open(path, inflate) as stream:
            return stream.read(count)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except _READ_ERRORS as error:
        raise InputError(f"{path}: truncated, damaged or not readable ({cause(error)}); {_AGAIN}") from None


def check_size(path: Path, start: int, declared: int) -> None:
    """Whether the file can hold `declared` bytes of voxels from byte `start` on, inflated; by its size alone.

    Raises:
        InputError: it cannot, or it is not compressed and far longer.
    """
    _check_room(path, path.stat().st_size, start, declared, _is_gzip(path))


def check_payload(path: Path, payload: Payload, declared: int) -> None:
    """As `check_size` where a part of the file is compressed on its own."""
    _check_room(path, payload.length, 0, declared, payload.encoding != "raw")


def check_inflated(path: Path, payload: Payload, declared: int, start: int = 0) -> None:
    """Inflate a payload once, so that its checksum and length are known; nothing is kept.

    The voxels begin `start` bytes behind the beginning of what is inflated.

    Raises:
        InputError: it is damaged, or does not hold `declared` bytes.
    """
    if payload.encoding == "raw":
        return
    length = -start
    try:
        with open(path, "rb") as file:
            file.seek(payload.start)
            inflated = _gzip_lengths(file) if payload.encoding == "gzip" else _zlib_lengths(file, payload.length)
            for got in inflated:
                length += got
                if length > declared + _MAX_TAIL:
                    raise _too_long(path, declared)
    except _READ_ERRORS as error:
        raise _damaged(path, error) from None
    if length < declared:
        raise _truncated(path, max(0, length), declared)


def check_memory(path: Path, declared: int) -> None:
    """Whether this machine could hold the voxels at all.

    Raises:
        InputError: it could not.
    """
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return
    if declared > memory:
        raise InputError(
            f"{path}: the header declares {declared:,} bytes of voxels, this machine has {memory:,} bytes of memory; "
            "crop or resample the scan"
        )


def voxel_blocks(path: Path, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[npt.NDArray[Any]]:
    """The voxels from byte `start` on as flat blocks in native byte order, each gone when the next one comes.

    The length is checked here, before the first block is asked for, so that the caller may allocate.

    Raises:
        InputError: the file is truncated, damaged or goes on far behind the voxels; some of it while iterating.
    """
    declared = math.prod(shape) * dtype.itemsize
    check_size(path, start, declared)
    check_memory(path, declared)
    if _is_gzip(path) and _stated_length(path) != (start + declared) % 2**32:
        # several members, or a damaged end: only inflating tells
        check_inflated(path, Payload(0, path.stat().st_size, "gzip"), declared, start)
    return _blocks(path, start, declared, dtype)


def cause(error: BaseException) -> str:
    """What an exception says, in a few words."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _open(path: Path, inflate: bool = True) -> IO[bytes]:
    # to open a pipe would wait for ever
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError("not a regular file")
    packed = inflate and _is_gzip(path)
    stream: IO[bytes] = igzip.open(path) if packed else open(path, "rb")  # noqa: SIM115 - the caller closes it
    return stream


def _is_gzip(path: Path) -> bool:
    with open(path, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _stated_length(path: Path) -> int:
    """What the last four bytes state: the inflated length modulo 2^32, of a file that is one gzip member."""
    with open(path, "rb") as stream:
        stream.seek(-4, os.SEEK_END)
        return int.from_bytes(stream.read(4), "little")


def _check_room(path: Path, held: int, start: int, declared: int, compressed: bool) -> None:
    if start + declared > held * (_MAX_DEFLATE_RATIO if compressed else 1):
        raise InputError(
            f"{path}: truncated, the header declares {declared:,} bytes of voxels but the file has "
            f"{path.stat().st_size:,} bytes; {_AGAIN}"
        )
    if not compressed and held > start + declared + _MAX_TAIL:
        raise _too_long(path, declared)


def _gzip_lengths(file: IO[bytes]) -> Iterator[int]:
    stream, window = igzip.open(file), bytearray(_BLOCK_BYTES)
    while got := stream.readinto(window):
        yield got


def _zlib_lengths(file: IO[bytes], length: int) -> Iterator[int]:
    inflater = isal_zlib.decompressobj()
    while not inflater.eof:
        part = inflater.unconsumed_tail
        if not part:
            part = file.read(min(length, _BLOCK_BYTES))
            length -= len(part)
        got = len(inflater.decompress(part, _BLOCK_BYTES))
        if not part and not got:
            raise EOFError("the compressed data end too early")
        yield got


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
    return InputError(f"{path}: truncated, {got:,} of {declared:,} bytes; {_AGAIN}")


def _too_long(path: Path, declared: int) -> InputError:
    return InputError(
        f"{path}: goes on behind the {declared:,} bytes of voxels that its header declares; header or file is damaged"
    )
