"""What reading takes of memory: of honest files the result and a little, of bombs nothing like what they declare."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from traced import traced_peak

from whqa.data.formats.volume_files import read_image, read_label
from whqa.structures import LabelScheme

SHAPE = (160, 160, 100)
VOXELS = np.random.default_rng(0).normal(40, 300, SHAPE).astype("int16")
ZEROS = gzip.compress(bytes(1 << 24), 9)
SECONDS = 10  # of the processor: other programs do not count
# Windows and buffers of fixed size.
SPARE = 8 << 20

# The high-water mark of this program alone: ru_maxrss begins with that of the process it was started from.
CHILD = """
import json, sys, time
from pathlib import Path
from whqa.data.formats.volume_files import read_image
from whqa.errors import InputError
if sys.argv[1].endswith(("mha", "nrrd")):
    import SimpleITK
def kilobytes(what):
    return int(Path("/proc/self/status").read_text().split(what)[1].split()[0])
rows = []
for name in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")
    before, started = kilobytes("VmRSS:"), time.process_time()
    try:
        outcome = "read" if read_image(Path(name), announce=False).array.size else ""
    except InputError as error:
        outcome = str(error)
    rows.append([outcome, (kilobytes("VmHWM:") - before) * 1024, time.process_time() - started])
print(json.dumps(rows))
"""


def raw_file(array: np.ndarray, **header: object) -> bytes:
    """A NIfTI file before compression."""
    image = nib.Nifti1Image(array, np.eye(4), dtype=array.dtype)
    raw = image.to_bytes()
    fields = np.frombuffer(bytearray(raw[:348]), nib.Nifti1Header.template_dtype)[:]
    for name, value in header.items():
        fields[name] = value
    return fields.tobytes() + raw[348:]


def nifti_files() -> dict[str, bytes]:
    """Bombs with every number forged that can be forged, then an honest scan."""
    huge = [3, SHAPE[0] * 20, SHAPE[1] * 20, SHAPE[2], 1, 1, 1, 1]
    length = 352 + VOXELS.nbytes * 400
    scan = gzip.compress(raw_file(VOXELS), 1)
    return {
        "liar.nii.gz": gzip.compress(raw_file(VOXELS, dim=huge), 1)[:-4] + struct.pack("<I", length % 2**32),
        "hollow.nii.gz": gzip.compress(raw_file(VOXELS, dim=[3, 1000, 1000, 1000, 1, 1, 1, 1])[:400]) + ZEROS * 20,
        "tail.nii.gz": scan + ZEROS * 3000,
        "honest.nii.gz": scan,
    }


def itk_files(folder: Path) -> dict[str, bytes]:
    """The same as far as the formats have it."""
    sitk = pytest.importorskip("SimpleITK", reason="the extra whqa[itk] is not installed")
    blocks = {}
    for suffix in ("mha", "nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(folder / f"x.{suffix}"), useCompression=True)
        blocks[suffix] = (folder / f"x.{suffix}").read_bytes()
    size = b" ".join(b"%d" % n for n in reversed(SHAPE))
    assert all(size in block for block in blocks.values())
    return {
        "hollow.mha": blocks["mha"].replace(size, b"1000 1000 1000"),
        "hollow.nrrd": blocks["nrrd"].replace(size, b"1000 1000 1000"),
        "tail.nrrd": blocks["nrrd"] + ZEROS * 3000,
        "honest.mha": blocks["mha"],
        "honest.nrrd": blocks["nrrd"],
    }


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux states the peak of a process")
@pytest.mark.parametrize("kind", ["nifti", "itk"])
def test_memory_of_a_process(tmp_path: Path, kind: str) -> None:
    files = nifti_files() if kind == "nifti" else itk_files(tmp_path)
    paths = [tmp_path / name for name in files]
    for path, block in zip(paths, files.values(), strict=True):
        path.write_bytes(block)
    done = subprocess.run([sys.executable, "-c", CHILD, *map(str, paths)], capture_output=True, text=True, check=True)
    assert not done.stderr
    needed = 3 * VOXELS.nbytes
    for name, (outcome, growth, seconds) in zip(files, json.loads(done.stdout), strict=True):
        print(f"{name}: {growth / needed:.2f} of the honest file's need, {seconds:.2f} s, {outcome}")
        assert (outcome == "read") == name.startswith("honest"), outcome
        assert growth <= 2 * needed, (name, growth, needed)
        assert seconds < SECONDS, name


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("case", ["int16", "big endian", "slope", "uint8", "float64", "one frame"])
def test_an_image_takes_its_result_and_a_window(tmp_path: Path, case: str, packed: bool) -> None:
    array = VOXELS.astype({"uint8": "uint8", "float64": "float64", "big endian": ">i2"}.get(case, "int16"))
    array = array[..., None] if case == "one frame" else array
    raw = raw_file(array, scl_slope=2.5 if case == "slope" else 1)
    path = tmp_path / "a.nii"
    path.write_bytes(gzip.compress(raw, 1) if packed else raw)
    bound = 4 * VOXELS.size + SPARE
    assert read_image(path, announce=False).array.nbytes == 4 * VOXELS.size
    assert traced_peak(lambda: read_image(path, announce=False), bound) <= bound


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
def test_a_label_map_takes_what_is_stored_and_its_result(tmp_path: Path, dtype: str) -> None:
    labels = (VOXELS % 4).astype(dtype)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(raw_file(labels), 1))
    scheme = LabelScheme("x", {"a": 1, "b": 2, "c": 3})
    volume = read_label(path, scheme, announce=False)
    np.testing.assert_array_equal(volume.array, labels)
    bound = labels.nbytes + volume.array.nbytes + SPARE
    assert traced_peak(lambda: read_label(path, scheme, announce=False), bound) <= bound
