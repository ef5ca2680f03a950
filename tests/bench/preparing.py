"""From a file to the cache: .nii.gz, closest canonical axes, 1.5 mm, an array on disk.

One process of one thread each, in turn: `preparing.py monai DIR` is one row, by a child.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scan import TARGET, write_scan
from timing import in_turn, megabytes, serve

REPEATS = 5


def whqa(folder: Path, label: bool = False) -> Callable[[], None]:
    """Ours, with everything it does besides: content hash, checks of header and voxels, window, geometry."""
    from whqa.data.cache import Cache
    from whqa.data.case import Case, Cohort
    from whqa.data.preprocess import Preprocess
    from whqa.structures import MMWHS

    path = folder / "ct_train_1_label.nii.gz" if label else None
    cohort = Cohort("bench", (Case("1", "1", "ct", folder / "ct_train_1_image.nii.gz", path),), MMWHS)

    def run() -> None:
        shutil.rmtree(folder / "cache", ignore_errors=True)
        Cache(folder / "cache", Preprocess((TARGET,) * 3)).prepare(cohort, cohort.cases[0])

    return run


def whqa_with_label(folder: Path) -> Callable[[], None]:
    """Ours, the label map as well."""
    return whqa(folder, label=True)


def monai(folder: Path) -> Callable[[], None]:
    """MONAI's usual chain."""
    import torch
    from monai.transforms import Compose, EnsureChannelFirst, LoadImage, Orientation, Spacing

    torch.set_num_threads(1)
    chain = Compose(
        [LoadImage(image_only=True), EnsureChannelFirst(), Orientation("RAS"), Spacing((TARGET,) * 3, mode="bilinear")]
    )
    return lambda: save(folder, np.asarray(chain(folder / "ct_train_1_image.nii.gz")))


def torchio(folder: Path) -> Callable[[], None]:
    """TorchIO's usual chain."""
    import SimpleITK
    import torch
    import torchio

    torch.set_num_threads(1)
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    chain = torchio.Compose([torchio.ToCanonical(), torchio.Resample(TARGET)])
    return lambda: save(folder, chain(torchio.ScalarImage(folder / "ct_train_1_image.nii.gz")).numpy())


def scipy_linear(folder: Path) -> Callable[[], None]:
    """nibabel and scipy's linear zoom."""
    import nibabel as nib
    from scipy import ndimage

    def run() -> None:
        scan = nib.as_closest_canonical(nib.load(folder / "ct_train_1_image.nii.gz"))
        voxels = np.asanyarray(scan.dataobj).astype(np.float32)
        save(folder, ndimage.zoom(voxels, np.array(scan.header.get_zooms()) / TARGET, order=1))

    return run


def nnunet(folder: Path) -> Callable[[], None]:
    """nnU-Net v2's default: SimpleITK, intensities normalised, then skimage's resize of order 3 in float64."""
    import SimpleITK
    from skimage.transform import resize

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def run() -> None:
        scan = SimpleITK.ReadImage(str(folder / "ct_train_1_image.nii.gz"))
        voxels = SimpleITK.GetArrayFromImage(scan).astype(np.float32)
        np.clip(voxels, -900, 600, out=voxels)
        voxels -= 50.0
        voxels /= 200.0
        shape = [round(n * s / TARGET) for n, s in zip(voxels.shape, scan.GetSpacing()[::-1], strict=True)]
        save(folder, resize(voxels.astype(float), shape, 3, mode="edge", anti_aliasing=False).astype(np.float32))

    return run


def simpleitk(folder: Path) -> Callable[[], None]:
    """SimpleITK alone, linear."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def run() -> None:
        scan = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(folder / "ct_train_1_image.nii.gz")), "LPS")
        size = [round(n * s / TARGET) for n, s in zip(scan.GetSize(), scan.GetSpacing(), strict=True)]
        place = (SimpleITK.Transform(), SimpleITK.sitkLinear, scan.GetOrigin(), (TARGET,) * 3, scan.GetDirection())
        save(folder, SimpleITK.GetArrayFromImage(SimpleITK.Resample(scan, size, *place)))

    return run


def save(folder: Path, array: np.ndarray) -> None:
    """As small as ours."""
    np.save(folder / "prepared.npy", array.astype(np.float16))


ROWS: dict[str, tuple[Callable[[Path], Callable[[], None]], str]] = {
    "whqa": (whqa, "whqa (cubic, anti-aliased)"),
    "monai": (monai, "MONAI LoadImage, Orientation, Spacing"),
    "torchio": (torchio, "TorchIO ToCanonical, Resample"),
    "scipy": (scipy_linear, "nibabel, scipy zoom of order 1"),
    "nnunet": (nnunet, "nnU-Net's way, skimage of order 3"),
    "simpleitk": (simpleitk, "SimpleITK, linear"),
    "whqa_label": (whqa_with_label, "whqa with the label map"),
}


def print_table(console: Console) -> None:
    """All rows beside ours."""
    table = Table(
        *("preparing 512 x 512 x 300", "CPU s", "times ours", "peak MB", "of it beyond imports"),
        title=f"CT to {TARGET} mm in the cache: one thread, least of {REPEATS} rounds and median ratio",
    )
    with tempfile.TemporaryDirectory() as folder:
        write_scan(Path(folder))
        children = in_turn(__file__, [(peer, folder) for peer in ROWS], REPEATS)
    for child, (_, title) in zip(children, ROWS.values(), strict=True):
        if child.failure:
            table.add_row(title, child.failure)
            continue
        ratio = statistics.median(one / own for one, own in zip(child.seconds, children[0].seconds, strict=True))
        memory = megabytes(child.peak), megabytes(child.peak - child.imported)
        table.add_row(title, f"{min(child.seconds):.2f}", f"{ratio:.1f}", *memory)
    console.print(table)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(ROWS[sys.argv[1]][0](Path(sys.argv[2])))
    else:
        print_table(Console())
