"""What an image and a mask of it look like in numbers, without a reference: brightness, shapes, borders.

    inside_p*                   percentiles of the normalised image in the mask
    outside_p*                  and outside of the heart region (`whqa.quality`), 10 mm away from the mask
    noise                       spread of the second differences where the mask has one label, as a Gaussian's sigma
    explained                   share of the image's variance in the heart region that lies between the mask's labels
    edge                        gradient of the image on the mask's surfaces over that in the heart region
    heart_ml                    volume of the mask
    volume_<s>, share_<s>       of a structure: ml, share of the mask
    components_<s>              pieces that do not touch
    roughness_<s>               surface over that of a ball of the same volume
    contrast_<s>                mean of the image in the structure minus that in all the others
    offset_{lr,ap,si}_<s>       mm from the middle of the mask to that of the structure, towards right, front, head

What does not exist, such as the contrast of a structure that the mask lacks, is nan.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from whqa.quality import heart_region

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]

AXES = ("lr", "ap", "si")
_INSIDE, _OUTSIDE = (5, 25, 50, 75, 95), (5, 50, 95)
OF_IMAGE = (
    *(f"inside_p{p:02d}" for p in _INSIDE),
    *(f"outside_p{p:02d}" for p in _OUTSIDE),
    *("noise", "explained", "edge"),
)
OF_STRUCTURE = (
    *("volume", "share", "components", "roughness", "contrast"),
    *(f"offset_{axis}" for axis in AXES),
)
# Second differences of white noise have the variance 1 + 4 + 1; the median of |x| is 0.6745 sigma.
_SIGMA = 1 / (0.6745 * np.sqrt(6))


def of_image(image: Array, mask: Labels, spacing: Sequence[float]) -> dict[str, float]:
    """The numbers `OF_IMAGE`.

    Args:
        image: (D, H, W), normalised.
        mask: labels, (D, H, W).
        spacing: mm along D, H, W.
    """
    region = heart_region(torch.from_numpy(mask), spacing).numpy()
    inside, outside = image[mask != 0], image[~region]
    # the region's box is what the rest needs, with a voxel more for the differences
    box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in ndimage.find_objects(region.astype(np.uint8))[0])
    image, mask, region = image[box], mask[box], region[box]
    values = (
        *_percentiles(inside, _INSIDE),
        *_percentiles(outside, _OUTSIDE),
        _noise(image, mask, region),
        _explained(image[region], mask[region]),
        _edge(image, mask, region, spacing),
    )
    return dict(zip(OF_IMAGE, values, strict=True))


def _percentiles(values: Array, which: Sequence[int]) -> list[float]:
    return [float(p) for p in np.percentile(values, which)] if values.size else [np.nan] * len(which)


def _noise(image: Array, mask: Labels, region: npt.NDArray[np.bool_]) -> float:
    found = []
    for axis in range(3):
        before, middle, after = (_part(axis, start, stop) for start, stop in ((0, -2), (1, -1), (2, None)))
        alike = (mask[before] == mask[middle]) & (mask[middle] == mask[after]) & region[middle]
        found.append(np.abs(image[before] - 2 * image[middle] + image[after])[alike])
    everything = np.concatenate(found)
    return float(np.median(everything) * _SIGMA) if everything.size else np.nan


def _explained(values: Array, labels: Labels) -> float:
    total = float(values.var(dtype=np.float64)) * values.size
    if not total:
        return np.nan
    counts = np.bincount(labels)
    sums = np.bincount(labels, weights=values)
    means = sums[counts > 0] / counts[counts > 0]
    between = (counts[counts > 0] * (means - values.mean(dtype=np.float64)) ** 2).sum()
    return float(between / total)


def _edge(image: Array, mask: Labels, region: npt.NDArray[np.bool_], spacing: Sequence[float]) -> float:
    if min(image.shape) < 2:
        return np.nan
    steepness = np.sqrt(sum(g**2 for g in np.gradient(image, *spacing)))
    surface = np.zeros(mask.shape, dtype=bool)
    for axis in range(3):
        first, second = _part(axis, 0, -1), _part(axis, 1, None)
        border = mask[first] != mask[second]
        surface[first] |= border
        surface[second] |= border
    everywhere = float(steepness[region].mean())
    return float(steepness[surface].mean()) / everywhere if everywhere and surface.any() else np.nan


def of_mask(image: Array, mask: Labels, spacing: Sequence[float], structures: Sequence[str]) -> dict[str, float]:
    """`heart_ml` and, of each structure, the numbers `OF_STRUCTURE`; `structures` names the labels 1..C."""
    ml = float(np.prod(spacing)) / 1000
    boxes = ndimage.find_objects(mask, max_label=len(structures))
    counts = np.bincount(mask.ravel(), minlength=len(structures) + 1)[1:]
    sums = np.bincount(mask.ravel(), weights=image.ravel(), minlength=len(structures) + 1)[1:]
    centres = [_centre(mask, box, label, spacing) for label, box in enumerate(boxes, start=1)]
    total = int(counts.sum())
    middle = np.nansum([n * c for n, c in zip(counts, centres, strict=True)], axis=0) / total if total else np.nan
    values = {"heart_ml": total * ml}
    for i, structure in enumerate(structures):
        n, others = int(counts[i]), total - int(counts[i])
        part = mask[boxes[i]] == i + 1 if n else None
        row = {
            "volume": n * ml,
            "share": n / total if total else np.nan,
            "components": np.nan if part is None else ndimage.label(part, np.ones((3, 3, 3)))[1],
            "roughness": np.nan if part is None else _roughness(part, spacing),
            "contrast": sums[i] / n - (sums.sum() - sums[i]) / others if n and others else np.nan,
        }
        row |= {f"offset_{axis}": o for axis, o in zip(AXES, centres[i] - middle, strict=True)}
        values |= {f"{name}_{structure}": float(value) for name, value in row.items()}
    return values


def _centre(
    mask: Labels, box: tuple[slice, ...] | None, label: int, spacing: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Centroid of a label in mm (3,); nan where the mask lacks it."""
    if box is None:
        return np.full(3, np.nan)
    inside = np.array(np.nonzero(mask[box] == label)).mean(axis=1)
    return np.asarray((inside + [s.start for s in box]) * np.asarray(spacing))


def _roughness(part: npt.NDArray[np.bool_], spacing: Sequence[float]) -> float:
    padded = np.pad(part, 1)
    faces = [float(np.prod(spacing)) / spacing[axis] for axis in range(3)]
    surface = sum(
        area * np.count_nonzero(padded[_part(axis, 0, -1)] != padded[_part(axis, 1, None)])
        for axis, area in enumerate(faces)
    )
    volume = float(part.sum()) * float(np.prod(spacing))
    return float(surface / (36 * np.pi * volume**2) ** (1 / 3))


def _part(axis: int, start: int, stop: int | None) -> tuple[slice, ...]:
    return tuple(slice(start, stop) if k == axis else slice(None) for k in range(3))
