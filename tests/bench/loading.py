"""Random patches per second out of prepared volumes, image and label map.

One process of one thread each, in turn: `loading.py monai boxes DIR` is one row, by a child.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table
from timing import in_turn, megabytes, serve

if TYPE_CHECKING:
    from whqa.data.cache import PreparedCase

CASES, SPACING, PATCH, PATCHES, REPEATS = 6, 1.25, 64, 48, 5
KINDS = {"boxes": "plain boxes", "augmented": "rotated, scaled, intensities changed"}


def prepared(folder: Path) -> dict[str, PreparedCase]:
    """Phantoms in the cache of this folder."""
    from whqa.data.cache import Cache
    from whqa.data.phantom import phantom_cohort
    from whqa.data.prepare import prepare_cohort
    from whqa.data.preprocess import Preprocess

    cohort = phantom_cohort(folder / "phantoms", CASES, "ct", 0, 2.0)
    return prepare_cohort(cohort, Cache(folder / "cache", Preprocess((SPACING,) * 3)), progress=False)


def whqa(folder: Path, augmented: bool) -> Iterator[Any]:
    """Ours, as a training has it, centres uniform."""
    import torch
    from torch.utils.data import DataLoader

    from whqa.loading.augmentation import Augmentation
    from whqa.loading.patches import PatchDataset
    from whqa.loading.sampling import PatchSampler

    torch.set_num_threads(1)
    cases = prepared(folder)
    data = PatchDataset(cases, list(cases), (PATCH,) * 3, 0.0, Augmentation() if augmented else None, 0)
    return forever(DataLoader(data, batch_size=1, sampler=PatchSampler(data, 1, PATCHES, None, 0)))


def monai(folder: Path, augmented: bool) -> Iterator[Any]:
    """All volumes in memory, a crop of fixed size."""
    import torch
    from monai.data import CacheDataset
    from monai.transforms import (
        Compose,
        EnsureChannelFirstd,
        LoadImaged,
        RandAdjustContrastd,
        RandAffined,
        RandGaussianNoised,
        RandScaleIntensityd,
        RandShiftIntensityd,
        RandSpatialCropd,
    )
    from torch.utils.data import DataLoader

    torch.set_num_threads(1)
    keys, turn = ["image", "label"], [np.deg2rad(15)] * 3
    steps: list[Any] = [
        LoadImaged(keys, reader="NumpyReader", dtype=np.float32),
        EnsureChannelFirstd(keys, channel_dim="no_channel"),
        RandSpatialCropd(keys, (PATCH,) * 3, random_size=False),
    ]
    if augmented:
        steps += [
            RandAffined(
                keys,
                prob=0.75,
                rotate_range=turn,
                scale_range=[0.15] * 3,
                mode=["bilinear", "nearest"],
                padding_mode="border",
            ),
            RandScaleIntensityd("image", factors=0.15, prob=0.5),
            RandShiftIntensityd("image", offsets=0.1, prob=0.5),
            RandAdjustContrastd("image", prob=0.5, gamma=(0.8, 1.2)),
            RandGaussianNoised("image", prob=0.5, std=0.1),
        ]
    files = [{k: str(c.directory / f"{k}.npy") for k in keys} for c in prepared(folder).values()]
    return forever(DataLoader(CacheDataset(files, Compose(steps), progress=False), batch_size=1, shuffle=True))


def torchio(folder: Path, augmented: bool) -> Iterator[Any]:
    """A queue of patches from volumes that are read again and again (uncompressed NIfTI)."""
    import nibabel as nib
    import torch
    import torchio as tio

    torch.set_num_threads(1)
    subjects = []
    for case in prepared(folder).values():
        for name, array in (("image", np.array(case.image(), np.float32)), ("label", np.array(case.label()))):
            nib.save(nib.Nifti1Image(array, np.diag([SPACING] * 3 + [1.0])), case.directory / f"{name}.nii")
        image, label = (case.directory / f"{name}.nii" for name in ("image", "label"))
        subjects.append(tio.Subject(image=tio.ScalarImage(image), label=tio.LabelMap(label)))
    change = tio.Compose(
        [
            tio.RandomAffine(scales=0.15, degrees=15, p=0.75),
            tio.RandomGamma(log_gamma=0.2, p=0.5),
            tio.RandomNoise(std=(0, 0.1), p=0.5),
        ]
    )
    data = tio.SubjectsDataset(subjects, transform=change if augmented else None)
    queue = tio.Queue(data, PATCHES, 8, tio.UniformSampler(PATCH), num_workers=0)
    return forever(tio.SubjectsLoader(queue, batch_size=1))


def forever(loader: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    return chain.from_iterable(repeat(loader))


ROWS: dict[str, tuple[Callable[[Path, bool], Iterator[Any]], str]] = {
    "whqa": (whqa, "whqa, memory-mapped"),
    "monai": (monai, "MONAI CacheDataset, RandSpatialCrop"),
    "torchio": (torchio, "TorchIO Queue, UniformSampler"),
}


def print_table(console: Console) -> None:
    """All rows beside ours."""
    table = Table(
        *(f"{PATCH}^3 patches", "loader", "a CPU second", "ours is", "peak MB", "of it beyond imports"),
        title=f"random patches from {CASES} volumes: one thread, best of {REPEATS} rounds and median ratio",
    )
    rows = [(peer, kind) for kind in KINDS for peer in ROWS]
    with tempfile.TemporaryDirectory() as folder:
        prepared(Path(folder))
        children = in_turn(__file__, [(*row, folder) for row in rows], REPEATS)
    own = {kind: child for (peer, kind), child in zip(rows, children, strict=True) if peer == "whqa"}
    for (peer, kind), child in zip(rows, children, strict=True):
        if child.failure:
            table.add_row(KINDS[kind], ROWS[peer][1], child.failure)
            continue
        ratio = statistics.median(one / ours for one, ours in zip(child.seconds, own[kind].seconds, strict=True))
        memory = megabytes(child.peak), megabytes(child.peak - child.imported)
        table.add_row(KINDS[kind], ROWS[peer][1], f"{PATCHES / min(child.seconds):.0f}", f"{ratio:.1f} x", *memory)
    console.print(table)


def child(peer: str, kind: str, folder: str) -> None:
    """One row; the first patches, for which volumes are read, do not count."""
    import torch  # noqa: F401 - what every loader needs does not count as its memory

    batches: list[Iterator[Any]] = []

    def work() -> None:
        consume(batches[0], PATCHES)

    def first() -> None:
        batches.append(ROWS[peer][0](Path(folder), kind == "augmented"))
        consume(batches[0], CASES)

    serve(work, first)


def consume(batches: Iterator[Any], count: int) -> None:
    """Take some patches."""
    for _ in islice(batches, count):
        pass


def main(words: Sequence[str]) -> None:
    """The table, or one row."""
    if words:
        child(*words)
    else:
        print_table(Console())


if __name__ == "__main__":
    main(sys.argv[1:])
