from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from whqa.loading.augmentation import Augmentation
from whqa.loading.brightness import brightness
from whqa.loading.patch_settings import Dropout
from whqa.loading.patches import MaskMemory, PatchDataset, VolumeMaps, cut, place_window
from whqa.loading.sampling import PatchRequest
from whqa.masks.opinion import decode

N_CLASSES = 4
STRONG = Augmentation(rotate_deg=(40, 40, 40), scale=0.3, probability=1.0)


@dataclass
class _Case:
    """Stands for a prepared case without a disk."""

    pixels: np.ndarray
    labels: np.ndarray
    id: str = "a"
    spacing: tuple[float, float, float] = (1.5, 1.5, 1.5)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    def image(self) -> np.ndarray:
        return self.pixels

    def label(self) -> np.ndarray:
        return self.labels

    @property
    def minimum(self) -> float:
        return float(self.pixels.min())

    def structures(self) -> list[np.ndarray]:
        return [np.argwhere(self.labels == v) for v in np.unique(self.labels) if v]


@dataclass
class _Mask:
    values: np.ndarray
    path: Path
    case: str = "a"
    reads: int = 0

    def mask(self) -> np.ndarray:
        self.reads += 1
        return self.values


@dataclass
class _Opinion:
    """Stands for a stored opinion: labels that the segmenter is sure of."""

    said: np.ndarray
    path: Path

    def codes(self) -> np.ndarray:
        return np.where(np.arange(N_CLASSES)[:, None, None, None] == self.said, 2, 200).astype(np.uint8)


def _volume(shape: tuple[int, int, int] = (24, 30, 27), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).astype(np.float16), rng.integers(0, 4, shape).astype(np.uint8)


def _dataset(case: _Case, items: list[Any] | None = None, **kwargs: Any) -> PatchDataset:
    options = {"size": (8, 9, 10), "foreground": 0.5, "augmentation": None, "seed": 0, "n_classes": N_CLASSES} | kwargs
    return PatchDataset({"a": case}, items or ["a"], **options)  # type: ignore[arg-type, dict-item]


# -- cutting


def test_patch_without_a_map_is_a_slice() -> None:
    image, label = _volume()
    window = place_window(image.shape, (8, 6, 4), np.array([10, 11, 12]), np.eye(3), (1, 2, 3))
    patch, (labels,) = cut(window, image, [label], outside=-9)
    box = np.s_[6:14, 8:14, 10:14]
    np.testing.assert_array_equal(patch, image[box].astype(np.float32))
    np.testing.assert_array_equal(labels, label[box])
    assert (patch.dtype, labels.dtype) == (torch.float32, torch.int64)


def test_patch_is_moved_inside_the_volume() -> None:
    image, _ = _volume()
    window = place_window(image.shape, (8, 8, 8), np.array([0, 29, 13]), np.eye(3), (1, 1, 1))
    np.testing.assert_array_equal(cut(window, image, [], -9)[0], image[0:8, 22:30, 9:17].astype(np.float32))


def test_patch_larger_than_the_volume_is_padded() -> None:
    image, label = _volume((5, 30, 6))
    window = place_window(image.shape, (8, 8, 8), np.array([1, 15, 1]), np.eye(3), (1, 1, 1))
    patch, (labels,) = cut(window, image, [label], outside=-9)
    padded = np.pad(image[:, 11:19].astype(np.float32), ((2, 1), (0, 0), (1, 1)), constant_values=-9)
    np.testing.assert_array_equal(patch, padded)
    assert labels[0].sum() == 0
    assert labels[2:7, :, 1:7].numpy().tolist() == label[:, 11:19].tolist()


