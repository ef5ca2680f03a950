"""The error-map networks of several folds as one judge of a mask on the cache grid.

Probabilities are averaged: P, and the probability of every label, which a network without label head does not give.
Each fold's own numbers are kept, as its intervals follow from its own residuals.
Shape suffixes: C all C + 1 labels, DHW space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from whqa.assessment.model import FoldNetwork
from whqa.assessment.one_heart import OneHeart
from whqa.config.speed import cpu_precision
from whqa.errors import InputError
from whqa.judges.calibration import expected_dice_threshold
from whqa.judges.correction import expected_dice, other_probabilities
from whqa.judges.threshold_rule import ThresholdRule
from whqa.loading.brightness import brightness
from whqa.masks.opinion import decode, encode, mean_log_p
from whqa.metrics.error_places import millilitres, place_certainty
from whqa.quality import ErrorPrediction, JudgedCase, heart_region, most_probable

NO_LABELS = "the run's network has no label head; `whqa cv ... errormap.head=label name=...` trains one that has"
LOST = "the mask has no voxel on the grid of the run"


class FoldNumbers(NamedTuple):
    """One network's own QI by region, expected Dice of structures 1..C (nothing without label head), and certainty.

    A mask without any voxel has no QI over the heart. The certainty is that of its surest place, see
    `whqa.metrics.error_places.place_certainty`.
    """

    qi: dict[str, float]
    dice: list[float]
    certainty: float


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the networks say about one mask.

    Attributes:
        probability: P, float32 (D, H, W).
        error_map: bool (D, H, W).
        threshold: tau of the error map.
        rule: that tau follows from.
        others: probabilities of the labels where the mask is wrong, float32 (C + 1, D, H, W), or None without label
            head.
        expected_dice: of structures 1..C, float64 (C,), or None.
        heart: the region "heart", bool (D, H, W), or None where the mask has no voxel.
        by_fold: fold -> what that network says alone.
        calibrated: whether QI follows from P itself, see `whqa.quality.ErrorPrediction`.
        opinion: the label that the run's segmenters hold for most probable, uint8 (D, H, W), or None without.
        suspicion: how wrong a voxel looks by itself, see `whqa.quality.ErrorPrediction`; the mean over the networks.
    """

    probability: Tensor
    error_map: Tensor
    threshold: float
    rule: ThresholdRule
    others: Tensor | None
    expected_dice: Tensor | None
    heart: Tensor | None
    by_fold: dict[int, FoldNumbers]
    calibrated: bool
    opinion: Tensor | None
    suspicion: Tensor

    def quality(self, region: Tensor | None = None) -> float:
        """QI over a region, None is the whole volume."""
        return ErrorPrediction(self.probability, self.error_map, calibrated=self.calibrated).quality(region)

    @property
    def certainty(self) -> float:
        """Of the surest place, for the middle one of the networks: each is as sure as it was of the unseen masks."""
        return float(np.median([numbers.certainty for numbers in self.by_fold.values()]))

    @property
    def lost(self) -> bool:
        """Whether the mask has no voxel on the run's grid."""
        return self.heart is None

    @property
    def map_threshold(self) -> float:
        """Of the error map on the input's grid: above 0, as nothing is said of voxels outside the judged box."""
        return max(self.threshold, 1e-6)


def judge_mask(
    networks: Sequence[FoldNetwork],
    image_DHW: Tensor,
    mask_DHW: Tensor,
    spacing: tuple[float, float, float],
    told_CDHW: Tensor | None = None,
    one_heart: OneHeart | None = None,
) -> Judgement:
    """Let every network judge the mask, each with the second opinion of its own fold's segmenter, or of all together.

    Args:
        networks: of one run.
        image_DHW: normalised, float32.
        mask_DHW: label indices, int64.
        spacing: mm along D, H, W.
        told_CDHW: log p_S of another program, where the run has no segmenters.
        one_heart: of a mask with the heart as one structure; all that is said is then of the mask's own labels.

    Raises:
        InputError: a network gives NaN.
    """
    heart = heart_region(mask_DHW, spacing) if mask_DHW.any() else None
    calibrated = all(n.module.calibration.rate is not None for n in networks)
    n_classes = networks[0].module.n_classes if one_heart is None else one_heart.n_classes
    sums = _Sums(networks, image_DHW, n_classes)
    by_fold: dict[int, FoldNumbers] = {}
    verdicts = _each(networks, image_DHW, mask_DHW, spacing, told_CDHW, one_heart)
    for network, said in zip(networks, verdicts, strict=True):
        by_fold[network.fold] = _numbers(said, mask_DHW, heart, calibrated, spacing)
        sums.add(said)
    probability, others = sums.probability / len(networks), sums.others
    by_case = all(n.module.calibration.threshold is None for n in networks)
    threshold = expected_dice_threshold(probability) if by_case else sum(sums.thresholds) / len(networks)
    return Judgement(
        probability,
        probability >= threshold,
        threshold,
        ThresholdRule.expected if by_case else ThresholdRule.dice,
        others,
        None if others is None else expected_dice(probability, others, mask_DHW),
        heart,
        by_fold,
        calibrated,
        None if sums.opinion is None else most_probable(sums.opinion).to(torch.uint8),
        sums.suspicion / len(networks),
    )


