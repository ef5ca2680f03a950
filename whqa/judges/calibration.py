"""Calibration of predicted error probabilities on training cases that the error-map network has not seen.

P = sigmoid(slope * z + offset). z is the logit, or lies between it and the logit of a second opinion's doubt, as they
err in different places (stacking: Wolpert 1992, Neural Networks 5(2)). The offset is the mask's own in each of its
parts (`whqa.judges.mask_parts`; without a second opinion there is one): P over the heart adds up to the number of wrong
voxels that is expected there (`whqa.judges.offsets`), with an opinion by `whqa.judges.boosted_rate`, without one by a
regression on the mean of P (`whqa.judges.error_rate`). So the soft QI is unbiased given what is known of the mask,
whether it is perfect or poor. Beyond the heart, where mask and opinion agree, all masks have one offset, at which P
adds up to the wrong voxels there. Then the error map follows by one of two rules:

    expected  each mask has its tau, the one with the best Dice that P itself lets expect: a bad mask gets a large map,
              a good one a small map
    dice      one tau for all masks, with the best mean error Dice on those cases
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy.special import expit, log_expit
from torch import Tensor

from whqa.files import read_json, reading
from whqa.judges.boosted_rate import BoostedRate, fit_boosted
from whqa.judges.by_patient import standard_error
from whqa.judges.doubt import doubt_logit
from whqa.judges.error_rate import RateModel, fit_rate
from whqa.judges.mask_parts import MASK_PARTS, mask_parts
from whqa.judges.offsets import BINS, LOGIT_RANGE, OWN_SHARE, bin_logits, offsets, part_offsets
from whqa.judges.rate_features import rate_features
from whqa.judges.threshold import LEVELS
from whqa.judges.threshold_rule import ThresholdRule
from whqa.metrics.arrays import FloatArray
from whqa.quality import ErrorPrediction, JudgedCase, within

CALIBRATION = "calibration.json"
SLOPES = (0.05, 5.0)


@dataclass(frozen=True)
class CorrectionRule:
    """When a mask is corrected, see `whqa.judges.correction`.

    Attributes:
        probability: a voxel may change where another label is at least this probable.
        gain: a structure may change where its Dice is expected to gain at least this much.
        of_structures: the same of each structure 1..C, infinity for one that is left alone; None takes `gain` for all.
    """

    probability: float
    gain: float
    of_structures: tuple[float, ...] | None = None

    def gain_of(self, index: int) -> float:
        """Of structure `index`, from 1 on."""
        return self.gain if self.of_structures is None else self.of_structures[index - 1]


@dataclass(frozen=True)
class Calibration:
    """From error logits to P and the error map.

    Attributes:
        slope: of z.
        rate: the error rate that a mask is expected to have; None leaves logits as they are.
        threshold: wrong is where P >= threshold; None stands for the rule "expected".
        correction: when a label head's correction helps; None leaves masks alone.
        image_level: of a joint network's outputs of the whole mask, each; None leaves it as it is.
        opinion_share: of the doubt's logit in z, from 0 to 1.
        beyond: offset of voxels of the first part beyond the heart; None takes that within it.
        own_share: of a part's own offset in its offset, see `whqa.judges.offsets`.
        held_back: rates that were learned without the cases that all else was fitted on; None: `rate` was, too.
    """

    slope: float = 1.0
    rate: RateModel | BoostedRate | None = None
    threshold: float | None = 0.5
    correction: CorrectionRule | None = None
    image_level: tuple[RateModel | None, ...] | None = None
    opinion_share: float = 0.0
    beyond: float | None = None
    own_share: float = OWN_SHARE
    held_back: BoostedRate | RateModel | None = None

    @property
    def of_held_back(self) -> Calibration:
        """What may judge the held-back cases: with error rates that have not seen them."""
        return self if self.held_back is None else replace(self, rate=self.held_back, held_back=None)

    def predict(self, logit_DHW: Tensor, case: JudgedCase, doubt_DHW: Tensor | None = None) -> ErrorPrediction:
        """Calibrated probability float32 (D, H, W) and error map bool (D, H, W); the reference is not looked at.

        Args:
            logit_DHW: error logit.
            case: the mask, with the opinion that tells its error rate.
            doubt_DHW: logit of what is doubted in z; None takes that of the case's opinion.
        """
        logit = stacked_logit(logit_DHW, case, self.opinion_share, doubt_DHW).clamp(-LOGIT_RANGE, LOGIT_RANGE)
        evidence = self.slope * logit
        probability = torch.sigmoid(evidence + self._offset(logit, case))
        threshold = expected_dice_threshold(probability) if self.threshold is None else self.threshold
        return ErrorPrediction(
            probability,
            probability >= threshold,
            calibrated=self.rate is not None,
            suspicion=torch.sigmoid(evidence),
        )

    def _offset(self, logit_DHW: Tensor, case: JudgedCase) -> Tensor | float:
        if self.rate is None:
            return 0.0
        part, counts = _parts_of(case), _counts(logit_DHW, case)
        rates = self.rate.rates(rate_features(logit_DHW, case)[None])
        of_parts = part_offsets(self.slope, counts[None], rates, self.own_share)[0]
        found = torch.from_numpy(of_parts).float().to(logit_DHW.device)[part]
        return found if self.beyond is None else found.masked_fill((part == 0) & ~case.heart, self.beyond)

    def likelihoods(self, masks: Sequence[MaskLogits]) -> FloatArray:
        """Mean logarithm of the probability that P gives to the truth of each mask with reference of this z: (n,)."""
        if self.rate is None:
            return np.zeros(len(masks))
        rates = self.rate.rates(np.stack([m.features for m in masks]))
        return _likelihoods(self.slope, np.stack([m.heart for m in masks]), rates)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for calibration.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Calibration:
        """What `to_dict` made.

        Raises:
            ValueError, TypeError, KeyError: it did not.
        """
        rate, correction, threshold = numbers["rate"], numbers["correction"], numbers["threshold"]
        found = cls(
            float(numbers["slope"]),
            _error_rate(rate),
            None if threshold is None else float(threshold),
            None if correction is None else CorrectionRule(float(correction["probability"]), float(correction["gain"])),
            # runs of earlier versions know no joint network
            None if numbers.get("image_level") is None else tuple(map(_rate_model, numbers["image_level"])),
            float(numbers["opinion_share"]),
            # nor do they know another offset beyond the heart
            None if numbers.get("beyond") is None else float(numbers["beyond"]),
            # and parts have their own offsets alone
            float(numbers.get("own_share", 1.0)),
            _error_rate(numbers.get("held_back")),
        )
        known = [found.slope, found.threshold or 0.0, found.opinion_share, found.beyond or 0.0, found.own_share]
        known += [] if found.correction is None else [found.correction.probability, found.correction.gain]
        rates = (found.rate, found.held_back, *(found.image_level or ()))
        linear = [m for m in rates if isinstance(m, RateModel)]
        known += [n for m in linear for n in (m.intercept, *m.coefficients)]
        if not np.isfinite(known).all():
            raise ValueError("a number is not finite")
        return found


def _error_rate(numbers: Mapping[str, Any] | None) -> RateModel | BoostedRate | None:
    if numbers is not None and "parts" in numbers:
        return BoostedRate.from_dict(numbers)
    found = _rate_model(numbers)
    if found is not None and len(found.coefficients) != 1:
        raise ValueError("not the features that there are")
    return found


def _rate_model(numbers: Mapping[str, Any] | None) -> RateModel | None:
    if numbers is None:
        return None
    return RateModel(float(numbers["intercept"]), tuple(map(float, numbers["coefficients"])))


def read_calibration(path: Path, remedy: str) -> Calibration:
    """The calibration that a run keeps.

    Raises:
        InputError: the file is missing or damaged, or an older version wrote it; ends with `remedy`.
    """
    with reading(path, "a calibration", remedy):
        return Calibration.from_dict(read_json(path, remedy))


def expected_dice_threshold(probability: Tensor) -> float:
    """tau whose map [P >= tau] has the best expected Dice; above 1 where not even half a wrong voxel is expected.

    With P the truth's distribution, a map of k voxels has the expected Dice 2 sum(P in the map) / (k + sum(P)), up to
    the expectation of the ratio (Lipton et al. 2014, arXiv 1402.1892, for F1). Candidates are k / 1024.
    """
    total = float(probability.double().sum())
    if total < 0.5:
        return 2.0
    level = (probability.flatten() * LEVELS).long().clamp(0, LEVELS)
    count = torch.bincount(level, minlength=LEVELS + 1).double()
    mass = torch.bincount(level, weights=probability.flatten().double(), minlength=LEVELS + 1)
    called, hit = (values.flip(0).cumsum(0).flip(0) for values in (count, mass))
    return float((2 * hit / (called + total)).argmax()) / LEVELS


def stacked_logit(logit_DHW: Tensor, case: JudgedCase, opinion_share: float, doubt_DHW: Tensor | None = None) -> Tensor:
    """z, see above: float32 (D, H, W); arguments as of `Calibration.predict`."""
    logit = logit_DHW.float()
    if not opinion_share:
        return logit
    return torch.lerp(logit, doubt_logit(case) if doubt_DHW is None else doubt_DHW, opinion_share)


@dataclass(frozen=True, eq=False)
class MaskLogits:
    """What the calibration needs to know of one judged mask with reference, small enough to keep many.

    Attributes:
        features: see `rate_features`.
        heart: voxels of the heart in each part and bin of the logit, right and wrong: float64 (parts, 2, BINS).
        beyond: those of the rest of the crop.
    """

    features: FloatArray
    heart: FloatArray
    beyond: FloatArray

    @property
    def rates(self) -> FloatArray:
        """True numbers of wrong voxels of each part, by the voxels of the heart (parts,)."""
        return self.heart[:, 1].sum(axis=1) / max(1.0, self.heart.sum())

    @classmethod
    def of(cls, logit_DHW: Tensor, case: JudgedCase) -> MaskLogits:
        """Count voxels; logits beyond ±12 fall into the end bins."""
        if case not in _FIRST_BINS:
            # one mask is counted with several z
            _FIRST_BINS[case] = BINS * (2 * _parts_of(case) + case.error).add_(case.heart, alpha=2 * len(MASK_PARTS))
        bins = _bins(logit_DHW).add_(_FIRST_BINS[case])
        counts = torch.bincount(bins.flatten(), minlength=4 * len(MASK_PARTS) * BINS)
        n_parts = _n_parts(case)
        of_rest, of_heart = counts.double().cpu().numpy().reshape(2, len(MASK_PARTS), 2, BINS)[:, :n_parts]
        features = rate_features(logit_DHW.clamp(-LOGIT_RANGE, LOGIT_RANGE), case)
        return cls(features, of_heart, of_rest)


_FIRST_BINS: WeakKeyDictionary[JudgedCase, Tensor] = WeakKeyDictionary()


def fit_calibration(
    masks: Sequence[MaskLogits],
    weights: Sequence[float] | None = None,
    rule: ThresholdRule = ThresholdRule.expected,
    rate: RateModel | BoostedRate | None = None,
) -> Calibration:
    """Error rates, the slope by maximum likelihood over the heart, the offset beyond it, then the rule's threshold.

    Args:
        masks: none at all leaves logits as they are, with tau = 0.5.
        weights: of the masks, all alike by default.
        rule: see above.
        rate: error rates that were learned from more masks; None learns them from these.
    """
    if not masks:
        return Calibration()
    share = np.ones(len(masks)) if weights is None else np.asarray(weights, np.float64)
    share = share / share.sum()
    rate = fit_error_rate(masks, share.tolist()) if rate is None else rate
    if rate is None:
        return Calibration(threshold=None if rule == ThresholdRule.expected else 0.5)
    heart = np.stack([m.heart for m in masks])
    rates = rate.rates(np.stack([m.features for m in masks]))
    slope = _likeliest_slope(heart, rates, share)
    found = Calibration(slope, rate, None, beyond=_offset_beyond(slope, masks, share))
    if rule == ThresholdRule.expected:
        return found
    of_parts = part_offsets(slope, heart.sum(axis=2), rates)
    return replace(found, threshold=_best_threshold(masks, found, of_parts, share))


def fit_stacked(
    masks: Mapping[float, Sequence[MaskLogits]],
    weights: Sequence[float],
    patients: Sequence[str],
    rule: ThresholdRule,
    rate: RateModel | BoostedRate | None,
) -> Calibration:
    """That of `fit_calibration` of the most even of the likeliest z.

    Few patients do not tell the best share from others, and then an even one is the best guess (the forecast
    combination puzzle, Stock & Watson 2004): of all shares whose likelihood is less than the highest by no more than
    one standard error, between patients, the one nearest to a half is taken.

    Args:
        masks: share of the doubt's logit -> the same masks with that z.
        weights, rule, rate: see there.
        patients: of each mask.
    """
    found = {share: fit_calibration(these, weights, rule, rate) for share, these in masks.items()}
    first = next(iter(found.values()))
    if first.rate is None:
        return first
    part = np.asarray(weights, np.float64) / np.sum(weights)
    said = {share: part * found[share].likelihoods(these) for share, these in masks.items()}
    best = max(said.values(), key=np.sum)
    near = [share for share, these in said.items() if np.sum(best - these) <= standard_error(best - these, patients)]
    most_even = min(near, key=lambda share: (abs(share - 0.5), share))
    return replace(found[most_even], opinion_share=most_even)


def fit_error_rate(masks: Sequence[MaskLogits], weights: Sequence[float]) -> RateModel | BoostedRate | None:
    """What `MaskLogits.features` tell of error rates, with a second opinion or without; None where no mask is wrong."""
    features = [m.features for m in masks]
    if masks and len(features[0]) > 1:
        return fit_boosted(features, [m.rates for m in masks], weights)
    return fit_rate(features, [float(m.rates[0]) for m in masks], weights)


def corrected_by(calibration: Calibration, rule: CorrectionRule | None) -> Calibration:
    """The same with another rule of correction."""
    return replace(calibration, correction=rule)


def _parts_of(case: JudgedCase) -> Tensor:
    """Number of each voxel's part, int64 (D, H, W); all are of the first where there is no opinion."""
    found = mask_parts(case)
    return torch.zeros_like(case.mask, dtype=torch.long) if found is None else found


