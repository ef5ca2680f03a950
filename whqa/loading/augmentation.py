"""Random changes of training patches: settings with their defaults, and what they do.

numpy and torch are imported where they compute: the schema of the configuration takes the defaults from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from whqa.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """Random changes of a training patch; those of space act on image, label and mask alike.

    Attributes:
        rotate_deg: largest angle about the D, H and W axes; (0, 0, 30) turns within the D-H plane.
        scale: largest relative change of size, e.g. 0.1 for 0.9..1.1.
        flip: axes (0, 1, 2) mirrored with probability 0.5 each; none by default because hearts have a left and a right.
        intensity_scale: largest relative change of contrast.
        intensity_shift: largest shift, in units of the normalised image.
        noise: largest standard deviation of Gaussian noise, in the same units.
        gamma: largest relative change of the exponent on intensities brought to [0, 1].
        probability: with which each of rotation, scale, contrast, shift, noise and gamma is applied to a patch.
    """

    rotate_deg: tuple[float, float, float] = (12.0, 12.0, 12.0)
    scale: float = 0.1
    flip: tuple[int, ...] = ()
    intensity_scale: float = 0.1
    intensity_shift: float = 0.1
    noise: float = 0.05
    gamma: float = 0.2
    probability: float = 0.7

    def __post_init__(self) -> None:
        if not set(self.flip) <= {0, 1, 2}:
            raise InputError(f"augmentation.flip={list(self.flip)}: axes are 0, 1 and 2")
        if len(self.rotate_deg) != 3:
            raise InputError(f"augmentation.rotate_deg={list(self.rotate_deg)}: give three angles, about D, H and W")
        for name in ("scale", "intensity_scale", "intensity_shift", "noise", "gamma", "probability"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InputError(f"augmentation.{name}={value:g}: must be between 0 and 1")

    def draw_affine(self, rng: np.random.Generator) -> npt.NDArray[np.float64]:
        """(3, 3) map of offsets from the centre in mm: patch -> volume."""
        import numpy as np

        angles = np.deg2rad(self.rotate_deg) * rng.uniform(-1, 1, 3) * (rng.random() < self.probability)
        zoom = 1 + self.scale * rng.uniform(-1, 1) * (rng.random() < self.probability)
        mirror = np.where(rng.random(3) < 0.5, -1.0, 1.0)
        mirror[[a for a in range(3) if a not in self.flip]] = 1.0
        return _rotation(angles) @ np.diag(mirror) / zoom

    def change_intensity(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Contrast, shift, gamma and noise; any shape, float32."""
        factors = rng.uniform(-1, 1, 4) * (rng.random(4) < self.probability)
        contrast, shift, gamma, noise = factors * [self.intensity_scale, self.intensity_shift, self.gamma, self.noise]
        if gamma:
            low, high = (float(v) for v in image.aminmax())
            extent = max(high - low, 1e-6)
            image = ((image - low) / extent).clamp_(0, 1).pow_(1 + gamma).mul_(extent).add_(low)
        if contrast or shift:
            mean = float(image.mean())
            image = (image - mean).mul_(1 + contrast).add_(mean + shift)
        if noise:
            import torch

            # torch draws normal numbers three times as fast as numpy.
            generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
            image = image + torch.randn(image.shape, generator=generator).mul_(abs(noise))
        return image


def _rotation(angles: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    import numpy as np

    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [a for a in range(3) if a != axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix
