"""What the text header of an NRRD or MHA file declares, before ITK sees the file.

ITK's readers are lenient: a field that is missing or misspelt gets a default, data may stand in any other file that the
header names, and a length is believed. So the header has to pass here first: every field that decides what the voxels
are stands in it once and is well formed, the voxels follow it in the same file, and all of them are there.
Formats: NRRD, https://teem.sourceforge.net/nrrd/format.html; MetaImage, https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whqa.data.formats.foreign import describe_foreign
from whqa.data.formats.stream import Encoding, Payload, check_size, first_bytes
from whqa.data.formats.volume import times
from whqa.errors import InputError
from whqa.files import COPY_AGAIN

_MAX_HEADER = 1 << 20
_MAX_LINE = 4000
_INTEGERS = {
    "int8": "i1",
    "uint8": "u1",
    "int16": "i2",
    "uint16": "u2",
    "int32": "i4",
    "uint32": "u4",
    "int64": "i8",
    "uint64": "u8",
}
_NRRD_TYPES = {
    **_INTEGERS,
    **{f"{name}_t": code for name, code in _INTEGERS.items()},
    **dict.fromkeys(("signed char",), "i1"),
    **dict.fromkeys(("uchar", "unsigned char"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int"), "u2"),
    **dict.fromkeys(("int", "signed int"), "i4"),
    **dict.fromkeys(("uint", "unsigned int"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int"), "u8"),
    "float": "f4",
    "double": "f8",
}
_NRRD_ENCODINGS: dict[str, Encoding] = {"raw": "raw", "gzip": "gzip", "gz": "gzip"}
_NRRD_SPACES = {
    *("right-anterior-superior", "left-anterior-superior", "left-posterior-superior"),
    *("ras", "las", "lps"),
}
_META_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
# Within the range of a float64: beyond it ITK's readers complain on standard error.
_NUMBER = r"[-+]?(?:\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})(?:[eE][-+]?\d{1,2})?"
_SIZES = r"\d{1,18}(\s+\d{1,18}){2}"
_TRIPLE = rf"{_NUMBER}(\s+{_NUMBER}){{2}}"
_VECTOR = rf"\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)"


_META_OPTIONS = {
    "ElementNumberOfChannels": "1",
    "HeaderSize": "0",
    "ElementToIntensityFunctionSlope": "1",
    "ElementToIntensityFunctionOffset": "0",
    "CenterOfRotation": _TRIPLE,
    "ElementSize": _TRIPLE,
    "ElementMin": _NUMBER,
    "ElementMax": _NUMBER,
}
_META_SYNONYMS = {"Position", "Origin", "Rotation", "Orientation"}


@dataclass(frozen=True)
class Declared:
    """Shape and type (with byte order) of the voxels, the bytes that hold them, and how many layers of segments."""

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    payload: Payload
    layers: int = 1


def declared_voxels(path: Path, layered: bool = False) -> Declared:
    """What the header declares, checked against the size of the file; `layered` lets layers of segments pass.

    Raises:
        InputError: no such file, not an NRRD or MHA file of header and voxels in one, a field that is missing or
            malformed, or more voxels declared than the file can hold.
    """
    block = first_bytes(path, _MAX_HEADER, inflate=False)
    declared = _nrrd(path, block, layered) if path.suffix.lower() == ".nrrd" else _meta(path, block)
    voxels = math.prod(declared.shape) * declared.layers
    check_size(path, declared.payload, 0, voxels * declared.dtype.itemsize)
    return declared


def header_lines(path: Path) -> list[str]:
    """The lines of an NRRD file's header, latin-1.

    Raises:
        InputError: no such file, not an NRRD file, or cut off within its header.
    """
    return _nrrd_lines(path, first_bytes(path, _MAX_HEADER, inflate=False))[0]


def _nrrd_lines(path: Path, block: bytes) -> tuple[list[str], int]:
    return _lines(path, block, "NRRD", rb"NRRD000[1-5]\r?\n", rb"(?m)^\r?\n")


def _has_layers(lines: list[str]) -> bool:
    text = "\n".join(lines)
    return bool(re.search(r"(?m)^dimension: *4$", text) and re.search(r"(?m)^Segment\d+_", text))


def _without_layers(path: Path, fields: dict[str, str]) -> int:
    """Take the layers, the first axis, out of the fields of a header; how many there are."""
    taken = []
    for key, first in (("sizes", r"\d{1,4}"), ("spacedirections", "none"), ("kinds", r"list|vector")):
        match = re.fullmatch(rf"({first})\s+(.*)", fields.get(key, ""))
        if match is None:
            raise _malformed(path, "NRRD", f"{key}: {fields.get(key, '')}")
        taken.append(match[1])
        fields[key] = match[2]
    fields["dimension"] = "3"
    return int(taken[0])


def _nrrd(path: Path, block: bytes, layered: bool) -> Declared:
    lines, start = _nrrd_lines(path, block)
    fields: dict[str, str] = {}
    for line in lines[1:]:
        if line.startswith("#") or ":=" in line:
            continue
        name, colon, value = line.partition(":")
        # names are told apart without case and spaces: "data file" and "datafile" are the same field
        key = "".join(name.lower().split())
        if not colon or key in fields:
            raise _malformed(path, "NRRD", line)
        fields[key] = value.strip(" \t")
    if "datafile" in fields:
        raise _detached(path, fields["datafile"])
    field, layers = _reader(path, "NRRD", fields), 1
    if layered and _has_layers(lines):
        layers = _without_layers(path, fields)
    elif _has_layers(lines):
        raise InputError(
            f"{path}: segments that overlap, in layers (4-D); export them from 3D Slicer as one label map: "
            "Segmentations, Export/import, Labelmap, and save that as NIfTI",
            "several-volumes",
        )
    field("dimension", "3")
    field("space", "|".join(_NRRD_SPACES), re.IGNORECASE)
    field("spacedirections", rf"{_VECTOR}\s*{_VECTOR}\s*{_VECTOR}")
    field("spaceorigin", _VECTOR)
    for key, harmless in (
        ("kinds", r"(domain|space)(\s+(domain|space)){2}"),
        ("spaceunits", r'"?mm"?(\s+"?mm"?){2}'),
        ("lineskip", "0"),
        ("byteskip", "0"),
    ):
        if key in fields:
            field(key, harmless, re.IGNORECASE)
    code = field("type", "|".join(_NRRD_TYPES), re.IGNORECASE).lower()
    dtype = np.dtype(_NRRD_TYPES[code])
    if dtype.itemsize > 1:
        dtype = dtype.newbyteorder(">" if field("endian", "little|big", re.IGNORECASE).lower() == "big" else "<")
    encoding = _NRRD_ENCODINGS[field("encoding", "|".join(_NRRD_ENCODINGS), re.IGNORECASE).lower()]
    payload = Payload(start, path.stat().st_size - start, encoding)
    return Declared(_shape(path, field("sizes", _SIZES)), dtype, payload, layers)


def _meta(path: Path, block: bytes) -> Declared:
    lines, start = _lines(
        path, block, "MHA", rb"ObjectType *= *Image\r?\n(Comment.*\n)?NDims *=", rb"(?m)^ElementDataFile *=.*\n"
    )
    fields: dict[str, str] = {}
    for line in lines:
        match = re.fullmatch(r"([^=:\s][^=:]{0,99}?)[ \t]*=[ \t]*(.*?)[ \t]*", line)
        if match is None or match[1] in fields:
            raise _malformed(path, "MHA", line)
        fields[match[1]] = match[2]
    if fields["ElementDataFile"] != "LOCAL":
        raise _detached(path, fields["ElementDataFile"])
    field = _reader(path, "MHA", fields)
    field("NDims", "3")
    field("BinaryData", "True")
    field("TransformMatrix", rf"{_NUMBER}(\s+{_NUMBER}){{8}}")
    field("Offset", _TRIPLE)
    field("ElementSpacing", _TRIPLE)
    for key, harmless in _META_OPTIONS.items():
        if key in fields:
            field(key, harmless)
    if {"BinaryDataByteOrderMSB", "ElementByteOrderMSB"} <= fields.keys():
        raise _malformed(path, "MHA", "ElementByteOrderMSB")
    if ambiguous := _META_SYNONYMS & fields.keys():
        raise InputError(f"{path}: the MHA header says one thing twice, by {sorted(ambiguous)[0]} too; it is damaged")
    dtype = np.dtype(_META_TYPES[field("ElementType", "|".join(_META_TYPES))])
    if dtype.itemsize > 1:
        order = "BinaryDataByteOrderMSB" if "BinaryDataByteOrderMSB" in fields else "ElementByteOrderMSB"
        dtype = dtype.newbyteorder(">" if field(order, "True|False") == "True" else "<")
    length = path.stat().st_size - start
    encoding: Encoding = "raw"
    if fields.get("CompressedData", "False") != "False":
        field("CompressedData", "True")
        held, length, encoding = length, int(field("CompressedDataSize", r"\d{1,18}")), "zlib"
        if length > held:
            raise InputError(f"{path}: truncated, {held:,} of {length:,} bytes of compressed data; download it again")
    return Declared(_shape(path, field("DimSize", _SIZES)), dtype, Payload(start, length, encoding))


def _lines(path: Path, block: bytes, kind: str, first: bytes, end: bytes) -> tuple[list[str], int]:
    """The lines of the header without its end where that is empty, and the byte behind it."""
    last = re.search(end, block)
    if not re.match(first, block) or last is None:
        found = None if re.match(first, block) else describe_foreign(path)
        why = f"but {found}" if found else "with header and voxels in one, or cut off within its header"
        raise InputError(f"{path}: not an {kind} file {why}")
    header = block[: last.end()].replace(b"\r\n", b"\n")
    # ITK and Python disagree on what else ends a line
    lines = header.decode("latin-1").rstrip("\n").split("\n")
    if re.search(rb"[\x00-\x08\x0b-\x1f]", header) or max(map(len, lines)) > _MAX_LINE:
        raise InputError(f"{path}: the {kind} header is damaged; {COPY_AGAIN}")
    return lines, last.end()


def _reader(path: Path, kind: str, fields: dict[str, str]) -> Callable[..., str]:
    def field(key: str, pattern: str, flags: int = 0) -> str:
        value = fields.get(key)
        if value is None:
            raise InputError(
                f"{path}: the {kind} header has no field {key!r}; export the scan again, as NIfTI if in doubt"
            )
        if not re.fullmatch(pattern, value, flags | re.ASCII):
            raise InputError(
                f"{path}: {key} = {value[:60]!r} in the {kind} header is not supported; convert it to NIfTI"
            )
        return value

    return field


def _shape(path: Path, sizes: str) -> tuple[int, int, int]:
    x, y, z = (int(size) for size in sizes.split())
    if not 1 <= min(x, y, z) <= max(x, y, z) < 2**15:
        raise InputError(f"{path}: shape {times((x, y, z))} is not that of a scan; export the scan again")
    return x, y, z


def _malformed(path: Path, kind: str, line: str) -> InputError:
    return InputError(f"{path}: line {line[:60]!r} of the {kind} header is malformed or repeated; it is damaged")


def _detached(path: Path, other: str) -> InputError:
    return InputError(
        f"{path}: its voxels stand in another file ({other[:60]!r}), which is not followed; save header and voxels in "
        "one .nrrd or .mha"
    )
