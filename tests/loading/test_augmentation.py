"""Random changes of a patch: within their limits, none where none is wanted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from whqa.errors import InputError
from whqa.loading.augmentation import Augmentation


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rotation_is_about_the_named_axis(axis: int) -> None:
    limits = [0.0, 0.0, 0.0]
    limits[axis] = 30.0
    augmentation = Augmentation(rotate_deg=(limits[0], limits[1], limits[2]), scale=0.0, probability=1.0)
    angles = []
    for seed in range(50):
        turn = Rotation.from_matrix(augmentation.draw_affine(np.random.default_rng(seed))).as_rotvec(degrees=True)
        np.testing.assert_allclose(np.delete(turn, axis), 0, atol=1e-9)
        angles.append(turn[axis])
    assert -30 <= min(angles) < -20
    assert 20 < max(angles) <= 30


def test_affine_is_a_scaled_rotation_without_mirrors() -> None:
    strong = Augmentation(rotate_deg=(40, 40, 40), scale=0.3, probability=1.0)
    for seed in range(50):
        affine = strong.draw_affine(np.random.default_rng(seed))
        zoom = np.cbrt(np.linalg.det(affine))
        assert 1 / 1.3 <= zoom <= 1 / 0.7
        np.testing.assert_allclose(affine @ affine.T, zoom**2 * np.eye(3), atol=1e-12)


def test_mirrors_only_the_named_axes() -> None:
    augmentation = Augmentation(rotate_deg=(0, 0, 0), scale=0, flip=(1,))
    diagonals = {tuple(np.diag(augmentation.draw_affine(np.random.default_rng(s)))) for s in range(20)}
    assert diagonals == {(1.0, 1.0, 1.0), (1.0, -1.0, 1.0)}


def test_probability_zero_changes_nothing() -> None:
    augmentation, image = Augmentation(probability=0.0), torch.randn(6, 6, 6)
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(augmentation.draw_affine(rng), np.eye(3))
    torch.testing.assert_close(augmentation.change_intensity(image, rng), image, rtol=0, atol=0)


def _only(**kwargs: float) -> Augmentation:
    off = {"intensity_scale": 0.0, "intensity_shift": 0.0, "noise": 0.0, "gamma": 0.0}
    return Augmentation(probability=1.0, **(off | kwargs))  # type: ignore[arg-type]


def test_intensity_changes_stay_within_their_limits() -> None:
    image = torch.randn(20, 20, 20)
    before = image.clone()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        contrast = _only(intensity_scale=0.2).change_intensity(image, rng)
        assert 0.8 <= float(contrast.std() / image.std()) <= 1.2
        assert float(contrast.mean()) == pytest.approx(float(image.mean()), abs=1e-5)
        shift = _only(intensity_shift=0.3).change_intensity(image, rng) - image
        assert float(shift.std()) < 1e-6
        assert abs(float(shift.mean())) <= 0.3
        noise = _only(noise=0.1).change_intensity(image, rng) - image
        assert float(noise.std()) <= 0.104
        gamma = _only(gamma=0.5).change_intensity(image, rng)
        torch.testing.assert_close(torch.stack(gamma.aminmax()), torch.stack(image.aminmax()))
        assert bool((gamma.flatten()[image.flatten().argsort()].diff() >= 0).all())
    torch.testing.assert_close(image, before, rtol=0, atol=0)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(InputError, match=r"flip=\[3\]"):
        Augmentation(flip=(3,))
    with pytest.raises(InputError, match="three angles"):
        Augmentation(rotate_deg=(10.0, 10.0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"augmentation\.noise=nan: must be between 0 and 1"):
        Augmentation(noise=float("nan"))
    with pytest.raises(InputError, match=r"augmentation\.scale=-2: must be between 0 and 1"):
        Augmentation(scale=-2.0)
