"""The metrics of one case, Dice and HD95 of 7 structures, error Dice and AUPRC, beside MONAI and scikit-learn.

In turn, in one process of one thread, in CPU seconds; the numbers must be the same. The mask is the label map of a
phantom, bent.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from timing import cpu_seconds

from whqa.data.phantom import make_phantom
from whqa.metrics.error_detection import average_precision, error_dice
from whqa.metrics.segmentation import segmentation_dice
from whqa.metrics.surface import hd95_mm
from whqa.structures import MMWHS

SPACINGS, REPEATS, N = (3.0, 1.05), 5, 8
Work = Callable[[], Any]


def case(spacing: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mask, reference, probability of an error."""
    reference = MMWHS.to_indices(make_phantom(0, 0, "ct", spacing).label, "phantom")
    rng = np.random.default_rng(0)
    at = np.stack(np.meshgrid(*map(np.arange, reference.shape), indexing="ij")).astype(np.float32)
    for axis in range(3):
        bend = ndimage.gaussian_filter(rng.standard_normal(reference.shape, np.float32), 6 / spacing)
        at[axis] += 2 / spacing * bend / bend.std()
    mask = ndimage.map_coordinates(reference, at, order=0, mode="nearest")
    error = ndimage.gaussian_filter((mask != reference).astype(np.float32), 1)
    probability = np.clip(error + 0.1 * rng.random(error.shape, np.float32), 0, 1)
    return torch.from_numpy(mask), torch.from_numpy(reference), torch.from_numpy(probability)


def works(spacing: float) -> dict[str, tuple[Work, Work]]:
    """Each metric ours and theirs; the one-hot maps that MONAI needs are made beforehand."""
    from monai.metrics import compute_dice, compute_hausdorff_distance
    from sklearn.metrics import average_precision_score

    mask, reference, p = case(spacing)
    error, mm = mask != reference, (spacing,) * 3
    one, two = (torch.nn.functional.one_hot(m.long(), N).movedim(-1, 0)[None].float() for m in (mask, reference))
    return {
        "Dice of 7": (
            lambda: segmentation_dice(mask, reference, N),
            lambda: compute_dice(one, two, include_background=False)[0].numpy(),
        ),
        "HD95 of 7": (
            lambda: hd95_mm(mask, reference, mm, N),
            lambda: compute_hausdorff_distance(one, two, percentile=95, spacing=mm)[0].numpy(),
        ),
        "error Dice": (
            lambda: error_dice(p >= 0.3, error),
            lambda: float(compute_dice((p >= 0.3)[None, None].float(), error[None, None].float())),
        ),
        "AUPRC": (
            lambda: average_precision(p, error),
            lambda: average_precision_score(error.numpy().ravel(), p.numpy().ravel()),
        ),
    }


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median and, in brackets, least and most."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def print_table(console: Console) -> None:
    """Both sizes, each metric and the sum."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    table = Table(
        *("metrics of a case", "voxels", "ms", "MONAI, scikit-learn, ms", "ratio"),
        title=f"one thread, CPU time, medians of {REPEATS} and range",
    )
    for spacing in SPACINGS:
        size = round(168 / spacing)
        sums = np.zeros((2, REPEATS))
        for name, (ours, theirs) in works(spacing).items():
            np.testing.assert_allclose(ours(), theirs(), rtol=1e-5)
            times = np.array([[cpu_seconds(ours), cpu_seconds(theirs)] for _ in range(REPEATS)]).T
            sums += times
            table.add_row(name, f"{size}^3", *(spread(list(1e3 * t)) for t in times), spread(list(times[1] / times[0])))
        table.add_row("sum", f"{size}^3", *(spread(list(1e3 * t)) for t in sums), spread(list(sums[1] / sums[0])))
    console.print(table)


if __name__ == "__main__":
    print_table(Console(width=120))