def test_a_label_map_may_have_its_own_value_outside_the_volume() -> None:
    image, label = _volume((5, 30, 6))
    window = place_window(image.shape, (8, 8, 8), np.array([1, 15, 1]), np.eye(3), (1, 1, 1))
    _, (plain, marked) = cut(window, image, [label, label], -9, [0, 255])
    inside = np.zeros((8, 8, 8), bool)
    inside[2:7, :, 1:7] = True
    np.testing.assert_array_equal(plain[inside], marked[inside])
    assert set(plain[~inside].tolist()) == {0}
    assert set(marked[~inside].tolist()) == {255}


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (1.5, 1.2, 8.0)])
@pytest.mark.parametrize("centre", [(12, 15, 13), (0, 29, 4)])
def test_warp_agrees_with_scipy(spacing: tuple[float, ...], centre: tuple[int, ...]) -> None:
    image, label = _volume()
    turn = Rotation.from_euler("xyz", [20, -13, 31], degrees=True).as_matrix() * 1.1
    window = place_window(image.shape, (9, 10, 7), np.array(centre), turn, spacing)
    patch, (labels,) = cut(window, image, [label], outside=-2.0)

    matrix = np.linalg.inv(np.diag(spacing)) @ turn @ np.diag(spacing)
    start = np.clip(np.array(centre) - np.array([4, 5, 3]), 0, np.array(image.shape) - [9, 10, 7])
    middle = np.array([4, 4.5, 3])
    options: dict[str, Any] = {"offset": start + middle - matrix @ middle, "output_shape": (9, 10, 7)}
    smooth = ndimage.affine_transform(
        image.astype(np.float32), matrix, order=1, mode="grid-constant", cval=-2, **options
    )
    nearest = ndimage.affine_transform(label, matrix, order=0, mode="grid-constant", cval=0, **options)
    np.testing.assert_allclose(patch, smooth, atol=2e-4)
    assert np.mean(labels.numpy() != nearest) < 0.01  # a rounding tie or two


@dataclass
class _Mapped(_Case):
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
    data = _dataset(_Mapped(image, label), size=(32, 32, 32), augmentation=STRONG, foreground=0.0)
    assert data[PatchRequest(0, 0, 0)]["image"].shape == (1, 32, 32, 32)
    for name, array in (("image", image), ("label", label)):
        touched = _resident(tmp_path / f"{name}.npy")
        assert 0 < touched < 0.35 * array.nbytes, (name, touched, array.nbytes)
    np.array(image)
    # the measure itself; a busy machine may have taken a page back
    assert _resident(tmp_path / "image.npy") > 0.9 * image.nbytes


def test_mirrored_patch_is_a_reversed_slice() -> None:
    image, label = _volume()
    window = place_window(image.shape, (8, 9, 6), np.array([10, 11, 12]), np.diag([1.0, -1.0, 1.0]), (1, 2, 3))
    patch, (labels,) = cut(window, image, [label], outside=0)
    np.testing.assert_allclose(patch, image[6:14, 7:16, 9:15][:, ::-1].astype(np.float32), atol=1e-4)
    np.testing.assert_array_equal(labels, label[6:14, 7:16, 9:15][:, ::-1])


# -- where patches lie


def _centres(data: PatchDataset, n: int, key: str = "label") -> list[int]:
    return [int(data[PatchRequest(0, i, 0)][key][4, 4, 5]) for i in range(n)]


def test_structures_are_centred_on_alike_however_small() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[10:30, 10:30, 10:20] = 1
    labels[20, 20, 25] = 2
    case = _Case(np.zeros(labels.shape, np.float16), labels)
    found = _centres(_dataset(case, foreground=1.0), 200)
    assert set(found) == {1, 2}
    assert 70 <= found.count(2) <= 130
    assert _centres(_dataset(case, foreground=0.0), 200).count(0) > 150


def test_error_patches_are_centred_on_wrong_voxels() -> None:
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[10:20, 10:20, 10:20] = 1
    wrong = labels.copy()
    wrong[20:22, 12:18, 12:18] = 1
    case = _Case(np.zeros(labels.shape, np.float16), labels)
    data = _dataset(case, [_Mask(wrong, Path("m")), _Mask(labels, Path("right"))], foreground=1.0)
    for position in range(30):
        patch = data[PatchRequest(3, position, 0)]
        assert patch["mask"][4, 4, 5] != patch["label"][4, 4, 5]
        perfect = data[PatchRequest(3, position, 1)]
        assert perfect["mask"][4, 4, 5] == perfect["label"][4, 4, 5] == 1


def test_patches_are_also_centred_where_the_opinion_differs_from_the_mask() -> None:
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[10:20, 10:20, 10:20] = 1
    wrong, other = labels.copy(), labels.copy()
    wrong[20:22, 12:18, 12:18] = 1
    other[7:9, 12:18, 12:18] = 1
    case = _Case(np.zeros(labels.shape, np.float16), labels)
    masks = [_Mask(wrong, Path("m")), _Mask(labels, Path("right"))]
    data = _dataset(case, masks, foreground=1.0, opinions={"a": _Opinion(other, Path("o"))})
    why = set()
    for position in range(60):
        for item in (0, 1):
            patch = data[PatchRequest(3, position, item)]
            label, mask, said = (int(v[4, 4, 5]) for v in (patch["label"], patch["mask"], patch["log_p"].argmax(dim=0)))
            assert mask != label or mask != said
            why.add((item, mask != label, mask != said))
    assert why == {(0, True, True), (0, False, True), (1, False, True)}


