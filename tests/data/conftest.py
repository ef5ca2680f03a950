"""Valid files to mutate, and how a mutant is judged: read, or refused with one line, quickly and in little memory."""

from __future__ import annotations

import gzip
import signal
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from traced import traced_peak

from whqa.data.formats.volume_files import Volume
from whqa.errors import InputError

SHARED = Path(__file__).parents[2] / "../shared/data/acdc"
AFFINE = np.array([[0.0, -1.9, 0.3, 12.0], [1.2, 0.0, 0.0, -7.0], [0.0, 0.25, 2.4, 30.0], [0, 0, 0, 1]])
SECONDS = 10  # of the processor: other programs do not count
# Windows and buffers of fixed size.
SPARE_BYTES = 8 << 20


class Inner(bytes):
    """The bytes of a mutant before compression; plain bytes are a file as it lies on the disk."""


@dataclass(frozen=True)
class Seed:
    """A valid file: its bytes before compression, whether it is compressed, and whether it is a label map."""

    name: str
    raw: bytes
    packed: bool = True
    label: bool = False

    @property
    def mark(self) -> str:
        return "<" if self.raw[:4] in (struct.pack("<i", 348), struct.pack("<i", 540)) else ">"

    @property
    def kind(self) -> type[nib.Nifti1Header]:
        return (
            nib.Nifti1Header
            if 348 in struct.unpack("<i", self.raw[:4]) + struct.unpack(">i", self.raw[:4])
            else nib.Nifti2Header
        )

    @property
    def header(self) -> np.ndarray:
        """A copy of the header's fields, to be changed in place."""
        fields = self.kind.template_dtype.newbyteorder(self.mark)
        return np.frombuffer(bytearray(self.raw[: fields.itemsize]), fields)[:]

    @property
    def need(self) -> int:
        stored = len(self.raw) - int(self.header["vox_offset"][0])
        voxels = int(np.prod(self.header["dim"][0, 1:4]))
        return stored + voxels * (1 if self.label else 4)

    @property
    def file(self) -> bytes:
        return self.build(Inner(self.raw))

    def build(self, block: bytes) -> bytes:
        """What lies on the disk."""
        return gzip.compress(block, 1, mtime=0) if isinstance(block, Inner) and self.packed else bytes(block)

    def inner(self, block: bytes | bytearray) -> Inner:
        """Still to be compressed."""
        return Inner(block)

    def with_header(self, header: np.ndarray) -> Inner:
        return Inner(header.tobytes() + self.raw[header.nbytes :])


def made(name: str, array: np.ndarray, kind: type = nib.Nifti1Image, **settings: object) -> Seed:
    """A file that nibabel writes."""
    header = kind.header_class(endianness=">") if settings.get("big") else None
    image = kind(array, AFFINE, header, dtype=array.dtype)
    if settings.get("qform"):
        image.set_qform(np.diag([-1.5, 1.5, 3, 1]), 1)
        image.set_sform(None, 0)
    if settings.get("extension"):
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"made for a test" * 5))
    raw = bytearray(image.to_bytes())
    if settings.get("slope"):
        raw[112:120] = struct.pack("<2f", 0.25, -40)
    packed = not settings.get("plain")
    return Seed(name, bytes(raw), packed, bool(settings.get("label")))


@pytest.fixture(scope="session")
def seeds() -> tuple[Seed, ...]:
    """Valid NIfTI files of every kind, and a real image with its label map where they are at hand."""
    rng = np.random.default_rng(0)
    ct = rng.normal(40, 300, (13, 12, 11)).astype("int16")
    label = np.repeat(rng.integers(0, 4, (13, 6, 11)), 2, axis=1)
    found = [
        made("int16", ct),
        made("plain", ct, plain=True, extension=True),
        made("slope", ct, slope=True, qform=True),
        made("float32", ct.astype("float32") / 7, qform=True),
        made("big_endian", ct, big=True),
        made("nifti2", ct, nib.Nifti2Image),
        made("one_frame", ct[..., None]),
        made("label8", label.astype("uint8"), label=True),
        made("label16", label.astype("int16"), plain=True, label=True),
    ]
    for part, is_label in (("image", False), ("label", True)):
        path = SHARED / f"patient001_{part}.nii.gz"
        if path.is_file():
            found.append(Seed(f"acdc_{part}", gzip.decompress(path.read_bytes()), True, is_label))
    return tuple(found)


class Judge:
    """Reads mutants one by one and counts what became of them.

    Attributes:
        counts: family -> outcome ("read", "refused") -> number.
        slowest: of all files, in seconds of the processor.
    """

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.slowest = 0.0

    def __call__(self, family: str, path: Path, read: Callable[[Path], Volume], need: int) -> Volume | None:
        """The volume, or None where the file was refused.

        Args:
            family: of the mutant.
            path: of the file; it is what the message has to name.
            read: the reader under test.
            need: bytes of the honest file's voxels as stored and as read.
        """
        found: list[Volume | None] = []

        def once() -> None:
            found[:] = [self.read(path, read)]

        peak = traced_peak(once, 2 * need + SPARE_BYTES)
        volume = found[0]
        if volume is not None:
            need = max(need, volume.array.nbytes + volume.array.size * volume.header.get_data_dtype().itemsize)
        assert peak <= 2 * need + SPARE_BYTES, f"{family}: {path} took {peak:,} bytes, {need:,} are needed"
        self.counts[family]["refused" if volume is None else "read"] += 1
        return volume

    def read(self, path: Path, read: Callable[[Path], Volume]) -> Volume | None:
        """The volume, or None where the file was refused in a proper line, in the time that a file may take."""
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            return read(path)
        except InputError as error:
            check_message(str(error), path)
            return None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.slowest = max(self.slowest, time.process_time() - started)

    def total(self) -> int:
        """Files judged."""
        return sum(found.total() for found in self.counts.values())

    def table(self) -> str:
        """Counts by family."""
        rows = [(name, found["read"], found["refused"]) for name, found in sorted(self.counts.items())]
        rows.append(("all", sum(r[1] for r in rows), sum(r[2] for r in rows)))
        lines = [
            f"{name:<12} {read + refused:>6} files {read:>6} read {refused:>6} refused" for name, read, refused in rows
        ]
        return "\n".join(["", *lines, f"slowest file {self.slowest:.2f} s"])


def check_message(text: str, path: Path) -> None:
    """One line for people that names the file."""
    assert text.startswith(f"{path}: "), text
    assert "\n" not in text
    assert "Traceback" not in text
    # commands that are advised name the file and its folder again
    assert len(text.replace(str(path.parent), "")) < 330, text


class HangError(Exception):
    """Not a TimeoutError, which is an OSError and would be taken for a fault of the file."""


def out_of_time(*_: object) -> None:
    raise HangError(f"not read within {SECONDS} s")


@pytest.fixture
def judge() -> Iterator[Judge]:
    """A fresh judge; a file that hangs the reader raises `HangError` as long as it sits."""
    old = signal.signal(signal.SIGPROF, out_of_time)
    yield Judge()
    signal.signal(signal.SIGPROF, old)
