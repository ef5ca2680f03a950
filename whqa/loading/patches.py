"""Training patches: where they are cut, how they are augmented.

A patch is cut and warped in one step: its affine map into the volume is drawn first, then only the box that it touches
is read from the memory map. Everything is drawn from a generator keyed by (seed, epoch, position in the epoch).

Shape suffixes: C channels, D, H, W the axes of the cache grid; `spacing` is mm along D, H, W.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from whqa.data.points import spread_points
from whqa.loading.augmentation import Augmentation
from whqa.loading.brightness import brightness
from whqa.loading.patch_settings import Dropout
from whqa.loading.sampling import PatchRequest
from whqa.masks.opinion import CODES, decode

if TYPE_CHECKING:
    from whqa.data.cache import PreparedCase
    from whqa.masks.opinion import Opinion
    from whqa.masks.store import MaskItem

Triple = tuple[int, int, int]
Array = npt.NDArray[Any]
MASK_CACHE_BYTES = 512 * 2**20
# Cases whose files stay open: two files each, of about a thousand that a process may have.
OPEN_CASES = 64
# Voxels warped at a time.
_WARP_VOXELS = 1 << 16
# Voxels around a warped patch, far more than float32 rounds positions by.
_SPARE = 1e-3


@dataclass(frozen=True)
class Window:
    """Where a patch lies: voxel i of the patch is at `matrix @ (i - (size - 1) / 2) + centre` of the volume."""

    size: Triple
    centre: npt.NDArray[np.float64]
    matrix: npt.NDArray[np.float64]

    def box(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """First and last + 1 voxel, along D, H, W, that the patch needs; may lie outside the volume."""
        reach = np.abs(self.matrix) @ ((np.array(self.size) - 1) / 2)
        # every point of a warped patch lies strictly between two voxels, in spite of rounding
        spare = 1e-6 if self.is_crop else -_SPARE
        first = np.floor(self.centre - reach + spare).astype(np.int64)
        return first, np.ceil(self.centre + reach - spare).astype(np.int64) + 1

    def positions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Where the voxels of the patch lie, in voxels of `box()`: the sum of (3, D), (3, H) and (3, W), float32."""
        start = self.centre - self.box()[0] - self.matrix @ ((np.array(self.size) - 1) / 2)
        d, h, w = (
            column[:, None] * np.arange(n) + offset[:, None]
            for column, n, offset in zip(self.matrix.T, self.size, (start, np.zeros(3), np.zeros(3)), strict=True)
        )
        return torch.from_numpy(d).float(), torch.from_numpy(h).float(), torch.from_numpy(w).float()

    @property
    def is_crop(self) -> bool:
        """Whether the patch is a plain box of voxels."""
        return bool(np.array_equal(self.matrix, np.eye(3)))