def test_case_without_any_structure_still_gives_patches() -> None:
    image, label = _volume()
    assert _dataset(_Case(image, np.zeros_like(label)), foreground=1.0)[0]["label"].sum() == 0


def test_outside_is_the_darkest_of_the_image_and_background() -> None:
    image, label = _volume((5, 5, 5))
    patch = _dataset(_Case(image, label + 1), augmentation=None)[0]
    assert float(patch["image"][0, 0, 0, 0]) == float(image.min())
    assert int(patch["label"][0, 0, 0]) == 0


def test_a_patch_depends_on_seed_epoch_and_position_alone() -> None:
    case = _Case(*_volume())
    masks = [_Mask(_volume(seed=s)[1], Path(str(s))) for s in range(3)]
    requests = [PatchRequest(e, p, (e + p) % 3) for e in range(2) for p in range(4)]
    there, back = (_dataset(case, masks, augmentation=STRONG) for _ in range(2))
    forwards = [there[r] for r in requests]
    backwards = [back[r] for r in reversed(requests)][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    same_item = [there[PatchRequest(*key, 0)]["image"] for key in [(0, 0), (0, 1), (1, 0)]]
    same_item.append(_dataset(case, masks, augmentation=STRONG, seed=1)[PatchRequest(0, 0, 0)]["image"])
    assert not any(torch.equal(a, b) for i, a in enumerate(same_item) for b in same_item[:i])


def test_shapes_and_types() -> None:
    case, mask = _Case(*_volume()), _Mask(_volume()[1], Path("m"))
    opinions = {"a": _Opinion(mask.values, Path("o"))}
    alone = {
        "image": (torch.float32, (1, 8, 9, 10)),
        "label": (torch.int64, (8, 9, 10)),
        "index": (torch.int64, ()),
    }
    judged = alone | {
        "mask": (torch.int64, (8, 9, 10)),
        "plain": (torch.float32, (1, 8, 9, 10)),
        "brightness": (torch.float32, (N_CLASSES, 2)),
        "spacing": (torch.float32, (3,)),
    }
    heard = judged | {"log_p": (torch.float32, (N_CLASSES, 8, 9, 10))}
    for items, more, expected in (([], {}, alone), ([mask], {}, judged), ([mask], {"opinions": opinions}, heard)):
        patch = _dataset(case, items, augmentation=STRONG, **more)[0]
        assert {k: (v.dtype, tuple(v.shape)) for k, v in patch.items()} == expected
    assert patch["spacing"].tolist() == list(case.spacing)


def test_what_is_withheld_at_random_follows_from_seed_epoch_and_position_and_moves_no_other_draw() -> None:
    case, mask = _Case(*_volume()), _Mask(_volume()[1], Path("m"))
    heard = {"opinions": {"a": _Opinion(mask.values, Path("o"))}, "augmentation": STRONG}
    whole, dropped = (_dataset(case, [mask], **heard, dropout=d) for d in (None, Dropout(0.3, 0.6)))
    nothing, hidden = 0, 0
    for request in (PatchRequest(e, p, 0) for e in range(10) for p in range(20)):
        patch, usual = dropped[request], whole[request]
        shown = patch.pop("mask_shown")
        assert (shown.dtype, shown.shape) == (torch.float32, ())
        assert patch.keys() == usual.keys()
        assert torch.equal(shown, dropped[request]["mask_shown"])
        withheld = not torch.equal(patch["log_p"], usual["log_p"])
        if withheld:
            torch.testing.assert_close(patch["log_p"].exp(), torch.full_like(patch["log_p"], 1 / N_CLASSES))
        assert all(torch.equal(patch[key], usual[key]) for key in usual if key != "log_p")
        nothing, hidden = nothing + withheld, hidden + int(shown == 0)
    assert 30 <= nothing <= 90
    assert 90 <= hidden <= 150


def test_a_plain_crop_shows_what_the_volume_shows() -> None:
    case, mask = _Case(*_volume()), _Mask(_volume(seed=1)[1], Path("m"))
    opinion = _Opinion(_volume(seed=2)[1], Path("o"))
    whole = torch.from_numpy(case.pixels.astype(np.float32))
    codes, known = torch.from_numpy(opinion.codes()), brightness(case.pixels, mask.values, case.spacing, N_CLASSES)
    data = _dataset(case, [mask], opinions={"a": opinion})
    seen = set()
    for position in range(10):
        patch = data[PatchRequest(0, position, 0)]
        (start,) = [
            at
            for at in np.ndindex(*np.subtract(case.shape, (7, 8, 9)))
            if whole[at] == patch["plain"][0, 0, 0, 0]
            and torch.equal(
                whole[tuple(slice(a, a + n) for a, n in zip(at, (8, 9, 10), strict=True))], patch["plain"][0]
            )
        ]
        box = tuple(slice(a, a + n) for a, n in zip(start, (8, 9, 10), strict=True))
        torch.testing.assert_close(patch["plain"], patch["image"], rtol=0, atol=0)
        np.testing.assert_array_equal(patch["mask"], mask.values[box])
        torch.testing.assert_close(patch["log_p"], decode(codes[(slice(None), *box)]), rtol=0, atol=0)
        np.testing.assert_array_equal(patch["brightness"], known)
        seen.add(start)
    assert len(seen) > 3


def test_the_plain_image_is_that_before_its_intensities_change() -> None:
    loud = Augmentation(rotate_deg=(0, 0, 0), scale=0, intensity_scale=0.5, intensity_shift=1, noise=0.3, probability=1)
    case, mask = _Case(*_volume()), _Mask(_volume(seed=1)[1], Path("m"))
    for position in range(3):
        changed, quiet = (
            _dataset(case, [mask], augmentation=a)[PatchRequest(0, position, 0)]
            for a in (loud, Augmentation(rotate_deg=(0, 0, 0), scale=0, probability=0))
        )
        torch.testing.assert_close(changed["plain"], quiet["plain"], rtol=0, atol=0)
        assert float((changed["image"] - changed["plain"]).abs().mean()) > 0.1


def test_mask_and_opinion_are_warped_alike() -> None:
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[8:22, 9:20, 7:23] = 2
    case = _Case(labels.astype(np.float16), labels)
    data = _dataset(
        case,
        [_Mask(labels, Path("m"))],
        size=(20, 20, 20),
        augmentation=STRONG,
        opinions={"a": _Opinion(labels, Path("o"))},
    )
    for position in range(5):
        patch = data[PatchRequest(0, position, 0)]
        assert len(patch["mask"].unique()) == 2
        torch.testing.assert_close(patch["log_p"].argmax(dim=0), patch["mask"])


def test_outside_the_volume_the_opinion_is_sure_of_background() -> None:
    labels = np.full((6, 6, 6), 3, np.uint8)
    case = _Case(labels.astype(np.float16), labels)
    opinions = {"a": _Opinion(labels, Path("o"))}
    for augmentation in (None, STRONG):
        patch = _dataset(case, [_Mask(labels, Path("m"))], augmentation=augmentation, opinions=opinions)[0]
        outside = patch["label"] == 0
        assert 0 < int(outside.sum()) < outside.numel()
        p = patch["log_p"].exp()
        assert bool((p[0][outside] == 1).all())
        assert float(p[1:, outside].max()) < 1e-4
        assert bool((patch["log_p"].argmax(dim=0)[~outside] == 3).all())


def test_image_label_and_mask_are_warped_alike() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[12:28, 14:26, 10:30] = 1
    case = _Case(labels.astype(np.float16), labels)
    augmentation = Augmentation(
        rotate_deg=(30, 30, 30), scale=0.2, intensity_scale=0, intensity_shift=0, noise=0, gamma=0, probability=1
    )
    patch = _dataset(case, [_Mask(labels, Path("m"))], size=(32, 32, 32), augmentation=augmentation)[0]
    torch.testing.assert_close(patch["mask"], patch["label"])
    # Trilinear and nearest agree wherever the interpolated value is clearly on one side.
    clear = (patch["image"][0] - 0.5).abs() > 0.49
    assert bool(clear.float().mean() > 0.7)
    assert bool((patch["image"][0].round().long() == patch["label"])[clear].all())


def test_masks_are_kept_within_a_number_of_bytes() -> None:
    masks = [_Mask(np.zeros((10, 10, 10), np.uint8), Path(str(i))) for i in range(3)]
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
