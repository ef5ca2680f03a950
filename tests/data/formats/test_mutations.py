"""Mutated NIfTI files: every one is read right, which nibabel confirms, or refused with one line.

The default run draws a sample of every family, the slow one takes whole families: `pytest -m slow -s
tests/data/test_mutations.py` prints the counts.
"""

from __future__ import annotations

import gzip
import itertools
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from whqa.data.formats.volume_files import Volume, read_image, read_label
from whqa.structures import LabelScheme

SCHEME = LabelScheme("mutated", {"a": 1, "b": 2, "c": 3})
TYPES = [0, 1, 2, 4, 8, 16, 32, 64, 128, 255, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 3, 12345, -1]
WEIRD = [np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 1.0, 1e-45, 1e-30, 1e-4, 352.5, 1e5, 1e30, 3e38, -3e38]


Family = Callable[[Any, np.random.Generator], Iterator[bytes]]


def elements(header: np.ndarray) -> list[tuple[str, tuple[int, ...]]]:
    """Every number and every string of a header."""
    names = header.dtype.names or ()
    return [(name, index) for name in names for index in np.ndindex(header[name].shape)]


def fields(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """Every field of the header, set to what lies at the bounds of its type and around its value."""
    for name, index in elements(seed.header):
        dtype = seed.header[name].dtype
        if dtype.kind in "iu":
            bounds = np.iinfo(dtype)
            near = int(seed.header[name][index]) + 1
            values = [
                v
                for v in (bounds.min, -1, 0, 1, 2, 3, 4, 7, 8, 351, 1000, near, bounds.max)
                if bounds.min <= v <= bounds.max
            ]
        else:
            values = WEIRD if dtype.kind == "f" else [b"", b"\xff" * dtype.itemsize, b"n+1", b"ni1", b"n+2"]
        for value in values:
            header = seed.header
            header[name][index] = value
            yield seed.with_header(header)


def truncations(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """Cut at every block of the file, and byte by byte round the header and at the end."""
    file = seed.file
    step = max(32, len(file) // 150)
    cuts = {*range(0, len(file), step), *range(30), *range(345, 356), *range(len(file) - 24, len(file))}
    for cut in sorted(c for c in cuts if 0 <= c < len(file)):
        yield file[:cut]
    for cut in (4, 347, 348, 351, 352, 540, 544, len(seed.raw) - 1):
        yield seed.inner(seed.raw[:cut])


def bit_flips(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """One to eight bits of the header, the voxels, or the file as it lies on the disk."""
    file = seed.file
    for turn in itertools.count():
        source = (seed.raw[:352], seed.raw, file)[turn % 3]
        changed = bytearray(source)
        for place in rng.integers(0, len(source), rng.integers(1, 9)):
            changed[place] ^= 1 << int(rng.integers(8))
        yield (seed.inner(changed + seed.raw[352:]), seed.inner(changed), bytes(changed))[turn % 3]


def types(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """Every data type code, with the bits that belong to it and with those of the file."""
    for code in TYPES:
        for bits in (None, 0, 8, 16, 32, 64, 128):
            header = seed.header
            header["datatype"] = code
            if bits is not None:
                header["bitpix"] = bits
            yield seed.with_header(header)


def dimensions(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """Huge, negative and empty ones, permuted ones, and 0 to 8 dimensions of one or several frames."""
    bound = int(np.iinfo(seed.header["dim"].dtype).max)
    x, y, z = (int(n) for n in seed.header["dim"][0, 1:4])
    shapes = [(bound, bound, bound), (30000, 30000, 30000), (1, 1, 1), (0, 0, 0), (-x, -y, z), (x, y, -1), (1, x, y)]
    shapes += [
        *itertools.permutations((x, y, z)),
        (x * y, z, 1),
        (x, y, z + 1),
        (x, y, z - 1),
        (x, y, 1),
        (bound, 1, 1),
    ]
    shapes += [(x, y, z, 1), (x, y, z, 2), (x, y, z, 0), (x, y, z, 1, 1), (x, y, z, 1, 3), (x, y, z, 1, 1, 1, 1)]
    shapes += [(x, y, z * 40), (x * 100, y, z), (x * 30, y * 30, z), (-1, 1, 1), (x, y, 1, z), (x, 1, y, 1, z)]
    for shape in shapes:
        for count in {len(shape), 0, 3, 4, 5, 7, 8, -1}:
            header = seed.header
            header["dim"][0] = [count, *(min(n, bound) for n in shape), *[1] * (7 - len(shape))]
            yield seed.with_header(header)


def spacings(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """Of every axis and of all, and qfac; with and without units."""
    for value in [*WEIRD, -1.5, 0.5, 20.0, 1e-2, 1e3]:
        for axes in ((0,), (1,), (2,), (3,), (1, 2, 3)):
            for unit in (None, 0, 1, 3):
                header = seed.header
                header["pixdim"][0, list(axes)] = value
                if unit is not None:
                    header["xyzt_units"] = unit
                yield seed.with_header(header)


def affines(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """Random, singular, sheared and overflowing transforms under all codes."""
    codes = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 4), (5, 5), (6, 0), (0, 6), (-1, 1), (1, 32767)]
    for turn in itertools.count():
        header = seed.header
        header["qform_code"], header["sform_code"] = codes[turn % len(codes)]
        rows = rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-3, 3)
        rows[:, int(rng.integers(4))] *= rng.choice(
            [0, 1, 1, 1e-6, 1e20, 1e300 if seed.kind is nib.Nifti2Header else 1e30]
        )
        rows[int(rng.integers(3))] = rng.choice(
            [rows[0], rows[1], rows[2], np.zeros(4), np.full(4, np.nan), [np.inf] * 4]
        )
        if rng.random() < 0.7:
            for name, row in zip(("srow_x", "srow_y", "srow_z"), rows, strict=True):
                header[name] = row
        for name in ("quatern_b", "quatern_c", "quatern_d"):
            header[name] = rng.choice([0, 1, -1, 0.6, 0.8, 2, np.nan, np.inf, rng.normal()])
        header["qoffset_x"] = rng.choice([0, 30, np.nan, np.inf, 1e30])
        header["pixdim"][0, 0] = rng.choice([-1, 1, 0, 0.5, np.nan])
        yield seed.with_header(header)


def scalings(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """Slopes and intercepts."""
    for slope in [*WEIRD, 2.0, 0.5, 1e10]:
        for intercept in (0, 1, -1024, np.nan, np.inf, 3e38, 0.25):
            header = seed.header
            header["scl_slope"], header["scl_inter"] = slope, intercept
            yield seed.with_header(header)


def offsets(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """Where the voxels begin, and extensions that lie about their length."""
    for offset in [*WEIRD, 1, 347, 348, 351, 352, 353, 368, 543, 544, 560, 2**20, 2**31, 2**40, -352]:
        header = seed.header
        if seed.kind is nib.Nifti1Header or abs(offset) < 2**62:
            header["vox_offset"] = offset
            yield seed.with_header(header)
    size, start = seed.header.nbytes, int(seed.header["vox_offset"][0])
    for length in (-1, 0, 8, 15, 16, 32, 2**31 - 1, -(2**31)):
        block = b"\1\0\0\0" + struct.pack(seed.mark + "2i", length, 6) + bytes(24)
        header = seed.header
        header["vox_offset"] = size + len(block)
        yield seed.inner(header.tobytes() + block + seed.raw[start:])


def members(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """Several gzip members, which is valid, and what may stand between and behind them."""
    file = gzip.compress(seed.raw, 1)
    yield from (file + file, file + bytes(1000), file + b"rubbish", file + gzip.compress(b""), bytes(5) + file)
    yield from (gzip.compress(file), file + gzip.compress(bytes(60_000)), file + gzip.compress(bytes(200_000)))
    yield from (gzip.compress(b"") * 50 + file, file[:-8] + bytes(8), file[:-4] + b"\xff\xff\xff\x7f")
    for flags in range(32):
        yield file[:3] + bytes([flags]) + file[4:]
    while True:
        cuts = [0, *sorted(rng.integers(0, len(seed.raw), rng.integers(1, 6))), len(seed.raw)]
        parts = [gzip.compress(seed.raw[a:b], 1) for a, b in itertools.pairwise(cuts)]
        yield b"".join(parts)
        rng.shuffle(parts)
        yield b"".join(parts[: int(rng.integers(1, len(parts) + 1))])


def splices(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """A run of bytes removed, doubled, moved, zeroed or made random, before or after compression."""
    file = seed.file
    for turn in itertools.count():
        source = file if turn % 2 else seed.raw
        a, b = sorted(int(n) for n in rng.integers(0, len(source), 2) // rng.choice([1, 1, 8]))
        c = int(rng.integers(0, len(source)))
        run = source[a:b]
        spliced = (
            source[:a] + source[b:],
            source[:b] + run + source[b:],
            (source[:a] + source[b:])[:c] + run + (source[:a] + source[b:])[c:],
            source[:a] + bytes(b - a) + source[b:],
            source[:a] + rng.bytes(b - a) + source[b:],
            source[:a] + run[::-1] + source[b:],
        )[turn // 2 % 6]
        yield spliced if turn % 2 else seed.inner(spliced)


def strangers(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """What is no NIfTI file: empty, text, other formats, noise, and headers of other kinds and orders."""
    plain = (b"", b"\0", b"not an image\n" * 50, b"<html>404</html>", b"{}", b"\x89PNG\r\n\x1a\n" + bytes(900))
    plain += (bytes(348), bytes(2000), b"\x1f", b"\x1f\x8b", b"\x1f\x8b\x08", b"PK\3\4" + bytes(700), b"NRRD0004\n\n")
    plain += (
        struct.pack("<i", 348) + bytes(600),
        struct.pack(">i", 540) + bytes(600),
        bytes(128) + b"DICM" + bytes(900),
    )
    for block in plain:
        yield block
        yield gzip.compress(block)
        yield zlib.compress(block)
    fields = seed.kind.template_dtype
    swapped = np.frombuffer(seed.raw[: fields.itemsize], fields).byteswap().tobytes()
    yield seed.inner(swapped + seed.raw[fields.itemsize :])
    yield seed.inner(seed.raw.replace(b"n+1\0", b"ni1\0", 1).replace(b"n+2\0", b"ni2\0", 1))
    for length in (10, 348, 400, 3000):
        yield rng.bytes(length)
        yield b"\x1f\x8b\x08\0" + rng.bytes(length)
        yield seed.raw[:348] + rng.bytes(length)


MAGIC = b"\x1f\x8b"
ZEROS = gzip.compress(bytes(1 << 24), 9)
# The same without a header; a full flush makes what stands before it of no matter.
ZERO_BLOCKS = (lambda c: c.compress(bytes(1 << 24)) + c.flush(zlib.Z_FULL_FLUSH))(zlib.compressobj(9, wbits=-15))


def bombs(seed: Any, rng: np.random.Generator) -> Iterator[bytes]:
    """Little that inflates to gigabytes; much declared of which there is little."""
    raw, file = seed.raw, gzip.compress(seed.raw, 1)
    x, y = (int(n) for n in seed.header["dim"][0, 1:3])
    # 16 GiB behind the voxels, as members of their own and within one stream
    yield file + ZEROS * 1000
    deflate = zlib.compressobj(1, wbits=31)
    yield deflate.compress(raw) + deflate.flush(zlib.Z_FULL_FLUSH) + ZERO_BLOCKS * 1000
    yield gzip.compress(raw[:348]) + ZEROS * 1000
    yield gzip.compress(raw[: int(seed.header["vox_offset"][0])]) + ZEROS * 1000
    yield ZEROS * 1000
    yield gzip.compress(gzip.compress(ZEROS))
    # a header that inflates for ever: a file name without an end, empty blocks
    yield b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 5_000_000
    yield b"\x1f\x8b\x08\0" + bytes(6) + b"\0\0\0\xff\xff" * 1_000_000
    for factor in (2, 5, 30, 300):
        header = seed.header
        header["dim"][0, 1] = min(x * factor, 32767)
        header["dim"][0, 2] = min(y * factor, 32767)
        yield seed.with_header(header)
    header = seed.header
    header["vox_offset"] = 2**27
    yield gzip.compress(seed.with_header(header)) + ZEROS * 1000


FAMILIES: dict[str, Family] = {
    "fields": fields,
    "truncation": truncations,
    "bit flips": bit_flips,
    "types": types,
    "dimensions": dimensions,
    "spacing": spacings,
    "affine": affines,
    "scaling": scalings,
    "offset": offsets,
    "members": members,
    "splices": splices,
    "strangers": strangers,
    "bombs": bombs,
}


def reader(seed: Any) -> Callable[[Path], Volume]:
    if seed.label:
        return lambda path: read_label(path, SCHEME, announce=False)
    return lambda path: read_image(path, announce=False)


def confirm(path: Path, volume: Volume, seed: Any) -> None:
    """Against nibabel's reading, its affine rescaled by pixdim where the two disagree by more than a thousandth."""
    block = path.read_bytes()
    raw = bytearray(gzip.decompress(block) if block[:2] == MAGIC else block)
    mark = "<" if raw[0] else ">"
    first = 348 in struct.unpack_from(mark + "i", raw)
    # extensions do not concern the voxels, and nibabel stumbles over broken ones
    end = 348 if first else 540
    raw[end : end + 4] = bytes(4)
    image = (nib.Nifti1Image if first else nib.Nifti2Image).from_bytes(bytes(raw))
    truth = np.asanyarray(image.dataobj)
    truth = truth.reshape(truth.shape[:3])
    if seed.label:
        assert set(np.unique(truth)) <= {0, 1, 2, 3}
        np.testing.assert_array_equal(volume.array, truth)
    else:
        np.testing.assert_allclose(volume.array, truth.astype("float32"), rtol=1e-6)
    pixdim = np.array(struct.unpack_from(f"{mark}4{'f' if first else 'd'}", raw, 76 if first else 104)[1:])
    affine = image.affine.copy()
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(sizes, pixdim, rtol=1e-3, atol=0):
        affine[:3, :3] *= pixdim / sizes
    np.testing.assert_allclose(volume.affine, affine, rtol=1e-5, atol=1e-5 * np.abs(affine[:3, :3]).max())


def run(judge: Any, folder: Path, seed: Any, name: str, mutants: Iterable[bytes]) -> None:
    for number, mutant in enumerate(mutants):
        block = seed.build(mutant)
        path = folder / f"{seed.name}_{number}{'.nii.gz' if block[:2] == MAGIC else '.nii'}"
        path.write_bytes(block)
        volume = judge(name, path, reader(seed), seed.need)
        if volume is not None:
            confirm(path, volume, seed)
        path.unlink()


def check_counts(judge: Any) -> None:
    """Every family has files that are refused; of the cut ones and the bombs all, of the others not all."""
    for name, found in judge.counts.items():
        assert found["refused"], name
        if name != "strangers":
            assert bool(found["read"]) == (name not in ("truncation", "bombs")), name


def test_seeds_are_read(judge: Any, seeds: Any, tmp_path: Path) -> None:
    for seed in seeds:
        run(judge, tmp_path, seed, seed.name, [seed.inner(seed.raw), seed.file])
        assert judge.counts[seed.name] == {"read": 2}


def test_a_sample_of_every_family(judge: Any, seeds: Any, tmp_path: Path) -> None:
    for (turn, seed), (name, family) in itertools.product(enumerate(seeds), FAMILIES.items()):
        rng = np.random.default_rng([turn, *name.encode()])
        if len(seed.raw) > 1 << 20:
            continue
        drawn: dict[int, bytes] = {}
        for k, mutant in enumerate(itertools.islice(family(seed, rng), 160)):
            # reservoir sampling: any three
            place = k if k < 3 else int(rng.integers(k + 1))
            if place < 3:
                drawn[place] = mutant
        run(judge, tmp_path, seed, name, drawn.values())
    print(judge.table())
    assert judge.total() >= 300
    check_counts(judge)


@pytest.mark.slow
def test_every_family(judge: Any, seeds: Any, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for (turn, seed), (name, family) in itertools.product(enumerate(seeds), FAMILIES.items()):
        rng = np.random.default_rng([turn, *name.encode()])
        endless = name in ("bit flips", "affine", "members", "splices")
        run(judge, tmp_path, seed, name, itertools.islice(family(seed, rng), 150 if endless or turn > 8 else None))
    with capsys.disabled():
        print(judge.table())
    assert judge.total() >= 5000
    check_counts(judge)
