"""Mutated NRRD and MHA files: every one is read right, as a plain decoder in this file confirms, or refused.

As for NIfTI: `pytest -m slow -s tests/data/test_mutations_itk.py` takes whole families and prints the counts.
"""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from whqa.data.formats.volume_files import Volume, read_image, read_label
from whqa.structures import LabelScheme

sitk = pytest.importorskip("SimpleITK", reason="the extra whqa[itk] is not installed")

SCHEME = LabelScheme("mutated", {"a": 1, "b": 2, "c": 3})
DIRECTION = (0.6, 0.0, 0.8, 0.0, -1.0, 0.0, 0.8, 0.0, -0.6)
NAMES = {
    "i1": ("int8", "signed char", "MET_CHAR"),
    "u1": ("uint8", "unsigned char", "MET_UCHAR"),
    "i2": ("int16", "short", "MET_SHORT"),
    "u2": ("uint16", "unsigned short", "MET_USHORT"),
    "i4": ("int", "MET_INT"),
    "u4": ("unsigned int", "MET_UINT"),
    "i8": ("int64", "longlong", "MET_LONG_LONG"),
    "u8": ("uint64", "MET_ULONG_LONG"),
    "f4": ("float", "MET_FLOAT"),
    "f8": ("double", "MET_DOUBLE"),
}
NUMPY = {name: code for code, names in NAMES.items() for name in names}
NUMBERS = ["0", "-1", "1", "nan", "inf", "-inf", "1e999", "1e-999", "1e30", "-1e30", "1e-30", "abc", "", "1 2", "0x10"]
NUMBERS += [
    "1,5",
    "(1,2,3)",
    "9" * 400,
    "9" * 39,
    "4294967297",
    "18446744073709551617",
    "1" * 5000,
    "\xb2",
    "1\0",
    "1e5",
]
TYPES = [
    *NUMPY,
    "block",
    "MET_LONG",
    "MET_ULONG",
    "MET_OTHER",
    "MET_STRING",
    "MET_SHORT_ARRAY",
    "MET_NONE",
    "SHORT",
    "char",
]


@dataclass(frozen=True)
class Seed:
    """A valid file in its three parts: lines of the header, voxels as stored, and whether they are a label map."""

    name: str
    lines: tuple[str, ...]
    body: bytes
    suffix: str
    label: bool
    need: int

    @property
    def file(self) -> bytes:
        return self.with_lines(self.lines)

    def with_lines(self, lines: Iterable[str], body: bytes | None = None) -> bytes:
        """The file with another header."""
        end = "\n\n" if self.suffix == ".nrrd" else "\n"
        return ("\n".join(lines) + end).encode("latin-1") + (self.body if body is None else body)

    def replaced(self, **fields: str) -> bytes:
        """The file with other values of header fields; spaces in their names as underscores."""
        mark = ":" if self.suffix == ".nrrd" else " ="
        lines = list(self.lines)
        for key, value in fields.items():
            start = key.replace("_", " ") + mark
            lines = [f"{start} {value}" if line.startswith(start) else line for line in lines]
        return self.with_lines(lines)


@pytest.fixture(scope="module")
def itk_seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    folder, rng = tmp_path_factory.mktemp("seeds"), np.random.default_rng(0)
    ct = rng.normal(40, 300, (11, 12, 13)).astype("int16")
    label = np.repeat(rng.integers(0, 4, (11, 6, 13)), 2, axis=1).astype("uint8")
    arrays = {"int16": ct, "float32": (ct / 7).astype("float32"), "label": label}
    found = []
    for (name, array), suffix, packed in itertools.product(arrays.items(), (".nrrd", ".mha"), (True, False)):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((1.5, 1.25, 2.5))
        image.SetOrigin((-31.5, 17.25, 120.75))
        image.SetDirection(DIRECTION)
        path = folder / f"{name}{suffix}"
        sitk.WriteImage(image, str(path), useCompression=packed)
        block = path.read_bytes()
        end = block.index(b"\n\n") + 2 if suffix == ".nrrd" else block.index(b"LOCAL\n") + 6
        lines = tuple(block[:end].decode().strip().split("\n"))
        need = array.nbytes + array.size * (1 if name == "label" else 4)
        kind = f"{name}_{'packed' if packed else 'raw'}_{suffix[1:]}"
        found.append(Seed(kind, lines, block[end:], suffix, name == "label", need))
    return found


