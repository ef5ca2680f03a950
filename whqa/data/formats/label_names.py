"""Names of labels that a file carries: in header extensions of NIfTI, in segment fields of NRRD.

TotalSegmentator writes the label table of Connectome Workbench (CaretExtension) into an extension of code 0, Workbench
itself of code 30; others leave JSON or the table of ITK-SNAP in a comment. 3D Slicer names the segments of .seg.nrrd
(`Segment0_Name`, `Segment0_LabelValue`, `Segment0_Layer`). What is damaged, or says two things of one label, names it
not: a name is a help, never a reason to refuse a file.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple
from xml.parsers import expat

from whqa.data.formats.itk_header import header_lines
from whqa.data.formats.nifti_header import read_header, voxel_offset
from whqa.data.formats.stream import first_bytes
from whqa.errors import InputError

_MOST_BYTES = 1 << 22
_MOST_LABELS = 10_000
_LONGEST_NAME = 200
# ITK-SNAP: index, three colours, opacity, two flags, name.
_SNAP_LINE = re.compile(r'\s*(\d+)\s+\d+\s+\d+\s+\d+\s+[\d.]+\s+[01]\s+[01]\s+"([^"]*)"\s*')
_SEGMENT = re.compile(r"Segment(\d+)_(Name|LabelValue|Layer):=(.*)")

_Named = tuple[int, str]


def label_names(path: Path) -> dict[int, str] | None:
    """Label value -> name, as the file itself states them, without background; None where it names nothing.

    Raises:
        InputError: as `read_grid`, where the header cannot be read at all.
    """
    if path.suffix.lower() == ".nrrd":
        return _unambiguous((segment.value, segment.name) for segment in segments_of(path))
    if path.suffix.lower() == ".mha":
        return None
    for content in _extensions(path):
        for read in (_of_xml, _of_json, _of_table):
            if found := _unambiguous(read(content)):
                return found
    return None


def _unambiguous(pairs: Iterable[_Named]) -> dict[int, str] | None:
    names: dict[int, str] = {}
    twice = set()
    for value, name in pairs:
        name = " ".join(name.split())[:_LONGEST_NAME]
        if not name or not name.isprintable():
            continue
        if names.setdefault(value, name) != name:
            twice.add(value)
        if len(names) > _MOST_LABELS:
            return None
    return {value: name for value, name in sorted(names.items()) if value != 0 and value not in twice} or None


def _extensions(path: Path) -> Iterator[bytes]:
    """Contents of the extensions between a NIfTI header and its voxels; the first one that is damaged ends them."""
    header = read_header(path)
    end, start = min(voxel_offset(path, header), _MOST_BYTES), int(header.sizeof_hdr)
    block = first_bytes(path, end)
    if block[start : start + 1] in (b"", b"\0"):
        return
    start += 4
    while start + 8 <= len(block):
        size, _ = struct.unpack(f"{header.endianness}2i", block[start : start + 8])
        if size < 16 or size % 16 or start + size > len(block):
            return
        yield block[start + 8 : start + size].rstrip(b"\0")
        start += size


class _NotATableError(Exception):
    pass


def _of_xml(content: bytes) -> list[_Named]:
    """The label table of a CaretExtension; documents that define entities are left alone."""
    if b"<Label" not in content:
        return []
    parser, pairs, text = expat.ParserCreate(), list[_Named](), list[str]()
    key: list[str] = []

    def refused(*_: object) -> None:
        raise _NotATableError

    def start(name: str, attributes: dict[str, str]) -> None:
        text.clear()
        key[:] = [attributes.get("Key", "")] if name == "Label" else []

    def end(name: str) -> None:
        if name == "Label" and key and re.fullmatch(r"-?\d{1,9}", key[0]):
            pairs.append((int(key[0]), "".join(text)))
        key.clear()

    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refused
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = text.append
    try:
        parser.Parse(content.strip(), True)
    except (expat.ExpatError, _NotATableError, UnicodeError, ValueError):
        return []
    return pairs


def _of_json(content: bytes) -> list[_Named]:
    """One object of value -> name or name -> value, alone or as `labels`, as MONAI and nnU-Net have it."""
    try:
        table = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError):
        return []
    if isinstance(table, dict) and isinstance(table.get("labels"), dict):
        table = table["labels"]
    if not isinstance(table, dict) or not table:
        return []
    if all(re.fullmatch(r"\d{1,9}", key) and isinstance(name, str) for key, name in table.items()):
        return [(int(key), name) for key, name in table.items()]
    if all(type(value) is int for value in table.values()):
        return [(value, name) for name, value in table.items()]
    return []


def _of_table(content: bytes) -> list[_Named]:
    try:
        lines = content.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        return []
    rows = [_SNAP_LINE.fullmatch(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [(int(row[1]), row[2]) for row in rows if row is not None] if all(rows) else []


class Segment(NamedTuple):
    """A segment of 3D Slicer: the voxels of a layer that have its value."""

    name: str
    value: int
    layer: int


def segments_of(path: Path) -> list[Segment]:
    """The segments that the header of a .seg.nrrd names, in its order.

    Raises:
        InputError: not an NRRD file, or a field of a segment stands there twice.
    """
    fields: dict[str, dict[str, str]] = {}
    for line in header_lines(path):
        match = _SEGMENT.fullmatch(line)
        if match is not None and fields.setdefault(match[1], {}).setdefault(match[2], match[3]) != match[3]:
            raise InputError(f"{path}: line {line[:60]!r} of its header stands there twice; it is damaged")
    return [
        Segment(
            segment["Name"].encode("latin-1").decode("utf-8", "replace"),
            int(segment["LabelValue"]),
            int(segment.get("Layer", "0")),
        )
        for segment in fields.values()
        if segment.get("Name")
        and re.fullmatch(r"\d{1,4}", segment.get("LabelValue", ""))
        and re.fullmatch(r"\d{1,4}", segment.get("Layer", "0"))
    ]
