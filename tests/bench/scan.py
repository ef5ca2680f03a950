"""A CT-like scan as files: noise and edges compress and alias as those of a real one do."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

SHAPE, VOXEL = (512, 512, 300), (0.45, 0.45, 0.6)
TARGET = 1.5


def noise(shape: tuple[int, int, int], deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Noise with the correlation of a soft reconstruction kernel, a block of it side by side."""
    block = ndimage.gaussian_filter(rng.standard_normal((128, 128, 100), dtype=np.float32), 0.6, mode="wrap")
    block *= deviation / block.std()
    tiles = [-(-n // m) for n, m in zip(shape, block.shape, strict=True)]
    return np.tile(block, tiles)[tuple(slice(n) for n in shape)]


def write_scan(folder: Path) -> tuple[Path, Path]:
    """Cardiac CT of 512 x 512 x 300 voxels, int16 .nii.gz stored as left, posterior, superior, and its label map."""
    x, y, z = (np.linspace(-1, 1, n, dtype=np.float32) for n in SHAPE)
    x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
    image = np.full(SHAPE, 40, np.float32)
    image[np.broadcast_to(x**2 / 0.72 + y**2 / 0.42 > 1, SHAPE)] = -1000
    image[((np.abs(x) - 0.45) / 0.3) ** 2 + (y / 0.5) ** 2 + z**2 / 1.2 < 1] = -850
    radius = np.sqrt((x - 0.1) ** 2 + y**2 + z**2 / 0.8)
    image[radius < 0.45] = 120
    image[radius < 0.36] = 380
    image += noise(SHAPE, 25.0, np.random.default_rng(0))
    label = np.zeros(SHAPE, np.int16)
    label[radius < 0.45] = 205
    label[radius < 0.36] = 500
    label[(radius < 0.36) & (x > 0.1)] = 600
    affine = np.diag([-VOXEL[0], -VOXEL[1], VOXEL[2], 1.0])
    paths = folder / "ct_train_1_image.nii.gz", folder / "ct_train_1_label.nii.gz"
    for path, array in zip(paths, (np.clip(image, -1024, 3071).astype(np.int16), label), strict=True):
        nib.save(nib.Nifti1Image(array, affine), path)
    return paths