class _Sums:
    """Over the networks: P, suspicion, the labels' probabilities where the mask is wrong, the opinions', tau."""

    def __init__(self, networks: Sequence[FoldNetwork], image_DHW: Tensor, n_classes: int) -> None:
        first = networks[0]
        self.probability, self.suspicion = torch.zeros_like(image_DHW), torch.zeros_like(image_DHW)
        self.labels = torch.zeros(n_classes, *image_DHW.shape) if first.module.corrects else None
        self.opinion = torch.zeros(n_classes, *image_DHW.shape) if first.module.hears_opinion else None
        self.thresholds: list[float] = []

    def add(self, said: _Said) -> None:
        """Take in what one network said."""
        self.probability += said.probability
        self.suspicion += said.suspicion
        self.thresholds.append(said.threshold)
        if self.labels is not None and said.others is not None:
            self.labels += said.others * said.probability
        if self.opinion is not None and said.opinion is not None:
            self.opinion += said.opinion

    @property
    def others(self) -> Tensor | None:
        """q of all networks together."""
        return None if self.labels is None else self.labels / self.labels.sum(dim=0).clamp(min=1e-12)


def _numbers(
    said: _Said, mask_DHW: Tensor, heart: Tensor | None, calibrated: bool, spacing: tuple[float, float, float]
) -> FoldNumbers:
    found = ErrorPrediction(said.probability, said.probability >= said.threshold, calibrated=calibrated)
    qi = {"volume": found.quality()} | ({} if heart is None else {"heart": found.quality(heart)})
    dice = [] if said.others is None else expected_dice(said.probability, said.others, mask_DHW).tolist()
    return FoldNumbers(qi, dice, place_certainty(said.suspicion.numpy(), millilitres(spacing)))


class _Said(NamedTuple):
    """Of one network, on the CPU: P, what looks wrong by itself, q, tau and p_S, the opinion that it heard."""

    probability: Tensor
    suspicion: Tensor
    others: Tensor | None
    threshold: float
    opinion: Tensor | None


def _each(
    networks: Sequence[FoldNetwork],
    image_DHW: Tensor,
    mask_DHW: Tensor,
    spacing: tuple[float, float, float],
    told_CDHW: Tensor | None,
    one_heart: OneHeart | None,
) -> Iterator[_Said]:
    """What every network says; one network at a time is on the device."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fast = device.type == "cuda" or cpu_precision() == "bf16-mixed"
    image = image_DHW[None, None].to(device)
    batch = {"image": image, "plain": image, "spacing": torch.tensor([spacing])}
    shown = mask_DHW
    every = [_opinion(n, image, fast, told_CDHW) for n in networks] if networks[0].hears_all else []
    if len(every) > 1:
        batch["heard"] = mean_log_p([one for one in every if one is not None])[None].to(device)
    for number, network in enumerate(networks):
        log_p = every[number] if every else _opinion(network, image, fast, told_CDHW)
        module = network.module.to(device)
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=fast and network.bf16):
            if log_p is not None:
                batch[module.opinion] = log_p[None].to(device)
                shown = mask_DHW if one_heart is None else one_heart.filled(mask_DHW, log_p)
            if "mask" not in batch or one_heart is not None:
                known = brightness(image_DHW.numpy(), shown.numpy().astype(np.uint8), spacing, module.n_classes)
                batch |= {"mask": shown[None].to(device), "brightness": torch.from_numpy(known)[None].to(device)}
            raw = module.raw(batch)
            _refuse_nan(raw.error_logit, f"error-map network of fold {network.fold}")
            case = JudgedCase("", "", image_DHW, shown, None, None, spacing, log_p)
            doubt = None if raw.doubt is None else raw.doubt.cpu()
            found = module.calibration.predict(raw.error_logit.cpu(), case, doubt)
            others = None if raw.label_logits is None else other_probabilities(raw.label_logits.cpu(), shown)
        probability, suspicion = found.probability, found.suspect
        opinion = None if log_p is None else log_p.exp()
        if one_heart is not None and others is not None and opinion is not None:
            suspicion, _ = one_heart.judged(suspicion, others, shown)
            probability, others = one_heart.judged(probability, others, shown)
            opinion = one_heart.summed(opinion)
        tau = module.calibration.threshold
        threshold = expected_dice_threshold(probability) if tau is None else tau
        yield _Said(probability, suspicion, others, threshold, opinion)
        module.cpu()


def _opinion(network: FoldNetwork, image: Tensor, fast: bool, told_CDHW: Tensor | None) -> Tensor | None:
    """What the network's segmenter says of the image (1, 1, D, H, W), or else another program: as it is stored."""
    told, device = told_CDHW, image.device
    if network.segmenter is not None:
        segmenter = network.segmenter.to(device)
        speak = segmenter.log_p_of_views if network.module.hears_views else segmenter.log_p
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=fast and network.bf16):
            told = speak(image[0, 0])
        _refuse_nan(told, f"segmenter of fold {network.fold}")
        network.segmenter.cpu()
    # as the network learned from it
    return None if told is None else decode(torch.from_numpy(encode(told)))


def _refuse_nan(values: Tensor, whose: str) -> None:
    if values.isnan().any():
        raise InputError(f"the {whose} gives no numbers (NaN); train it again")
