"""A second opinion: wherever a segmenter that has not seen the case would not have said so, the mask may be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from whqa.judges.baseline import Baseline, CaseSource
from whqa.judges.boosted_rate import BoostedRate
from whqa.judges.calibration import Calibration, MaskLogits, fit_calibration, fit_error_rate
from whqa.judges.doubt import doubt_logit
from whqa.judges.error_rate import RateModel
from whqa.masks.plan import family
from whqa.metrics.arrays import mean_defined
from whqa.metrics.segmentation import segmentation_dice
from whqa.quality import ErrorPrediction, JudgedCase


class SecondOpinion:
    """P = 1 - p_S(M), the probability that the segmenter gives to all labels but the mask's own, calibrated.

    It costs nothing where a run has segmenters, judges masks of every kind, and is calibrated on training masks as the
    error-map network is (`whqa.judges.calibration`), on more of them: a network has to be better. A case without
    opinion is refused with an InputError.

    The mean of several segmenters is unsure in other ways than the one opinion that training cases have, which error
    rates are learned from. So what it says tells where a mask is wrong, and one opinion how much, as for the network.

    Args:
        name: in the tables.
        attribute: the opinion, see there.
        rates_by: of the opinion that tells error rates; None takes the same, "" none: they are a regression on the mean
            doubt.

    Attributes:
        attribute: of `JudgedCase`, the opinion: "log_p" of one segmenter, "tta" of the same by test-time augmentation,
            "ensemble" of all unseen ones.
        counted: what others have found of training masks, (case, kind) -> their logits, see `count_opinions`; the fit
            takes it from here.
    """

    wants_all = False

    def __init__(self, name: str = "opinion", attribute: str = "log_p", rates_by: str | None = None) -> None:
        self.name, self.attribute, self._rates_by = name, attribute, attribute if rates_by is None else rates_by
        self.needs = frozenset({attribute, self._rates_by} - {""})
        self._calibration: Calibration | None = None
        self.counted: dict[tuple[str, str], MaskLogits] = {}

    def fit(self, cases: CaseSource) -> None:
        """One pass over the cases; every family of masks weighs alike. See `Baseline.fit`."""
        masks, kinds = [], []
        for case in cases():
            known = self.counted.pop((case.case, case.kind), None)
            masks.append(MaskLogits.of(*self._weighed(case)) if known is None else known)
            kinds.append(case.kind)
        if not masks:
            raise ValueError("no case to fit the opinion on")
        self._calibration = fit_calibration(masks, family_weights(kinds))

    def predict(self, case: JudgedCase) -> ErrorPrediction:
        """See `Baseline.predict`."""
        if self._calibration is None:
            raise RuntimeError(f"baseline {self.name!r} is not fitted")
        prediction = self._calibration.predict(*self._weighed(case))
        return replace(prediction, agreement=self._agreement(case.hearing(self.attribute)))

    def _weighed(self, case: JudgedCase) -> tuple[Tensor, JudgedCase]:
        """The doubt's logit, and the case with what tells its error rate."""
        return doubt_logit(case.hearing(self.attribute)), case.hearing(self._rates_by or None)

    def _agreement(self, heard: JudgedCase) -> dict[str, float]:
        """How like the mask is what the opinion would draw, and how alike is what those behind it would."""
        assert heard.log_p is not None
        found = {"opinion_dice": mean_defined(segmentation_dice(heard.mask, heard.drawn, len(heard.log_p)))}
        if self.attribute == "ensemble" and heard.pairwise_dice is not None:
            found["pairwise_dice"] = heard.pairwise_dice
        return found

    def parameters(self) -> dict[str, Any]:
        """The calibration."""
        return {} if self._calibration is None else self._calibration.to_dict()


def counts_of(baselines: Iterable[Baseline], opinion: str) -> dict[tuple[str, str], MaskLogits] | None:
    """Where the rival that this opinion is takes what others have found of it; None without such a rival."""
    rivals = (b for b in baselines if isinstance(b, SecondOpinion) and b.attribute == opinion)
    return next((rival.counted for rival in rivals), None)


def count_opinions(cases: Iterable[JudgedCase]) -> dict[tuple[str, str], MaskLogits]:
    """What masks with reference tell of the opinion's error rates, by (case, kind).

    No network has to be kept from these cases, for the opinion's segmenter has not seen them: there may be many.
    """
    return {(case.case, case.kind): MaskLogits.of(doubt_logit(case), case) for case in cases}


def opinion_rate(counted: Mapping[tuple[str, str], MaskLogits]) -> RateModel | BoostedRate | None:
    """Error rates from what the opinion alone says of these masks, see `count_opinions`."""
    weights = family_weights([kind for _, kind in counted])
    return fit_error_rate(list(counted.values()), weights)


def family_weights(kinds: list[str]) -> list[float]:
    """The weight of each mask, by its kind: families weigh alike, whatever their number of masks."""
    count = Counter(map(family, kinds))
    return [1.0 / count[family(kind)] for kind in kinds]
