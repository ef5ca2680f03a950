"""Aliasing and blur of interpolations from 0.45 x 0.45 x 0.6 mm to 1.5 mm, in HU, on a CT-like phantom of fine texture.

The reference is a low-pass at the target's Nyquist frequency (sinc under a Lanczos window of 8 lobes) sampled on the
target. It splits the phantom into what the target can show and the rest: what an interpolation makes of the rest is
aliasing, what it changes in the first is blur, and the difference of the whole from the reference holds both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scan import TARGET, VOXEL, noise
from scipy import ndimage

from whqa.data.resample import Kernel, Line, interpolate

SHAPE = (224, 224, 168)
LOBES = 8
Resample = Callable[[np.ndarray], np.ndarray]


def phantom() -> np.ndarray:
    """Blood, wall, lung with vessels, spongy bone, behind a scanner of 0.8 mm (FWHM) and 25 HU of noise."""
    rng = np.random.default_rng(0)
    x, y, z = (
        ((np.arange(n, dtype=np.float32) + 0.5 - n / 2) * size).reshape([-1 if k == axis else 1 for k in range(3)])
        for axis, (n, size) in enumerate(zip(SHAPE, VOXEL, strict=True))
    )
    image = np.full(SHAPE, 40, np.float32)
    radius = np.sqrt(x**2 + y**2 + (0.8 * z) ** 2)
    image[radius < 34], image[radius < 26] = 120, 380
    texture = ndimage.gaussian_filter(rng.standard_normal(SHAPE, dtype=np.float32), [1.0 / size for size in VOXEL])
    texture /= texture.std()
    lung, bone = (np.broadcast_to(part, SHAPE) for part in (x > 38, y < -36))
    image[lung] = np.where(texture > 1.6, 30, -820)[lung]
    image[bone] = np.where(texture > 0.3, 700, 100)[bone]
    return ndimage.gaussian_filter(image, [0.35 / size for size in VOXEL]) + noise(SHAPE, 25.0, rng)


def target_lines() -> list[Line]:
    """The target grid in the middle of the phantom."""
    lines = []
    for n, size in zip(SHAPE, VOXEL, strict=True):
        step = TARGET / size
        length = int(n / step)
        lines.append(Line((n - 1) / 2 - (length - 1) / 2 * step, step, length))
    return lines


def low_pass(image: np.ndarray, lines: list[Line]) -> np.ndarray:
    """What the target can show, at the voxels of `lines`."""
    for axis, (line, size) in enumerate(zip(lines, VOXEL, strict=True)):
        away = (line.positions()[:, None] - np.arange(image.shape[axis])) * size / TARGET
        weights = np.sinc(away) * np.sinc(away / LOBES) * (np.abs(away) < LOBES)
        weights /= weights.sum(axis=1, keepdims=True)
        image = np.moveaxis(np.tensordot(weights.astype(np.float32), image, (1, axis)), 0, axis)
    return image


def ours(kernel: Kernel, lines: list[Line]) -> Resample:
    """An interpolation of the package."""
    return lambda image: interpolate(image, lines, kernel=kernel)


def spline(order: int, lines: list[Line]) -> Resample:
    """scipy's, as nnU-Net has it through skimage."""
    at = np.meshgrid(*(line.positions() for line in lines), indexing="ij")
    return lambda image: ndimage.map_coordinates(image, at, order=order, mode="nearest")


def trilinear(lines: list[Line]) -> Resample:
    """torch's, whose kernel is that of MONAI's, TorchIO's and SimpleITK's linear interpolation."""
    spans = [np.interp(line.positions(), [0, n - 1], [-1, 1]) for line, n in zip(lines, SHAPE, strict=True)]
    grid = torch.from_numpy(np.stack(np.meshgrid(*spans, indexing="ij")[::-1], -1)[None].astype(np.float32))

    def run(image: np.ndarray) -> np.ndarray:
        volume = torch.from_numpy(np.ascontiguousarray(image))[None, None]
        return torch.nn.functional.grid_sample(volume, grid, align_corners=True)[0, 0].numpy()

    return run


def rms(array: np.ndarray) -> float:
    """Away from the edges, where kernels are cut."""
    inner = array[tuple(slice(LOBES + 1, -LOBES - 1) for _ in range(3))]
    return float(np.sqrt(np.mean(inner.astype(np.float64) ** 2)))


def print_table(console: Console) -> None:
    """Difference, aliasing and blur of each interpolation."""
    table = Table(
        *("to 1.5 mm, RMS in HU", "difference", "aliasing", "blur"), title="interpolation beside an ideal low-pass"
    )
    image, lines = phantom(), target_lines()
    shown = low_pass(image, [Line(0.0, 1.0, n) for n in SHAPE])
    reference, shown_reference = low_pass(image, lines), low_pass(shown, lines)
    for name, resample in (
        ("trilinear (torch, MONAI, TorchIO, SimpleITK)", trilinear(lines)),
        ("spline of order 1 (scipy)", spline(1, lines)),
        ("spline of order 3 (nnU-Net)", spline(3, lines)),
        ("linear, widened", ours("linear", lines)),
        ("cubic, widened (ours)", ours("cubic", lines)),
    ):
        whole, below = resample(image), resample(shown)
        values = rms(whole - reference), rms(resample(image - shown)), rms(below - shown_reference)
        table.add_row(name, *(f"{value:.1f}" for value in values))
    console.print(table)


if __name__ == "__main__":
    print_table(Console())
