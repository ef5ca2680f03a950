"""Signed distances of a mask, against scipy's exact transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from whqa.modules.distances import FARTHEST_MM, signed_distances

N_CLASSES = 4


def _mask(seed: int, shape: tuple[int, int, int] = (15, 18, 21)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    blocks = rng.choice(N_CLASSES - 1, (4, 5, 6), p=[0.6, 0.2, 0.2])
    return np.kron(blocks, np.ones((4, 4, 4), int))[: shape[0], : shape[1], : shape[2]]


def _of_scipy(mask: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    def to(there: np.ndarray) -> np.ndarray:
        if not there.any():
            return np.full(there.shape, FARTHEST_MM)
        return np.minimum(ndimage.distance_transform_edt(~there, sampling=spacing), FARTHEST_MM)

    return np.stack([to(mask != c) - to(mask == c) for c in range(N_CLASSES)]) / FARTHEST_MM


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (3.0, 3.0, 3.0), (1.0, 1.3, 9.0), (0.7, 2.0, 4.0)])
@pytest.mark.parametrize("seed", range(2))
def test_they_are_those_of_scipy_cut_at_some_mm(seed: int, spacing: tuple[float, float, float]) -> None:
    mask = _mask(seed)
    # label 3 is nowhere
    found = signed_distances(torch.from_numpy(mask)[None], torch.tensor([spacing]), N_CLASSES)
    np.testing.assert_allclose(found[0].numpy(), _of_scipy(mask, spacing), atol=1e-6)


def test_every_mask_of_a_batch_has_its_own_spacing() -> None:
    masks, spacings = np.stack([_mask(0), _mask(1)]), [(1.0, 2.0, 3.0), (3.0, 1.0, 1.0)]
    found = signed_distances(torch.from_numpy(masks), torch.tensor(spacings), N_CLASSES)
    for one, mask, spacing in zip(found, masks, spacings, strict=True):
        np.testing.assert_allclose(one.numpy(), _of_scipy(mask, spacing), atol=1e-6)


def test_one_label_alone_is_nowhere_near_a_border() -> None:
    found = signed_distances(torch.ones(1, 3, 4, 5, dtype=torch.int64), torch.full((1, 3), 2.0), N_CLASSES)
    expected = torch.tensor([-1.0, 1.0, -1.0, -1.0])[None, :, None, None, None].expand(1, 4, 3, 4, 5)
    torch.testing.assert_close(found, expected)


def test_a_patch_is_told_what_the_volume_is_where_it_is_deeper_than_the_cut() -> None:
    mask, spacing = torch.from_numpy(_mask(2))[None], torch.tensor([[2.0, 2.5, 4.0]])
    whole = signed_distances(mask, spacing, N_CLASSES)
    patch = signed_distances(mask[:, 2:14, 3:17, 4:19], spacing, N_CLASSES)
    expected = whole[:, :, 2:14, 3:17, 4:19]
    # 8 mm are 4, 3 and 2 voxels
    torch.testing.assert_close(patch[:, :, 4:-4, 3:-3, 2:-2], expected[:, :, 4:-4, 3:-3, 2:-2])
    # nearer to the edge borders may be out of sight, never nearer
    assert bool((patch.abs() >= expected.abs() - 1e-6).all())
    assert not torch.equal(patch, expected)
