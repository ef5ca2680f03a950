"""What every judge of masks works on, the error-map network and the baselines alike: a case with its mask; a verdict.

Shapes: (D, H, W) on the cache grid; labels are indices 0..C.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from whqa.quality import error_map, heart_region


@dataclass(frozen=True, eq=False)
class JudgedCase:
    """One mask under judgement with its image and, where there is one, its reference.

    Attributes:
        case: id of the case.
        kind: of the mask, e.g. "final", "side1", "early".
        image: float32 (D, H, W), normalised.
        mask: labels (D, H, W), int64 or uint8.
        reference: labels (D, H, W), or None for a mask without ground truth.
        entropy: the segmenter's predictive entropy over log(C + 1), float32 (D, H, W) in [0, 1], or None.
        spacing: mm per voxel along D, H, W.
    """

    case: str
    kind: str
    image: Tensor
    mask: Tensor
    reference: Tensor | None
    entropy: Tensor | None
    spacing: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name in ("image", "reference", "entropy"):
            values = getattr(self, name)
            if values is not None and values.shape != self.mask.shape:
                raise ValueError(
                    f"case {self.case}, mask {self.kind}: {name} {tuple(values.shape)} and mask "
                    f"{tuple(self.mask.shape)} differ in shape"
                )

    @cached_property
    def heart(self) -> Tensor:
        """The region "heart" of `whqa.quality`, bool (D, H, W); found once, however many methods are judged."""
        return heart_region(self.mask, self.spacing)

    @cached_property
    def error(self) -> Tensor:
        """The true error map E, bool (D, H, W).

        Raises:
            ValueError: the case has no reference.
        """
        if self.reference is None:
            raise ValueError(f"case {self.case}, mask {self.kind}: no reference, so its errors are unknown")
        return error_map(self.mask, self.reference)


@dataclass(frozen=True, eq=False)
class ErrorPrediction:
    """A verdict on one mask: P and the map Ê that follows from it; a label head also says what would be right.

    Attributes:
        probability: P, float32 (D, H, W) in [0, 1].
        error_map: Ê, bool (D, H, W).
        other: the label that a voxel most probably has if the mask is wrong there, uint8 (D, H, W), or None.
        expected_dice: of structures 1..C, float64 (C,), or None.
        corrected: the corrected mask (D, H, W), or None.
    """

    probability: Tensor
    error_map: Tensor
    other: Tensor | None = None
    expected_dice: Tensor | None = None
    corrected: Tensor | None = None

    def __post_init__(self) -> None:
        if self.error_map.dtype != torch.bool or self.error_map.shape != self.probability.shape:
            raise ValueError(
                f"error_map must be bool and of the shape of probability {tuple(self.probability.shape)}, "
                f"got {self.error_map.dtype} {tuple(self.error_map.shape)}"
            )
