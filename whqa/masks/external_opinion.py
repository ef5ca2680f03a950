"""Another program's softmax as the second opinion of an experiment without segmenters.

    runs/<experiment>/external/<method>/masks/<case>/opinion.npz     as `whqa.masks.opinion` has it

Class i of the program is the label value i of its masks; classes of one structure are added, other organs count as
background, and a structure that the program lacks is as improbable as can be stored.

Shape suffixes: C all C + 1 labels, DHW space.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from whqa.data.alignment import on_lattice_of
from whqa.data.formats.volume_files import ClassMaps, Grid, Volume
from whqa.data.preprocess import Geometry, preprocess_map
from whqa.errors import InputError
from whqa.masks.opinion import LOWEST_LOG_P
from whqa.structures import LabelScheme

# Of a voxel: what is lacking to 1 is rounding up to here, and background that nobody predicted beyond.
_ROUNDING = 0.01


def structures_of_classes(
    maps: ClassMaps, scheme: LabelScheme, keys: tuple[str, ...], remedy: str
) -> npt.NDArray[np.uint8]:
    """Index in `keys` + 1 of each class, 0 for background and other organs: (classes,).

    Args:
        maps: of the program.
        scheme: values of its masks.
        keys: structures that are judged.
        remedy: what helps where a class has no meaning, the end of the line.

    Raises:
        InputError: the scheme has no value for a class.
    """
    n = len(maps.array)
    known = {0, *scheme.values.values(), *scheme.aliases, *scheme.ignored}
    strays = [number for number in range(n) if number not in known]
    if strays:
        raise InputError(
            f"{maps.path}: holds {n} classes, which are the label values 0 to {n - 1}, and the label scheme "
            f"{scheme.name!r} has no {strays[0]}; {remedy}"
        )
    table = np.array([0, *(keys.index(key) + 1 if key in keys else 0 for key in scheme.keys)], dtype=np.uint8)
    return table[scheme.to_indices(np.arange(n), str(maps.path))]


def labels_of_classes(
    maps: ClassMaps, structures: npt.NDArray[np.uint8], image: Grid | Volume
) -> npt.NDArray[np.uint8]:
    """The structure of each voxel's most probable class, on the image's grid (X, Y, Z).

    Raises:
        InputError: the maps do not lie on the image's lattice.
    """
    return on_lattice_of(image, Volume(structures[maps.best()], maps.affine, maps.path, maps.header)).array


def log_probabilities(
    maps: ClassMaps, structures: npt.NDArray[np.uint8], n_classes: int, image: Grid | Volume, geometry: Geometry
) -> Tensor:
    """log p_S on the cache grid of the image: float32 (C + 1, D, H, W).

    Args:
        maps: of the program.
        structures: see `structures_of_classes`.
        n_classes: C + 1.
        image: whose lattice the maps lie on.
        geometry: of the preprocessed image.

    Raises:
        InputError: the maps do not lie on the image's lattice.
    """
    p_CDHW = np.zeros((n_classes, *geometry.shape), np.float32)
    for index in np.unique(structures):
        summed = maps.array[structures == index].sum(axis=0, dtype=np.float32)
        placed = on_lattice_of(image, Volume(summed, maps.affine, maps.path, maps.header))
        p_CDHW[index] = preprocess_map(placed, geometry).clip(0, 1)
    lacking = 1 - p_CDHW.sum(axis=0)
    p_CDHW[0] += np.where(lacking > _ROUNDING, lacking, 0)
    p_CDHW /= p_CDHW.sum(axis=0)
    return torch.from_numpy(np.log(np.maximum(p_CDHW, np.float32(np.exp(LOWEST_LOG_P)))))


def agreement(told: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], n_classes: int) -> npt.NDArray[np.float64]:
    """How far a mask is what its program's probabilities tell, by label: (C + 1,), nan for what neither has.

    Of a structure: of the mask's voxels of any structure that either calls so (and the mask's own of this one), the
    share that both do. Of background: of the voxels that are told to be of any structure, the share that the mask
    gives to one. So what a program takes away after the prediction costs only the latter.

    Args:
        told: most probable structure of each voxel, 0..C.
        mask: structures of the same voxels.
        n_classes: C + 1.
    """
    slowest = max(range(3), key=lambda k: abs(mask.strides[k]))
    pairs = zip(np.moveaxis(told, slowest, 0), np.moveaxis(mask, slowest, 0), strict=True)
    # a slice at a time: bincount makes 64-bit integers of what it counts
    counts = sum(np.bincount((m.astype(np.intp) * n_classes + t).ravel(), minlength=n_classes**2) for t, m in pairs)
    of_mask_told = np.reshape(counts, (n_classes, n_classes))
    both = np.diag(of_mask_told).astype(float)
    either = of_mask_told.sum(axis=1) + of_mask_told[1:].sum(axis=0) - both
    both[0], either[0] = of_mask_told[1:, 1:].sum(), of_mask_told[:, 1:].sum()
    return np.divide(both, either, out=np.full(n_classes, np.nan), where=either > 0)
