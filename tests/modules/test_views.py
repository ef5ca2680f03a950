"""The mean opinion over shifted views, against numpy's own shifting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from whqa.modules.segmenter import SegmenterModule
from whqa.modules.views import SHIFTS, mean_over_views
from whqa.networks.voxresnet import VoxResNet

SHAPE = (12, 11, 10)


def _image() -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))


def _voxelwise(image: Tensor) -> Tensor:
    return torch.stack([image, -image, 0.5 * image]).log_softmax(dim=0)


def _by_place(image: Tensor) -> Tensor:
    """What is said depends on where in the volume a voxel lies, as on a coarse grid."""
    d, h, w = torch.meshgrid(*(torch.arange(n) for n in image.shape), indexing="ij")
    return torch.stack([image * (d % 2), image * (h % 3), image * (w % 2)]).log_softmax(dim=0)


def _expected(image: np.ndarray, moved: list[list[int]]) -> np.ndarray:
    """Mean over the views that reach a voxel, the long way: one voxel after the other."""
    views = [([0, 0, 0], image)]
    for steps in moved:
        padded = np.pad(image, 4, mode="edge")
        views.append((steps, padded[tuple(slice(4 + s, 4 + s + n) for s, n in zip(steps, image.shape, strict=True))]))
    said = [(steps, np.exp(_by_place(torch.from_numpy(view)).numpy())) for steps, view in views]
    mean = np.zeros((3, *image.shape))
    for at in np.ndindex(*image.shape):
        places = [(p, tuple(i - s for i, s in zip(at, steps, strict=True))) for steps, p in said]
        reached = [p[:, *there] for p, there in places if all(0 <= i < n for i, n in zip(there, SHAPE, strict=True))]
        mean[:, *at] = np.mean(reached, axis=0)
    return mean


@pytest.mark.parametrize("divisor", [(8, 8, 8), (4, 1, 2)])
def test_the_mean_is_taken_at_each_voxel_over_the_views_that_reach_it(divisor: tuple[int, int, int]) -> None:
    image = _image()
    moved = [[s * (d > 1) for s, d in zip(shift, divisor, strict=True)] for shift in SHIFTS]
    found = mean_over_views(_by_place, image, divisor, _by_place(image))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.exp(), _expected(image.numpy(), moved), rtol=1e-5, atol=1e-7)
    assert (found - _by_place(image)).abs().max() > 0.1


def test_what_does_not_depend_on_the_place_stays_as_it_is() -> None:
    image = _image()
    torch.testing.assert_close(mean_over_views(_voxelwise, image, (8, 8, 8), _voxelwise(image)), _voxelwise(image))


def test_a_volume_smaller_than_a_shift_is_judged_by_the_views_that_reach_it() -> None:
    image = torch.randn(2, 1, 3)
    found = mean_over_views(_voxelwise, image, (8, 8, 8), _voxelwise(image))
    torch.testing.assert_close(found, _voxelwise(image))


def test_views_start_in_different_places_of_the_coarse_grid() -> None:
    places = {tuple(step % 8 for step in shift) for shift in (*SHIFTS, (0, 0, 0))}
    assert len(places) == len(SHIFTS) + 1
    for axis in range(3):
        assert {shift[axis] % 2 for shift in SHIFTS} == {0, 1}


def test_a_segmenter_says_so_of_its_own_network() -> None:
    torch.manual_seed(0)
    network: nn.Module = VoxResNet(1, 3, width=4)
    module = SegmenterModule(network, total_steps=1).eval()
    image = torch.randn(16, 16, 16)
    with torch.no_grad():
        own = module.log_p(image)
        found = module.log_p_of_views(image)
        torch.testing.assert_close(found, module.log_p_of_views(image, own))
        torch.testing.assert_close(found, mean_over_views(module.log_p, image, (8, 8, 8), own))
    assert (found - own).abs().max() > 1e-3
    torch.testing.assert_close(found.exp().sum(dim=0), torch.ones(16, 16, 16))