def place_window(
    shape: Sequence[int],
    size: Sequence[int],
    centre: npt.NDArray[np.integer],
    affine_mm: npt.NDArray[np.float64],
    spacing: Sequence[float],
) -> Window:
    """The patch around `centre`, moved inside the volume where it fits, in its middle where it does not.

    Args:
        shape: of the volume.
        size: of the patch.
        centre: voxel to be in the middle.
        affine_mm: (3, 3) map of offsets in mm, so that rotations stay rotations on anisotropic voxels.
        spacing: mm along D, H, W.
    """
    n, p = np.array(shape), np.array(size)
    start = np.where(n > p, np.clip(centre - p // 2, 0, np.maximum(n - p, 0)), (n - p) // 2)
    matrix = np.diag(1 / np.array(spacing)) @ affine_mm @ np.diag(spacing)
    if np.allclose(matrix, np.eye(3)):
        matrix = np.eye(3)
    return Window((int(p[0]), int(p[1]), int(p[2])), start + (p - 1) / 2, matrix)


def cut(
    window: Window,
    image_DHW: Array,
    labels_DHW: Sequence[Array],
    outside: float,
    of_labels: Sequence[int] | None = None,
) -> tuple[Tensor, list[Tensor]]:
    """The patch of the image, float32 (trilinear), and of each label map, int64 (nearest); all (D, H, W).

    Args:
        image_DHW: may be a memory map.
        labels_DHW: of the image's shape.
        outside: the image's value outside the volume.
        of_labels: that of each label map, 0 by default.
    """
    image = torch.from_numpy(_read_box(image_DHW, window, outside)).float()
    fills = of_labels or [0] * len(labels_DHW)
    boxes = (_read_box(volume, window, fill) for volume, fill in zip(labels_DHW, fills, strict=True))
    labels = [torch.from_numpy(box) for box in boxes]
    if not window.is_crop:
        image, labels = _warp(window, image, labels)
    return image, [label.long() for label in labels]


def _read_box(volume_DHW: Array, window: Window, fill: float) -> Array:
    first, last = window.box()
    low, high = np.maximum(first, 0), np.minimum(last, volume_DHW.shape)
    inside = volume_DHW[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    if inside.shape == tuple(last - first):
        return np.ascontiguousarray(inside)
    box = np.full(tuple(last - first), fill, dtype=volume_DHW.dtype)
    box[tuple(slice(a - f, b - f) for a, b, f in zip(low, high, first, strict=True))] = inside
    return box


def _warp(window: Window, image: Tensor, labels: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The patch from the boxes that it needs: image trilinear, labels by nearest neighbours.

    Gathering eight neighbours by a flat index takes half the time of `grid_sample`, and labels share the index. Some
    planes at a time, so that what is in between stays in the processor's cache.
    """
    patch = torch.empty(window.size)
    warped = [torch.empty(window.size, dtype=label.dtype) for label in labels]
    flat, flat_labels = image.view(-1), [label.view(-1) for label in labels]
    steps = image.stride()
    d, h, w = window.positions()
    plane = h[:, :, None] + w[:, None, :]
    size = max(1, _WARP_VOXELS // plane[0].numel())
    for start in range(0, len(patch), size):
        part = slice(start, start + size)
        share = (d[:, part, None, None] + plane[:, None]).view(3, -1)
        whole = share.floor()
        low = _flat(whole, steps)
        _trilinear(flat, low, share.sub_(whole), steps, patch[part].view(-1))
        nearest = _flat(share.round_(), steps).add_(low)
        for label, target in zip(flat_labels, warped, strict=True):
            torch.index_select(label, 0, nearest, out=target[part].view(-1))
    return patch, warped


def _flat(indices: Tensor, steps: Sequence[int]) -> Tensor:
    """Whole numbers along D, H, W (3, n) -> indices into the flat box, int32 (n,)."""
    # float32 holds whole numbers up to 2^24, far more voxels than the planes of a box have
    in_plane = indices[2].add(indices[1], alpha=steps[1]).to(torch.int32)
    return in_plane.add_(indices[0].to(torch.int32), alpha=steps[0])


def _trilinear(flat: Tensor, low: Tensor, share: Tensor, steps: Sequence[int], target: Tensor) -> None:
    """Blend the eight neighbours of each point: the lowest at `low` (n,), the others by `share` (3, n)."""

    def row(offset: int) -> Tensor:
        return flat[offset:].index_select(0, low).lerp_(flat[offset + 1 :].index_select(0, low), share[2])

    def plane(offset: int) -> Tensor:
        return row(offset).lerp_(row(offset + steps[1]), share[1])

    torch.lerp(plane(0), plane(steps[0]), share[0], out=target)


class MaskMemory:
    """Masks and opinions as uint8, read from disk once; the least recently used leave when `max_bytes` are exceeded."""

    def __init__(self, max_bytes: int = MASK_CACHE_BYTES) -> None:
        self.max_bytes, self.bytes = max_bytes, 0
        self._kept: OrderedDict[str, npt.NDArray[np.uint8]] = OrderedDict()

    def load(self, path: Path, read: Callable[[], npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        """What `read` finds in the file."""
        key = str(path)
        if key not in self._kept:
            self._kept[key] = read()
            self.bytes += self._kept[key].nbytes
            while self.bytes > self.max_bytes and len(self._kept) > 1:
                self.bytes -= self._kept.popitem(last=False)[1].nbytes
        self._kept.move_to_end(key)
        return self._kept[key]


class VolumeMaps:
    """Memory maps of prepared cases, opened once; the least recently used are closed, for files may be few."""

    def __init__(self, limit: int = OPEN_CASES) -> None:
        self.limit = limit
        self._open: OrderedDict[str, tuple[Array, Array]] = OrderedDict()

    def of(self, case: PreparedCase) -> tuple[Array, Array]:
        """Image and label map of a case."""
        if case.id not in self._open:
            self._open[case.id] = case.image(), case.label()
            if len(self._open) > self.limit:
                self._open.popitem(last=False)
        self._open.move_to_end(case.id)
        return self._open[case.id]


class PatchDataset(Dataset[dict[str, Tensor]]):
    """Augmented training patches, asked for by a `PatchRequest`.

    Items are cases or, with `masks`, the masks under judgement. A patch is a dict of image float32 (1, D, H, W), label
    int64 (D, H, W), index, the item's number, and with masks mask int64 (D, H, W), plain, the image before its
    intensities are augmented, brightness float32 (C + 1, 2) of the mask's structures, see `whqa.loading.brightness`,
    and spacing float32 (3,) in mm; with opinions `said` float32 (C + 1, D, H, W); with `dropout.mask_dropout`
    mask_shown, 0 where the network must not see the mask and else 1, float32 ().

    Args:
        cases: prepared cases by id.
        items: case ids, or masks under judgement.
        size: of the patch in voxels.
        foreground: probability that a patch is centred on a random voxel of a random structure; with masks on a random
            voxel that is wrong, or where the mask is not what the opinion holds for most probable, if there is any.
            Other centres are uniform over the volume.
        augmentation: None cuts plain boxes.
        seed: of all random draws, together with epoch and position.
        opinions: a segmenter's opinion on each case, or None.
        n_classes: C + 1.
        dropout: what is withheld from patches with masks.
        said: under which name a patch comes with its opinion, see `whqa.quality.JudgedCase`.
    """

    def __init__(
        self,
        cases: Mapping[str, PreparedCase],
        items: Sequence[str | MaskItem],
        size: Sequence[int],
        foreground: float,
        augmentation: Augmentation | None,
        seed: int,
        opinions: Mapping[str, Opinion] | None = None,
        n_classes: int = 0,
        dropout: Dropout | None = None,
        said: str = "log_p",
    ) -> None:
        self.said = said
        self.opinions, self.n_classes, self.dropout = opinions, n_classes, dropout or Dropout()
        self._brightness: dict[int, Tensor] = {}
        self.cases, self.items, self.size = cases, list(items), tuple(size)
        self.foreground, self.augmentation, self.seed = foreground, augmentation, seed
        self._structures: dict[str, list[npt.NDArray[np.int16]]] = {}
        self._doubtful: dict[int, npt.NDArray[np.int16]] = {}
        self._masks, self._volumes = MaskMemory(), VolumeMaps()

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, request: PatchRequest | int) -> dict[str, Tensor]:
        # Lightning's overfit_batches replaces the sampler by one of plain numbers: the same patches every epoch.
        epoch, position, number = request if isinstance(request, tuple) else (0, request, request)
        rng = np.random.default_rng((self.seed, epoch, position))
        item = self.items[number]
        case = self.cases[item if isinstance(item, str) else item.case]
        centre = self._centre(number, case, rng)
        affine = self.augmentation.draw_affine(rng) if self.augmentation else np.eye(3)
        window = place_window(case.shape, self.size, centre, affine, case.spacing)
        volume, label = self._volumes.of(case)
        maps = {"label": label} | ({} if isinstance(item, str) else {"mask": self._masks.load(item.path, item.mask)})
        codes = self._codes(case.id)
        # outside the volume there is background, and the opinion is sure of it
        outside = [0] * len(maps) + [0, *[CODES] * (len(codes) - 1)][: len(codes)]
        image, cuts = cut(window, volume, [*maps.values(), *codes], case.minimum, outside)
        patch: dict[str, Tensor] = {} if isinstance(item, str) else self._unchanged(number, case, image)
        if self.augmentation:
            image = self.augmentation.change_intensity(image, rng)
        patch |= dict(zip(maps, cuts, strict=False))
        if len(codes):
            patch[self.said] = decode(torch.stack(cuts[len(maps) :]))
        return {"image": image[None], **patch, **self._withheld(patch, rng), "index": torch.tensor(number)}

    def _withheld(self, patch: Mapping[str, Tensor], rng: np.random.Generator) -> dict[str, Tensor]:
        """What changes in a patch because the network must not know all; the last draws, so that no other one moves."""
        changed: dict[str, Tensor] = {}
        if self.said in patch and self.dropout.opinion_dropout and rng.random() < self.dropout.opinion_dropout:
            changed[self.said] = torch.full_like(patch[self.said], -math.log(self.n_classes))
        if "mask" in patch and self.dropout.mask_dropout:
            changed["mask_shown"] = torch.tensor(float(rng.random() >= self.dropout.mask_dropout))
        return changed

    def _unchanged(self, number: int, case: PreparedCase, image_DHW: Tensor) -> dict[str, Tensor]:
        """The patch before its intensities are augmented, brightness under the mask, as in the volume, and spacing."""
        if number not in self._brightness:
            item = self.items[number]
            assert not isinstance(item, str)
            mask = self._masks.load(item.path, item.mask)
            found = brightness(self._volumes.of(case)[0], mask, case.spacing, self.n_classes)
            self._brightness[number] = torch.from_numpy(found)
        spacing = torch.tensor(case.spacing)
        return {"plain": image_DHW[None], "brightness": self._brightness[number], "spacing": spacing}

    def _codes(self, case: str) -> Sequence[Array]:
        """The opinion on a case, one volume a label; nothing without opinions."""
        if self.opinions is None:
            return ()
        return list(self._masks.load(self.opinions[case].path, self.opinions[case].codes))

    def _centre(self, number: int, case: PreparedCase, rng: np.random.Generator) -> npt.NDArray[np.integer]:
        if rng.random() < self.foreground:
            doubtful = self._doubtful_voxels(number, case)
            if len(doubtful):
                return rng.choice(doubtful)
            if case.id not in self._structures:
                self._structures[case.id] = case.structures()
            structures = self._structures[case.id]
            if structures:
                return rng.choice(structures[rng.integers(len(structures))])
        return rng.integers(0, case.shape)

    def _most_probable(self, case: str) -> npt.NDArray[np.uint8]:
        """Labels of the opinion on a case, of which there are many masks; kept beside these, within the same limit."""
        opinion = self.opinions[case]  # type: ignore[index]
        codes = self._masks.load(opinion.path, opinion.codes)
        return self._masks.load(opinion.path / "labels", lambda: codes.argmin(axis=0).astype(np.uint8))

    def _doubtful_voxels(self, number: int, case: PreparedCase) -> npt.NDArray[np.int16]:
        item = self.items[number]
        if isinstance(item, str):
            return np.empty((0, 3), np.int16)
        if number not in self._doubtful:
            mask = self._masks.load(item.path, item.mask)
            wrong = mask != self._volumes.of(case)[1]
            if self.opinions is not None:
                # centres chosen by the truth alone would teach that whatever is doubted is wrong
                wrong |= mask != self._most_probable(case.id)
            self._doubtful[number] = spread_points(np.flatnonzero(wrong), wrong.shape)
        return self._doubtful[number]