def _n_parts(case: JudgedCase) -> int:
    return 1 if case.log_p is None else len(MASK_PARTS)


def _counts(logit_DHW: Tensor, case: JudgedCase) -> FloatArray:
    """Voxels of the heart in each part and bin, float64 (parts, BINS)."""
    n_parts = _n_parts(case)
    bins = _bins(within(logit_DHW, case.heart)) + BINS * within(_parts_of(case), case.heart)
    return torch.bincount(bins, minlength=n_parts * BINS).double().cpu().numpy().reshape(n_parts, BINS)


def _bins(logits: Tensor) -> Tensor:
    step = logits.float().clamp(-LOGIT_RANGE, LOGIT_RANGE).add_(LOGIT_RANGE).div_(2 * LOGIT_RANGE).mul_(BINS - 1)
    return step.round_().long()


def _likeliest_slope(heart: FloatArray, rates: FloatArray, share: FloatArray) -> float:
    from scipy.optimize import minimize_scalar  # a fifth of a second, and only a training fits

    bounds = (np.log(SLOPES[0]), np.log(SLOPES[1]))

    def surprise(log_slope: float) -> float:
        return -float(share @ _likelihoods(float(np.exp(log_slope)), heart, rates))

    found = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-3})
    return float(np.exp(found.x))


