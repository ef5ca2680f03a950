"""What cutting patches reads and keeps: pages, masks and open files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from stub_patches import STRONG, ArrayCase, ArrayMask, patch_dataset

from whqa.loading.patches import MaskMemory, VolumeMaps
from whqa.loading.sampling import PatchRequest


@dataclass
class _Mapped(ArrayCase):
    """A case whose arrays lie on disk, and whose smallest value is known without reading them."""

    @property
    def minimum(self) -> float:
        return 0.0


def _resident(path: Path) -> int:
    """Bytes of a memory-mapped file that this process has touched."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split(maxsplit=1)[0].endswith(":"):
            ours = line.endswith(str(path))
        elif ours and line.startswith("Rss:"):
            total += 1024 * int(line.split()[1])
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux to tell which pages were touched")
def test_a_patch_touches_its_part_of_the_files_alone(tmp_path: Path) -> None:
    # large beside the 2 MiB pieces in which some kernels map a file
    shape = (320, 320, 320)
    np.save(tmp_path / "image.npy", np.zeros(shape, np.float16))
    np.save(tmp_path / "label.npy", np.zeros(shape, np.uint8))
    image, label = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("image", "label"))
    data = patch_dataset(_Mapped(image, label), size=(32, 32, 32), augmentation=STRONG, foreground=0.0)
    assert data[PatchRequest(0, 0, 0)]["image"].shape == (1, 32, 32, 32)
    for name, array in (("image", image), ("label", label)):
        touched = _resident(tmp_path / f"{name}.npy")
        assert 0 < touched < 0.35 * array.nbytes, (name, touched, array.nbytes)
    np.array(image)
    # the measure itself; a busy machine may have taken a page back
    assert _resident(tmp_path / "image.npy") > 0.9 * image.nbytes


def test_masks_are_kept_within_a_number_of_bytes() -> None:
    masks = [ArrayMask(np.zeros((10, 10, 10), np.uint8), Path(str(i))) for i in range(3)]
    memory = MaskMemory(max_bytes=2000)
    for i in (0, 1, 0, 2, 0, 1):
        assert memory.load(masks[i].path, masks[i].mask) is masks[i].values
        assert memory.bytes <= 2000
    assert [m.reads for m in masks] == [1, 2, 1]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux to tell which files are mapped")
def test_a_limited_number_of_files_is_open(tmp_path: Path) -> None:
    cases = {}
    for name in "abc":
        for kind in ("image", "label"):
            np.save(tmp_path / f"{name}{kind}.npy", np.full((4, 4, 4), ord(name), np.uint8))
        cases[name] = SimpleNamespace(
            id=name,
            image=lambda name=name: np.load(tmp_path / f"{name}image.npy", mmap_mode="r"),
            label=lambda name=name: np.load(tmp_path / f"{name}label.npy", mmap_mode="r"),
        )
    maps = VolumeMaps(limit=2)
    seen = [maps.of(cases[name]) for name in "aab"]
    assert seen[0] is seen[1]
    del seen
    for name in "cabc":
        image, label = maps.of(cases[name])
        assert (image == ord(name)).all()
        assert (label == ord(name)).all()
        mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if ".npy" in line}
        assert len([path for path in mapped if path.startswith(str(tmp_path))]) <= 4
