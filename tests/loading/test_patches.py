"""Patches: where they lie, how they are cut and warped, what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation
from stub_patches import N_CLASSES, STRONG, ArrayCase, ArrayMask, SureOpinion, patch_dataset, random_volume

from whqa.loading.augmentation import Augmentation
from whqa.loading.brightness import brightness
from whqa.loading.patch_settings import Dropout
from whqa.loading.patches import PatchDataset, cut, place_window
from whqa.loading.sampling import PatchRequest
from whqa.masks.opinion import decode

# -- cutting


def test_patch_without_a_map_is_a_slice() -> None:
    image, label = random_volume()
    window = place_window(image.shape, (8, 6, 4), np.array([10, 11, 12]), np.eye(3), (1, 2, 3))
    patch, (labels,) = cut(window, image, [label], outside=-9)
    box = np.s_[6:14, 8:14, 10:14]
    np.testing.assert_array_equal(patch, image[box].astype(np.float32))
    np.testing.assert_array_equal(labels, label[box])
    assert (patch.dtype, labels.dtype) == (torch.float32, torch.int64)


def test_patch_is_moved_inside_the_volume() -> None:
    image, _ = random_volume()
    window = place_window(image.shape, (8, 8, 8), np.array([0, 29, 13]), np.eye(3), (1, 1, 1))
    np.testing.assert_array_equal(cut(window, image, [], -9)[0], image[0:8, 22:30, 9:17].astype(np.float32))


def test_patch_larger_than_the_volume_is_padded() -> None:
    image, label = random_volume((5, 30, 6))
    window = place_window(image.shape, (8, 8, 8), np.array([1, 15, 1]), np.eye(3), (1, 1, 1))
    patch, (labels,) = cut(window, image, [label], outside=-9)
    padded = np.pad(image[:, 11:19].astype(np.float32), ((2, 1), (0, 0), (1, 1)), constant_values=-9)
    np.testing.assert_array_equal(patch, padded)
    assert labels[0].sum() == 0
    assert labels[2:7, :, 1:7].numpy().tolist() == label[:, 11:19].tolist()


def test_a_label_map_may_have_its_own_value_outside_the_volume() -> None:
    image, label = random_volume((5, 30, 6))
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
    image, label = random_volume()
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


def test_mirrored_patch_is_a_reversed_slice() -> None:
    image, label = random_volume()
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
    case = ArrayCase(np.zeros(labels.shape, np.float16), labels)
    found = _centres(patch_dataset(case, foreground=1.0), 200)
    assert set(found) == {1, 2}
    assert 70 <= found.count(2) <= 130
    assert _centres(patch_dataset(case, foreground=0.0), 200).count(0) > 150


def test_error_patches_are_centred_on_wrong_voxels() -> None:
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[10:20, 10:20, 10:20] = 1
    wrong = labels.copy()
    wrong[20:22, 12:18, 12:18] = 1
    case = ArrayCase(np.zeros(labels.shape, np.float16), labels)
    data = patch_dataset(case, [ArrayMask(wrong, Path("m")), ArrayMask(labels, Path("right"))], foreground=1.0)
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
    case = ArrayCase(np.zeros(labels.shape, np.float16), labels)
    masks = [ArrayMask(wrong, Path("m")), ArrayMask(labels, Path("right"))]
    data = patch_dataset(case, masks, foreground=1.0, opinions={"a": SureOpinion(other, Path("o"))})
    why = set()
    for position in range(60):
        for item in (0, 1):
            patch = data[PatchRequest(3, position, item)]
            label, mask, said = (int(v[4, 4, 5]) for v in (patch["label"], patch["mask"], patch["log_p"].argmax(dim=0)))
            assert mask != label or mask != said
            why.add((item, mask != label, mask != said))
    assert why == {(0, True, True), (0, False, True), (1, False, True)}


def test_case_without_any_structure_still_gives_patches() -> None:
    image, label = random_volume()
    assert patch_dataset(ArrayCase(image, np.zeros_like(label)), foreground=1.0)[0]["label"].sum() == 0


def test_outside_is_the_darkest_of_the_image_and_background() -> None:
    image, label = random_volume((5, 5, 5))
    patch = patch_dataset(ArrayCase(image, label + 1), augmentation=None)[0]
    assert float(patch["image"][0, 0, 0, 0]) == float(image.min())
    assert int(patch["label"][0, 0, 0]) == 0


def test_a_patch_depends_on_seed_epoch_and_position_alone() -> None:
    case = ArrayCase(*random_volume())
    masks = [ArrayMask(random_volume(seed=s)[1], Path(str(s))) for s in range(3)]
    requests = [PatchRequest(e, p, (e + p) % 3) for e in range(2) for p in range(4)]
    there, back = (patch_dataset(case, masks, augmentation=STRONG) for _ in range(2))
    forwards = [there[r] for r in requests]
    backwards = [back[r] for r in reversed(requests)][::-1]
    for a, b in zip(forwards, backwards, strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)
    same_item = [there[PatchRequest(*key, 0)]["image"] for key in [(0, 0), (0, 1), (1, 0)]]
    same_item.append(patch_dataset(case, masks, augmentation=STRONG, seed=1)[PatchRequest(0, 0, 0)]["image"])
    assert not any(torch.equal(a, b) for i, a in enumerate(same_item) for b in same_item[:i])


def test_shapes_and_types() -> None:
    case, mask = ArrayCase(*random_volume()), ArrayMask(random_volume()[1], Path("m"))
    opinions = {"a": SureOpinion(mask.values, Path("o"))}
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
        patch = patch_dataset(case, items, augmentation=STRONG, **more)[0]
        assert {k: (v.dtype, tuple(v.shape)) for k, v in patch.items()} == expected
    assert patch["spacing"].tolist() == list(case.spacing)


def test_what_is_withheld_at_random_follows_from_seed_epoch_and_position_and_moves_no_other_draw() -> None:
    case, mask = ArrayCase(*random_volume()), ArrayMask(random_volume()[1], Path("m"))
    heard = {"opinions": {"a": SureOpinion(mask.values, Path("o"))}, "augmentation": STRONG}
    whole, dropped = (patch_dataset(case, [mask], **heard, dropout=d) for d in (None, Dropout(0.3, 0.6)))
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
    case, mask = ArrayCase(*random_volume()), ArrayMask(random_volume(seed=1)[1], Path("m"))
    opinion = SureOpinion(random_volume(seed=2)[1], Path("o"))
    whole = torch.from_numpy(case.pixels.astype(np.float32))
    codes, known = torch.from_numpy(opinion.codes()), brightness(case.pixels, mask.values, case.spacing, N_CLASSES)
    data = patch_dataset(case, [mask], opinions={"a": opinion})
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
    case, mask = ArrayCase(*random_volume()), ArrayMask(random_volume(seed=1)[1], Path("m"))
    for position in range(3):
        changed, quiet = (
            patch_dataset(case, [mask], augmentation=a)[PatchRequest(0, position, 0)]
            for a in (loud, Augmentation(rotate_deg=(0, 0, 0), scale=0, probability=0))
        )
        torch.testing.assert_close(changed["plain"], quiet["plain"], rtol=0, atol=0)
        assert float((changed["image"] - changed["plain"]).abs().mean()) > 0.1


def test_mask_and_opinion_are_warped_alike() -> None:
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[8:22, 9:20, 7:23] = 2
    case = ArrayCase(labels.astype(np.float16), labels)
    data = patch_dataset(
        case,
        [ArrayMask(labels, Path("m"))],
        size=(20, 20, 20),
        augmentation=STRONG,
        opinions={"a": SureOpinion(labels, Path("o"))},
    )
    for position in range(5):
        patch = data[PatchRequest(0, position, 0)]
        assert len(patch["mask"].unique()) == 2
        torch.testing.assert_close(patch["log_p"].argmax(dim=0), patch["mask"])


def test_outside_the_volume_the_opinion_is_sure_of_background() -> None:
    labels = np.full((6, 6, 6), 3, np.uint8)
    case = ArrayCase(labels.astype(np.float16), labels)
    opinions = {"a": SureOpinion(labels, Path("o"))}
    for augmentation in (None, STRONG):
        patch = patch_dataset(case, [ArrayMask(labels, Path("m"))], augmentation=augmentation, opinions=opinions)[0]
        outside = patch["label"] == 0
        assert 0 < int(outside.sum()) < outside.numel()
        p = patch["log_p"].exp()
        assert bool((p[0][outside] == 1).all())
        assert float(p[1:, outside].max()) < 1e-4
        assert bool((patch["log_p"].argmax(dim=0)[~outside] == 3).all())


def test_image_label_and_mask_are_warped_alike() -> None:
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[12:28, 14:26, 10:30] = 1
    case = ArrayCase(labels.astype(np.float16), labels)
    augmentation = Augmentation(
        rotate_deg=(30, 30, 30), scale=0.2, intensity_scale=0, intensity_shift=0, noise=0, gamma=0, probability=1
    )
    patch = patch_dataset(case, [ArrayMask(labels, Path("m"))], size=(32, 32, 32), augmentation=augmentation)[0]
    torch.testing.assert_close(patch["mask"], patch["label"])
    # Trilinear and nearest agree wherever the interpolated value is clearly on one side.
    clear = (patch["image"][0] - 0.5).abs() > 0.49
    assert bool(clear.float().mean() > 0.7)
    assert bool((patch["image"][0].round().long() == patch["label"])[clear].all())