def _likelihoods(slope: float, heart: FloatArray, rates: FloatArray) -> FloatArray:
    """Mean logarithm of what P says of the truth, over the voxels of each mask's heart (n, parts, 2, BINS): (n,)."""
    z = slope * bin_logits() + part_offsets(slope, heart.sum(axis=2), rates)[..., None]
    found: FloatArray = (heart[:, :, 1] * log_expit(z) + heart[:, :, 0] * log_expit(-z)).sum(axis=(1, 2))
    return found / np.maximum(heart.sum(axis=(1, 2, 3)), 1)


def _offset_beyond(slope: float, masks: Sequence[MaskLogits], share: FloatArray) -> float:
    """At which the sum of P over the first part beyond the heart is the number of wrong voxels, on average of masks."""
    size = np.maximum([m.heart.sum() + m.beyond.sum() for m in masks], 1)
    right, wrong = np.tensordot(share / size, np.stack([m.beyond[0] for m in masks]), axes=1)
    # not even one in all voxels of these masks is no proof that there is none
    rates = np.clip(wrong.sum() / max((right + wrong).sum(), 1e-12), 1 / sum(size), 1)
    return float(offsets(slope, (right + wrong)[None, None], np.array([[rates]]), (0.0, 1.0))[0, 0])


def _best_threshold(masks: Sequence[MaskLogits], found: Calibration, of_parts: FloatArray, share: FloatArray) -> float:
    mean, scaled = np.zeros(LEVELS + 1), found.slope * bin_logits()
    for mask, offset, weight in zip(masks, of_parts, share, strict=True):
        beyond = np.r_[offset[0] if found.beyond is None else found.beyond, offset[1:]]
        level = (expit(scaled + np.r_[offset, beyond][:, None]) * LEVELS).round().astype(int).ravel()
        volume = np.concatenate([mask.heart, mask.beyond]).transpose(1, 0, 2).reshape(2, -1)
        right, wrong = (np.bincount(level, weights=v, minlength=LEVELS + 1) for v in volume)
        hit, called = (np.cumsum(v[::-1])[::-1] for v in (wrong, right + wrong))
        size = called + wrong.sum()
        mean += weight * np.divide(2 * hit, size, out=np.ones_like(size), where=size > 0)
    # half a level below, so that rounding cannot move a voxel across tau
    return max(0.0, (int(mean.argmax()) - 0.5) / LEVELS) if mean.argmax() else 0.0
