"""Settings of the experiment's grid and their defaults, in a module that imports nothing but words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from whqa.errors import InputError

Centre = Literal["image", "tissue", "heart"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocess:
    """Settings of the experiment's grid.

    Attributes:
        spacing: mm along R, A, S; None keeps an axis as it is (the slices of short-axis MR).
        crop_mm: size of the box along R, A, S; None keeps the whole volume, as does a volume that is smaller.
        centre: of the box: "image", the middle of the image; "tissue", the centroid of its tissue (CT: voxels of 0 to
            600 HU; MR: foreground by Otsu's threshold); "heart", the middle of the box that holds the chambers and the
            myocardium of the label map, for scans of the whole body (where there is no label map: tissue).
        ct_window: HU that become -1 and 1.
        mr_percentiles: of the cropped image, that become -1 and 1.
    """

    spacing: tuple[float | None, float | None, float | None]
    crop_mm: Triple | None = None
    centre: Centre = "tissue"
    ct_window: tuple[float, float] = (-250.0, 650.0)
    mr_percentiles: tuple[float, float] = (0.5, 99.5)

    def __post_init__(self) -> None:
        _set_tuple(self, "spacing", 3)
        _set_tuple(self, "crop_mm", 3)
        _set_tuple(self, "ct_window", 2)
        _set_tuple(self, "mr_percentiles", 2)
        if not all(s is None or s > 0 for s in self.spacing) or not all(s > 0 for s in self.crop_mm or ()):
            raise InputError(f"preprocess: spacing {self.spacing} and crop_mm {self.crop_mm} must be positive")
        if self.centre not in get_args(Centre):
            raise InputError(f"preprocess: centre {self.centre!r} must be one of {', '.join(get_args(Centre))}")
        low, high = self.mr_percentiles
        if self.ct_window[0] >= self.ct_window[1] or not 0 <= low < high <= 100:
            raise InputError(
                f"preprocess: ct_window {self.ct_window} and mr_percentiles {self.mr_percentiles} must each be "
                "(low, high), percentiles within 0..100"
            )


def _set_tuple(settings: Preprocess, name: str, length: int) -> None:
    """Lists, such as Hydra's, become tuples, so that equal settings have equal hashes."""
    value = getattr(settings, name)
    if value is None and name == "crop_mm":
        return
    if isinstance(value, (str, int, float)) or value is None or len(value) != length:
        raise InputError(f"preprocess: {name} must be {length} numbers, got {value!r}")
    object.__setattr__(settings, name, tuple(None if v is None else float(v) for v in value))
