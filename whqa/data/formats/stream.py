"""The voxels of a file that may be compressed, through a window of fixed size.

A broken or hostile file may declare terabytes, or hold a few kilobytes that inflate to them. So the length is checked
before memory is asked for, and nothing is inflated further than declared and a short tail. Deflate is read with ISA-L
(python-isal), which inflates twice as fast as zlib. Formats: RFC 1950 (zlib), RFC 1952 (gzip).
"""

from __future__ import annotations

import io
import math
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt
from isal import igzip, igzip_lib, isal_zlib

from whqa.errors import InputError
from whqa.files import COPY_AGAIN, remedy_of
from whqa.process import memory_gib

Encoding = Literal["raw", "gzip", "zlib"]

# Deflate cannot shrink data by more than this factor (zlib's technical details), so a header that declares more lies.
_MAX_DEFLATE_RATIO = 1032
# What may follow the voxels: padding. The end has to be reached, for the checksum stands there.
_MAX_TAIL = 1 << 16
# Small enough for the processor's cache, a multiple of every voxel's size.
_BLOCK_BYTES = 1 << 18
_ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment] # its stub has it for an instance
_READ_ERRORS = (EOFError, OSError, OverflowError, zlib.error, _ISAL_ERROR)


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
        # to open a pipe would wait for ever
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError("not a regular file")
        whole = whole_file(path) if inflate else Payload(0, 0, "raw")
        with _opened(path, whole) as stream:
            return stream.read(count)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except _READ_ERRORS as error:
        raise InputError(
            f"{path}: truncated, damaged or not readable ({cause(error)}); {remedy_of(error, path)}"
        ) from None


def whole_file(path: Path) -> Payload:
    """A file that is compressed from its first byte on, or not at all."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return Payload(0, path.stat().st_size, "gzip" if packed else "raw")


def check_size(path: Path, payload: Payload, start: int, declared: int) -> None:
    """Whether a payload can hold `declared` bytes of voxels from its inflated byte `start` on; by its size alone.

    Raises:
        InputError: it cannot, or it is not compressed and far longer.
    """
    compressed = payload.encoding != "raw"
    if start + declared > payload.length * (_MAX_DEFLATE_RATIO if compressed else 1):
        raise InputError(
            f"{path}: truncated, the header declares {declared:,} bytes of voxels but the file has "
            f"{path.stat().st_size:,} bytes; {COPY_AGAIN}"
        )
    if not compressed and payload.length > start + declared + _MAX_TAIL:
        raise _too_long(path, declared)


def voxel_blocks(
    path: Path, payload: Payload, start: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Iterator[npt.NDArray[Any]]:
    """The voxels from inflated byte `start` on, as flat blocks in native byte order.

    A block is gone when the next one comes. The length is checked here, before the first block is asked for, so that
    the caller may allocate.

    Raises:
        InputError: the file is truncated, damaged or goes on far behind the voxels; some of it while iterating.
    """
    declared = math.prod(shape) * dtype.itemsize
    check_size(path, payload, start, declared)
    _check_memory(path, declared)
    if payload.encoding != "raw" and _stated_length(path, payload) != (start + declared) % 2**32:
        _check_length(path, payload, start, declared)
    return _blocks(path, payload, start, declared, dtype)


def cause(error: BaseException) -> str:
    """What an exception says, in a few words."""
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


class _ZlibReader(io.RawIOBase):
    """A zlib stream of `length` bytes, inflated as far as it is asked for."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file = file
        self._left = length
        self._inflater = isal_zlib.decompressobj()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._inflater.eof:
            part = self._inflater.unconsumed_tail
            if not part:
                part = self._file.read(min(self._left, _BLOCK_BYTES))
                self._left -= len(part)
            inflated = self._inflater.decompress(part, len(buffer))
            if inflated:
                buffer[: len(inflated)] = inflated
                return len(inflated)
            if not part:
                raise EOFError("the compressed data end too early")
        return 0


@contextmanager
def _opened(path: Path, payload: Payload) -> Iterator[IO[bytes]]:
    """The inflated payload as a stream."""
    with open(path, "rb") as file:
        file.seek(payload.start)
        if payload.encoding == "gzip":
            with igzip.open(file) as stream:
                yield stream
        else:
            yield file if payload.encoding == "raw" else _ZlibReader(file, payload.length)  # type: ignore[misc]


def _stated_length(path: Path, payload: Payload) -> int | None:
    """What the last four bytes of a gzip member state: its inflated length modulo 2^32. zlib states none."""
    if payload.encoding == "zlib":
        return None
    with open(path, "rb") as file:
        file.seek(max(0, payload.start + payload.length - 4))
        return int.from_bytes(file.read(4), "little")


def _check_memory(path: Path, declared: int) -> None:
    memory = memory_gib() * 2**30
    if declared > memory:
        raise InputError(
            f"{path}: the header declares {declared:,} bytes of voxels, this machine has {memory:,.0f} bytes "
            "of memory; crop or resample the scan"
        )


def _check_length(path: Path, payload: Payload, start: int, declared: int) -> None:
    """Inflate once for the length alone: of zlib, of several gzip members, of one whose end is damaged."""
    end, window, length = start + declared, memoryview(bytearray(_BLOCK_BYTES)), 0
    try:
        with _opened(path, payload) as stream:
            while length <= end + _MAX_TAIL and (got := _fill(stream, window)):
                length += got
    except _READ_ERRORS as error:
        raise _damaged(path, error) from None
    if length > end + _MAX_TAIL:
        raise _too_long(path, declared)
    if length < end:
        raise _truncated(path, max(0, length - start), declared)


def _blocks(
    path: Path, payload: Payload, start: int, declared: int, dtype: np.dtype[Any]
) -> Iterator[npt.NDArray[Any]]:
    window = memoryview(bytearray(_BLOCK_BYTES))
    native, done = dtype.newbyteorder("="), 0
    try:
        with _opened(path, payload) as stream:
            while start > 0 and (got := _fill(stream, window[: min(start, _BLOCK_BYTES)])):
                start -= got
            while done < declared:
                part = window[: min(_BLOCK_BYTES, declared - done)]
                if (got := _fill(stream, part)) < len(part):
                    raise _truncated(path, done + got, declared)
                yield np.frombuffer(part, dtype).astype(native, copy=False)
                done += got
            if _fill(stream, window) > _MAX_TAIL:
                raise _too_long(path, declared)
    except _READ_ERRORS as error:
        raise _damaged(path, error) from None


def _fill(stream: IO[bytes], part: memoryview) -> int:
    """Read until `part` is full or the stream ends; returns how many bytes came."""
    filled = 0
    while filled < len(part) and (got := stream.readinto(part[filled:])):  # type: ignore[attr-defined]
        filled += got
    return filled


def _damaged(path: Path, error: BaseException) -> InputError:
    return InputError(f"{path}: truncated or damaged ({cause(error)}); {remedy_of(error, path)}")


def _truncated(path: Path, got: int, declared: int) -> InputError:
    return InputError(f"{path}: truncated, {got:,} of {declared:,} bytes of voxels; {COPY_AGAIN}")


def _too_long(path: Path, declared: int) -> InputError:
    return InputError(
        f"{path}: goes on behind the {declared:,} bytes of voxels that its header declares; header or file is damaged"
    )