def headers(seed: Seed, rng: np.random.Generator) -> Iterator[bytes]:
    """A line removed, doubled, moved, renamed, cut, or with each of its numbers at its bounds."""
    lines = list(seed.lines)
    for k, line in enumerate(lines):
        yield seed.with_lines(lines[:k] + lines[k + 1 :])
        yield seed.with_lines([*lines[: k + 1], line, *lines[k + 1 :]])
        yield seed.with_lines([*lines[:k], line.upper(), *lines[k + 1 :]])
        yield seed.with_lines([*lines[:k], line.lower(), *lines[k + 1 :]])
        yield seed.with_lines([*lines[:k], line[: len(line) // 2], *lines[k + 1 :]])
        yield seed.with_lines([*lines[:k], line + "\r", *lines[k + 1 :]])
        yield seed.with_lines([*lines[:k], "", *lines[k:]])
        yield seed.with_lines([*lines[:k], "x" * 100_000, *lines[k:]])
        yield seed.with_lines([line, *lines[:k], *lines[k + 1 :]])
        numbers = list(re.finditer(r"-?\d+(\.\d+)?", line)) if k else []
        for match, value in itertools.product(numbers, NUMBERS):
            yield seed.with_lines([*lines[:k], line[: match.start()] + value + line[match.end() :], *lines[k + 1 :]])
    yield seed.file.replace(b"\n", b"\r\n")
    yield seed.file.replace(b" = ", b" : ")


def dimensions(seed: Seed, rng: np.random.Generator) -> Iterator[bytes]:
    """Huge, negative, empty and permuted ones, more and fewer than three."""
    shapes = ["30000 30000 30000", "0 0 0", "-13 12 11", "13 12", "13 12 11 1", "13 12 11 2", "12 13 11", "1716 1 1"]
    shapes += [
        "13 12 12",
        "13 12 10",
        "1300 12 11",
        "390 360 11",
        "1 1 1",
        "65549 12 11",
        "4294967309 12 11",
        "13 12 1e1",
    ]
    for shape in shapes:
        for count in ("3", "2", "4", "0", "16", "-3"):
            yield seed.replaced(sizes=shape, dimension=count, DimSize=shape, NDims=count)


def types(seed: Seed, rng: np.random.Generator) -> Iterator[bytes]:
    """Every type in every byte order and encoding."""
    for code in TYPES:
        for order, msb in (("little", "False"), ("big", "True"), ("middle", "Maybe")):
            yield seed.replaced(type=code, ElementType=code, endian=order, BinaryDataByteOrderMSB=msb)
    for encoding in ("raw", "gzip", "gz", "ascii", "text", "txt", "hex", "bzip2", "bz2", "zrl", "GZIP", ""):
        for flag in ("True", "False", "true", "1", "maybe"):
            yield seed.replaced(encoding=encoding, CompressedData=flag)
            yield seed.replaced(encoding=encoding, BinaryData=flag)
    for size in ("0", "1", "-1", "100", str(len(seed.body) - 1), str(len(seed.body) + 1), "99999999999999"):
        yield seed.replaced(CompressedDataSize=size, encoding="gzip")


def geometry(seed: Seed, rng: np.random.Generator) -> Iterator[bytes]:
    """Random, singular, scaled and overflowing transforms, spacings and spaces."""
    spaces = [
        "left-posterior-superior",
        "RAS",
        "right-anterior-superior",
        "LAS",
        "lps",
        "scanner-xyz",
        "3D-right-handed",
    ]
    for turn in itertools.count():
        turned = np.linalg.qr(rng.normal(size=(3, 3)))[0] * 10.0 ** rng.choice([0, 0, 0, -3, 20, -20])
        turned[rng.integers(3)] *= rng.choice([1, 1, 1, 0, 1e-9, 2, -1])
        values = " ".join(f"{v:.6g}" for v in turned.ravel())
        vectors = " ".join(f"({a:.6g},{b:.6g},{c:.6g})" for a, b, c in turned)
        spacing = " ".join(rng.choice(["1", "0.5", "2", "1", "1", "0", "-1", "1e9", "nan"], 3))
        origin = rng.choice(["0 0 0", "1 2 3", "-7.5 1e3 12", "nan 0 0", "1e30 0 0", "1 2"])
        fields = {"space_directions": vectors, "space": spaces[turn % len(spaces)], "TransformMatrix": values}
        bracketed = f"({origin.replace(' ', ',')})"
        yield seed.replaced(**fields, ElementSpacing=spacing, Offset=origin, space_origin=bracketed)


def elsewhere(seed: Seed, rng: np.random.Generator) -> Iterator[bytes]:
    """Voxels in another file, or at another place of this one."""
    for target in (
        "/etc/passwd",
        "../secret.raw",
        "LIST",
        "a%03d.raw 1 3 1",
        "skip.raw",
        "local",
        "LOCAL.raw",
        "",
        "./",
    ):
        yield seed.with_lines([*seed.lines[:-1], "ElementDataFile = " + target])
        for key in ("data file", "datafile", "Data File", "DATA  FILE"):
            yield seed.with_lines([*seed.lines, f"{key}: {target}"])
    for skip in ("0", "-1", "1", "100", "99999999999"):
        for key in ("line skip", "byte skip", "lineskip", "byteskip"):
            yield seed.with_lines([*seed.lines, f"{key}: {skip}"])
        yield seed.with_lines([*seed.lines[:-1], f"HeaderSize = {skip}", seed.lines[-1]])
    for line in (
        "ElementNumberOfChannels = 2",
        "ElementSize = 9 9 9",
        "Rotation = 1 0 0 0 1 0 0 0 1",
        "Position = 9 9 9",
    ):
        yield seed.with_lines([*seed.lines[:-1], line, seed.lines[-1]])


def truncations(seed: Seed, rng: np.random.Generator) -> Iterator[bytes]:
    """Cut at every block and at every byte of the end."""
    length = len(seed.file)
    for cut in sorted({*range(0, length, 40), *range(length - 20, length)}):
        yield seed.file[:cut]


def bit_flips(seed: Seed, rng: np.random.Generator) -> Iterator[bytes]:
    """One to eight bits of the header or of the whole file."""
    start = len(seed.file) - len(seed.body)
    for turn in itertools.count():
        changed = bytearray(seed.file)
        for place in rng.integers(0, start if turn % 2 else len(changed), rng.integers(1, 9)):
            changed[place] ^= 1 << int(rng.integers(8))
        yield bytes(changed)


def splices(seed: Seed, rng: np.random.Generator) -> Iterator[bytes]:
    """A run of bytes removed, doubled, zeroed or made random."""
    file = seed.file
    for turn in itertools.count():
        a, b = sorted(int(n) for n in rng.integers(0, len(file), 2) // rng.choice([1, 1, 8]))
        middle = (b"", file[a:b] * 2, bytes(b - a), rng.bytes(b - a))[turn % 4]
        yield file[:a] + middle + file[b:]


def strangers(seed: Seed, rng: np.random.Generator) -> Iterator[bytes]:
    """What is neither NRRD nor MHA."""
    yield from (
        b"",
        b"\0",
        b"NRRD",
        b"NRRD0004\n",
        b"NRRD0004\n\n",
        b"NRRD0009\n" + seed.file[9:],
        b"ObjectType = Image\n",
    )
    yield from (
        b"not an image\n" * 99,
        gzip.compress(seed.file),
        b"\x1f\x8b",
        b"ElementDataFile = LOCAL\n",
        b"\n" * 999,
    )
    for length in (10, 500, 5000):
        yield rng.bytes(length)
        yield seed.file[:100] + rng.bytes(length)


def bombs(seed: Seed, rng: np.random.Generator) -> Iterator[bytes]:
    """Little that inflates to gigabytes, and headers without an end."""
    deflate = zlib.compressobj(1, wbits=31 if seed.suffix == ".nrrd" else 15)
    honest = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    blocks = (lambda c: c.compress(bytes(1 << 24)) + c.flush(zlib.Z_FULL_FLUSH))(zlib.compressobj(9, wbits=-15))
    mark = "encoding: gzip" if seed.suffix == ".nrrd" else "CompressedData = True"
    lines = [line for line in seed.lines if not line.startswith(("encoding", "CompressedData", "ElementDataFile"))]
    for body in (
        honest + blocks * 500,
        gzip.compress(gzip.compress(bytes(1 << 24))),
        gzip.compress(bytes(1 << 24)) * 500,
    ):
        size = [] if seed.suffix == ".nrrd" else [f"CompressedDataSize = {len(body)}", "ElementDataFile = LOCAL"]
        yield seed.with_lines([*lines, mark, *size], body)
        yield seed.with_lines([*lines, mark, *size], body).replace(b"13 12 11", b"999 999 99")
    yield seed.with_lines([*seed.lines[:2], *["Comment = x: y"] * 300_000, *seed.lines[2:]])
    yield seed.with_lines(["x" * 3_000_000, *seed.lines])


Family = Callable[[Seed, np.random.Generator], Iterator[bytes]]
FAMILIES: dict[str, Family] = {
    "headers": headers,
    "dimensions": dimensions,
    "types": types,
    "geometry": geometry,
    "elsewhere": elsewhere,
    "truncation": truncations,
    "bit flips": bit_flips,
    "splices": splices,
    "strangers": strangers,
    "bombs": bombs,
}


def decoded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (X, Y, Z) and affine of a file, by the plainest reading of its header."""
    block, nrrd = path.read_bytes(), path.suffix == ".nrrd"
    end = re.search(rb"\r?\n\r?\n" if nrrd else rb"ElementDataFile *= *LOCAL *\r?\n", block)
    assert end is not None
    text, body = block[: end.end()].decode("latin-1"), block[end.end() :]
    pairs = re.findall(r"^([\w ]+?)[ \t]*(?:=|:(?!=))[ \t]*(.*?)[ \t\r]*$", text, re.MULTILINE)
    fields = {"".join(k.lower().split()): v for k, v in pairs}
    numbers = {k: [float(x) for x in re.findall(r"[-+]?[\d.]+(?:e[-+]?\d+)?", v, re.I)] for k, v in fields.items()}
    if fields.get("encoding", "raw").lower() != "raw":
        body = gzip.decompress(body)
    elif fields.get("compresseddata") == "True":
        body = zlib.decompress(body[: int(fields["compresseddatasize"])])
    code = fields["type"].lower() if nrrd else fields["elementtype"]
    big = fields.get("endian", "").lower() == "big" or fields.get("binarydatabyteordermsb") == "True"
    shape = [int(n) for n in numbers["sizes" if nrrd else "dimsize"]]
    dtype = np.dtype(NUMPY[code]).newbyteorder(">" if big else "<")
    affine = np.eye(4)
    if nrrd:
        affine[:3, :3] = np.reshape(numbers["spacedirections"], (3, 3)).T
        affine[:3, 3] = numbers["spaceorigin"]
        letters = "".join(word[0] for word in fields["space"].split("-")) if "-" in fields["space"] else fields["space"]
        signs = [-1.0 if letter in "lp" else 1.0 for letter in letters.lower()]
    else:
        affine[:3, :3] = np.reshape(numbers["transformmatrix"], (3, 3)).T * numbers["elementspacing"]
        affine[:3, 3] = numbers["offset"]
        signs = [-1.0, -1.0, 1.0]
    voxels = np.frombuffer(body[: int(np.prod(shape)) * dtype.itemsize], dtype).reshape(shape, order="F")
    return voxels, np.diag([*signs, 1.0]) @ affine


def run(judge: Any, folder: Path, seed: Seed, name: str, mutants: Iterable[bytes]) -> None:
    def read(path: Path) -> Volume:
        return read_label(path, SCHEME) if seed.label else read_image(path)

    for number, block in enumerate(mutants):
        path = folder / f"{seed.name}_{number}{seed.suffix}"
        path.write_bytes(block)
        volume = judge(name, path, read, seed.need)
        if volume is not None:
            voxels, affine = decoded(path)
            np.testing.assert_array_equal(volume.array, voxels.astype(volume.array.dtype))
            np.testing.assert_allclose(volume.affine, affine, rtol=1e-6, atol=1e-6 * np.abs(affine[:3, :3]).max())
        path.unlink()


def check_counts(judge: Any) -> None:
    for name, found in judge.counts.items():
        assert found["refused"], name
        if name != "bombs":
            assert bool(found["read"]) == (name not in ("truncation", "strangers")), name


def test_seeds_are_read(judge: Any, itk_seeds: list[Seed], tmp_path: Path) -> None:
    for seed in itk_seeds:
        run(judge, tmp_path, seed, seed.name, [seed.file])
        assert judge.counts[seed.name] == {"read": 1}


def test_a_sample_of_every_family(
    judge: Any, itk_seeds: list[Seed], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    for (turn, seed), (name, family) in itertools.product(enumerate(itk_seeds), FAMILIES.items()):
        rng = np.random.default_rng([turn, *name.encode()])
        found = list(itertools.islice(family(seed, rng), 120))
        run(judge, tmp_path, seed, name, [found[k] for k in rng.choice(len(found), 2, replace=False)])
    # ITK says nothing of its own
    assert capfd.readouterr() == ("", "")
    print(judge.table())
    assert judge.total() >= 200
    assert all(found["refused"] for found in judge.counts.values())
    assert sum(found["read"] for found in judge.counts.values()) >= 15


@pytest.mark.slow
def test_every_family(judge: Any, itk_seeds: list[Seed], tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    for (turn, seed), (name, family) in itertools.product(enumerate(itk_seeds), FAMILIES.items()):
        rng = np.random.default_rng([turn, *name.encode()])
        endless = name in ("bit flips", "geometry", "splices")
        run(judge, tmp_path, seed, name, itertools.islice(family(seed, rng), 150 if endless else None))
    assert capfd.readouterr() == ("", "")
    with capfd.disabled():
        print(judge.table())
    assert judge.total() >= 5000
    check_counts(judge)
