"""The science on one page: error map, accuracy, quality indicator and the regions that they are taken over.

Definitions (I image, G reference labels, M mask under judgement, all of shape (D, H, W), labels 0..C):

    error map            E = [M != G]
    predicted error      P = f(I, M) in [0, 1],   predicted error map  Ê = [P >= tau]
    accuracy             Acc_Ω = 1 - mean_Ω(E)
    quality indicator    QI_Ω  = 1 - mean_Ω(P) of a judge whose P is calibrated, 1 - mean_Ω(Ê) of any other
    regions Ω            "volume": the whole preprocessed crop
                         "heart":  the mask's foreground dilated by 10 mm; needs no reference, independent of the crop

After Zhang & Chung, MICCAI 2019 (arXiv 1907.12244), which predicts E with a segmentation network and derives one QI a
mask from it. The paper's full text was not at hand: Ω and tau are this project's reading, see docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

HEART_MARGIN_MM = 10.0
LOWEST_DICE = {"mild": 0.95, "good": 0.85, "fair": 0.7}
"""From which mean Dice on a mask with errors belongs to a stratum; below all of them it is "bad"."""


def stratum(mean_dice: float, has_errors: bool) -> str:
    """How good a mask truly is: "reference" without errors, else by its mean Dice over structures."""
    if not has_errors:
        return "reference"
    return next((name for name, lowest in LOWEST_DICE.items() if mean_dice >= lowest), "bad")


def error_map(mask: Tensor, reference: Tensor) -> Tensor:
    """E = [M != G] as bool, any shape (both alike)."""
    if mask.shape != reference.shape:
        raise ValueError(f"mask {tuple(mask.shape)} and reference {tuple(reference.shape)} differ in shape")
    return mask != reference


def most_probable(values: Tensor, dim: int = 0) -> Tensor:
    """The first index of the highest value along `dim`, int64: the label that probabilities or logits speak for."""
    # of a few labels it takes a fifth of argmax's time
    return values.max(dim=dim).indices


Found = TypeVar("Found")


def kept_with(values: Tensor, what: Callable[..., Found], *options: Any) -> Found:
    """`what(values, *options)`, found once for as long as the memory of the values is in use.

    Batches, cases and views are made anew for each mask, but of the same memory: so of what all masks of a case share,
    such as an opinion, whatever follows from it alone is found once. Nobody may write into it or into what was found.

    Args:
        values: of any shape.
        what: a function of a module; what it gives must not hold on to the values.
        options: of it, hashable.
    """
    known = _KEPT.setdefault(values.untyped_storage(), {})
    # torch counts what is written in place, but for inference
    written = None if values.is_inference() else values._version
    key = what, options, written, values.dtype, values.storage_offset(), values.shape, values.stride()
    if key not in known:
        known[key] = what(values, *options)
    found: Found = known[key]
    return found


_KEPT: WeakKeyDictionary[torch.UntypedStorage, dict[Any, Any]] = WeakKeyDictionary()


def one_minus_mean(values: Tensor, region: Tensor | None = None) -> float:
    """1 - mean over the region: Acc from an error map, QI from a predicted map or from calibrated probabilities.

    Args:
        values: bool or float, any shape.
        region: bool of the same shape; None is the whole volume. An empty region gives 1.
    """
    if values.dtype == torch.bool:
        n = values.numel() if region is None else count(region)
        return 1.0 - count(values if region is None else values & region) / n if n else 1.0
    selected = values if region is None else within(values, region)
    if selected.numel() == 0:
        return 1.0
    return float(1.0 - selected.double().mean())


def within(values: Tensor, region: Tensor) -> Tensor:
    """The values in a region, both of any one shape, as `values[region]` gives them: 1-D, in their order."""
    # numpy picks them in a tenth of torch's time on a CPU
    if values.device.type != "cpu" or values.dtype == torch.bfloat16:
        return values[region]
    return torch.from_numpy(values.detach().numpy()[region.numpy()])


def count(region: Tensor) -> int:
    """Voxels of a region, bool of any shape."""
    # numpy counts them in a third of torch's time on a CPU
    return int(torch.count_nonzero(region)) if region.device.type != "cpu" else int(np.count_nonzero(region.numpy()))


def heart_region(mask: Tensor, spacing: Sequence[float], margin_mm: float = HEART_MARGIN_MM) -> Tensor:
    """The mask's foreground dilated by `margin_mm`, bool (D, H, W); without any foreground the whole volume.

    Args:
        mask: labels (D, H, W).
        spacing: mm per voxel along D, H, W.
    """
    foreground = mask.cpu().numpy() != 0
    if not foreground.any():
        return torch.ones(mask.shape, dtype=torch.bool, device=mask.device)
    box = box_around(foreground, [int(np.ceil(margin_mm / s)) for s in spacing])
    region = np.zeros(foreground.shape, dtype=bool)
    region[box] = _dilated(foreground[box], spacing, margin_mm)
    return torch.from_numpy(region).to(mask.device)


def _dilated(foreground: np.ndarray, spacing: Sequence[float], margin_mm: float) -> np.ndarray:
    """All voxels at most so far from the foreground: runs along W, laid around it. A tenth of a distance transform."""
    reach = [int(np.ceil(margin_mm / s)) for s in spacing]
    d, h, w = (np.square(np.arange(-r, r + 1) * s) for r, s in zip(reach, spacing, strict=True))
    inside = np.sqrt(d[:, None, None] + h[None, :, None] + w) <= margin_mm
    runs = [foreground]
    for step in range(1, reach[2] + 1):
        longer = runs[-1].copy()
        for offset in (step, -step):
            here, there = _overlap(offset, foreground.shape[2])
            longer[:, :, here] |= foreground[:, :, there]
        runs.append(longer)
    found = np.zeros_like(foreground)
    for i, j in np.argwhere(inside.any(axis=2)):
        (to_d, from_d), (to_h, from_h) = (
            _overlap(int(at) - r, n) for at, r, n in zip((i, j), reach[:2], foreground.shape[:2], strict=True)
        )
        found[to_d, to_h] |= runs[np.count_nonzero(inside[i, j]) // 2][from_d, from_h]
    return found


def _overlap(offset: int, n: int) -> tuple[slice, slice]:
    """Where n voxels moved by an offset come to lie, and which of them do."""
    return slice(max(0, offset), max(0, n + min(0, offset))), slice(max(0, -offset), max(0, n - max(0, offset)))


def box_around(foreground: np.ndarray, margin: Sequence[int]) -> tuple[slice, ...]:
    """The box round what is True, so many voxels larger along each axis, within the volume; all of it where nothing is.

    Args:
        foreground: bool (D, H, W).
        margin: voxels along each axis.
    """
    # planes laid on each other take a fifth of the time of other ways to look along them
    plane: np.ndarray = np.any(foreground, axis=0)
    rows, columns = np.flatnonzero(plane.any(axis=1)), np.flatnonzero(plane.any(axis=0))
    if not len(rows):
        return tuple(slice(0, n) for n in foreground.shape)
    part = foreground[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return tuple(
        slice(max(0, int(there[0]) - m), min(n, int(there[-1]) + 1 + m))
        for there, m, n in zip(
            (np.flatnonzero(part.any(axis=(1, 2))), rows, columns), margin, foreground.shape, strict=True
        )
    )


class _Drawn(NamedTuple):
    """What an opinion would draw, uint8, and the log p_S of it: (D, H, W) each."""

    mask: Tensor
    log_p: Tensor


def _drawn_of(log_p_CDHW: Tensor) -> _Drawn:
    highest = log_p_CDHW.max(dim=0)
    return _Drawn(highest.indices.to(torch.uint8), highest.values)


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
        log_p: a second opinion: log p_S of a segmenter that has not seen the case, float32 (C + 1, D, H, W), or None.
        ensemble: the same of the mean of p_S over all such segmenters, or None where there is one at most.
        tta: the same of the mean of p_S over the image and shifted views of it (test-time augmentation), or None.
        pairwise_dice: mean Dice between what each two of them would draw, nan where there is one; or None.
    """

    case: str
    kind: str
    image: Tensor
    mask: Tensor
    reference: Tensor | None
    entropy: Tensor | None
    spacing: tuple[float, float, float]
    log_p: Tensor | None = None
    ensemble: Tensor | None = None
    tta: Tensor | None = None
    pairwise_dice: float | None = None

    def __post_init__(self) -> None:
        for name in ("image", "reference", "entropy"):
            values = getattr(self, name)
            if values is not None and values.shape != self.mask.shape:
                raise ValueError(
                    f"case {self.case}, mask {self.kind}: {name} {tuple(values.shape)} and mask "
                    f"{tuple(self.mask.shape)} differ in shape"
                )
        for said in (self.log_p, self.ensemble, self.tta):
            if said is not None and said.shape[1:] != self.mask.shape:
                raise ValueError(
                    f"case {self.case}, mask {self.kind}: opinion {tuple(said.shape)} and mask "
                    f"{tuple(self.mask.shape)} differ in shape"
                )

    def hearing(self, attribute: str | None) -> JudgedCase:
        """The same mask with another opinion as `log_p`, by the name of its attribute, or with none; made once."""
        if attribute == "log_p":
            return self
        if attribute not in self._hearing:
            said = None if attribute is None else getattr(self, attribute)
            other = self._hearing[attribute] = replace(self, log_p=said)
            # whatever its opinion, a mask has one heart
            other.__dict__["heart"] = self.heart
        return self._hearing[attribute]

    @cached_property
    def _hearing(self) -> dict[str | None, JudgedCase]:
        return {}

    @cached_property
    def heart(self) -> Tensor:
        """The region "heart" bool (D, H, W); found once, however many methods are judged."""
        return heart_region(self.mask, self.spacing)

    @property
    def drawn(self) -> Tensor:
        """The mask that the second opinion would draw, uint8 (D, H, W).

        Raises:
            ValueError: the case has no opinion.
        """
        return kept_with(self._opinion("it draws no mask"), _drawn_of).mask

    @property
    def surest(self) -> Tensor:
        """log p_S of the label that the second opinion would draw, float32 (D, H, W).

        Raises:
            ValueError: the case has no opinion.
        """
        return kept_with(self._opinion("it is sure of nothing"), _drawn_of).log_p

    @cached_property
    def doubt(self) -> Tensor:
        """1 - p_S(M) of the second opinion, float32 (D, H, W).

        Raises:
            ValueError: the case has no opinion.
        """
        return 1.0 - self._opinion("nobody doubts the mask").gather(0, self.mask.long()[None])[0].exp()

    def _opinion(self, consequence: str) -> Tensor:
        if self.log_p is None:
            raise ValueError(f"case {self.case}, mask {self.kind}: no second opinion, so {consequence}")
        return self.log_p

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
        calibrated: whether P means a frequency, so that QI follows from P itself. Ê is the map with the best Dice that
            P lets expect; where P is unsure it is larger than the errors are, and QI would be too low.
        agreement: further numbers that rise with the mask's quality, by column of cases.csv, see
            `whqa.metrics.verdict_row.AGREEMENT_COLUMNS`.
        whole: what a joint network says of the mask as a whole, or None.
        suspicion: how wrong a voxel looks by itself, before the mask as a whole is weighed: float32 (D, H, W) in
            [0, 1], comparable from mask to mask; None where P is.
    """

    probability: Tensor
    error_map: Tensor
    other: Tensor | None = None
    expected_dice: Tensor | None = None
    corrected: Tensor | None = None
    calibrated: bool = False
    agreement: Mapping[str, float] = field(default_factory=dict)
    whole: QualityPrediction | None = None
    suspicion: Tensor | None = None

    @property
    def suspect(self) -> Tensor:
        """How wrong a voxel looks by itself, where nobody says so P."""
        return self.probability if self.suspicion is None else self.suspicion

    def quality(self, region: Tensor | None = None) -> float:
        """QI over a region, None is the whole volume."""
        return one_minus_mean(self.probability if self.calibrated else self.error_map, region)

    def __post_init__(self) -> None:
        if self.error_map.dtype != torch.bool or self.error_map.shape != self.probability.shape:
            raise ValueError(
                f"error_map must be bool and of the shape of probability {tuple(self.probability.shape)}, "
                f"got {self.error_map.dtype} {tuple(self.error_map.shape)}"
            )


@dataclass(frozen=True)
class QualityPrediction:
    """A verdict on one mask as a whole, of a judge that says nothing of single voxels.

    Attributes:
        quality: QI by region, "volume" and "heart".
        expected_dice: of structures, by label; one of which none is expected is missing.
    """

    quality: Mapping[str, float]
    expected_dice: Mapping[int, float]
