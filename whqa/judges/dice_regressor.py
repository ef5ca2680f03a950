"""Quality regressed without an error map: what an image and its mask look like in numbers -> Dice of each structure.

The question is that of Robinson et al. (MICCAI 2018), who let a deep network answer it from image and mask after
thousands of scans. Cohorts of tens of patients are what Kohlberger et al. (MICCAI 2012) had: numbers of shape and
appearance and a regression. That is what is done here, with extremely randomised trees (Geurts et al. 2006).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from torch import Tensor

from whqa.judges.baseline import CaseSource
from whqa.judges.constant import REGIONS
from whqa.judges.second_opinion import family_weights
from whqa.metrics.appearance import of_image, of_mask
from whqa.metrics.segmentation import segmentation_dice
from whqa.quality import JudgedCase, QualityPrediction, one_minus_mean

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesRegressor

TREES, SMALLEST_LEAF, SHARE_OF_NUMBERS = 200, 2, 0.3
SMALLEST_SPREAD = 1e-3
"""Least spread of the brightness of a label, in units of the normalised image."""
MISSED_FROM = 0.5
"""A structure that a mask lacks is missed, Dice 0, where this share of the training references has it."""


class DiceRegressor:
    """Expected Dice of each structure, and QI over both regions from trees grown on Acc beside the Dice.

    No formula leads from Dice to Acc, so both are learned. Every family of training masks weighs alike. A structure
    that mask and reference lack counts 1 in training and has no expected Dice.
    """

    name = "dice_regressor"
    needs: frozenset[str] = frozenset()
    wants_all = True

    def __init__(self) -> None:
        self._trees: ExtraTreesRegressor | None = None
        self._numbers: list[str] = []
        self._targets: list[str] = []
        self._middle = self._spread = np.zeros(0)
        self._missed: frozenset[int] = frozenset()
        self._n_masks = 0

    def fit(self, cases: CaseSource) -> None:
        """One pass over the cases; see `Baseline.fit`."""
        # half a second, and only a training fits
        from sklearn.ensemble import ExtraTreesRegressor

        rows, truths, kinds, present = [], [], [], []
        for case in cases():
            reference = _reference_of(case)
            n = max(1, int(case.mask.max()), int(reference.max()))
            rows.append(_numbers_of(case, n))
            truths.append(_truth_of(case, reference, n))
            present.append(_labels(reference))
            kinds.append(case.kind)
        if not rows:
            raise ValueError("no case to fit the regression on")
        x, y = pd.DataFrame(rows), pd.DataFrame(truths).fillna(1.0)
        self._numbers, self._targets = list(map(str, x)), list(map(str, y))
        self._n_masks = len(x)
        self._missed = frozenset(
            label for label in set().union(*present) if np.mean([label in one for one in present]) >= MISSED_FROM
        )
        self._middle, self._spread = y.mean().to_numpy(), y.std(ddof=0).to_numpy() + 1e-9
        self._trees = ExtraTreesRegressor(
            TREES, min_samples_leaf=SMALLEST_LEAF, max_features=SHARE_OF_NUMBERS, random_state=0
        )
        scaled = (y.to_numpy() - self._middle) / self._spread
        self._trees.fit(x.to_numpy(), scaled, sample_weight=family_weights(kinds))

    def predict(self, case: JudgedCase) -> QualityPrediction:
        """See `Baseline.predict`."""
        if self._trees is None:
            raise RuntimeError(f"baseline {self.name!r} is not fitted")
        structures = [int(target) for target in self._targets if target not in REGIONS]
        # a mask may have structures that no mask of the fit had
        n = max([*structures, int(case.mask.max())])
        x = pd.DataFrame([_numbers_of(case, n)]).reindex(columns=self._numbers)
        found = self._trees.predict(x.to_numpy())[0] * self._spread + self._middle
        said = dict(zip(self._targets, map(float, found), strict=True))
        drawn = _labels(case.mask)
        expected = {label: said[str(label)] if label in drawn else 0.0 for label in structures}
        expected = {label: dice for label, dice in expected.items() if label in drawn | self._missed}
        return QualityPrediction({region: said[region] for region in REGIONS}, expected)

    def parameters(self) -> dict[str, Any]:
        """How many masks and numbers it was fitted on, and the numbers that count most."""
        if self._trees is None:
            return {}
        weight = self._trees.feature_importances_
        first = sorted(zip(self._numbers, map(float, weight), strict=True), key=lambda one: -one[1])[:10]
        return {"masks": self._n_masks, "numbers": len(self._numbers), "importance": dict(first)}


def _numbers_of(case: JudgedCase, n: int) -> dict[str, float]:
    """`whqa.metrics.appearance`, and of each structure the share of its voxels that look more like another label."""
    image, mask = case.image.float().cpu().numpy(), case.mask.cpu().numpy().astype(np.uint8)
    names = [str(label) for label in range(1, n + 1)]
    values = of_image(image, mask, case.spacing) | of_mask(image, mask, case.spacing, names)
    heart = case.heart.cpu().numpy()
    return values | _misfits(image[heart], mask[heart], n)


def _misfits(values: npt.NDArray[np.float32], labels: npt.NDArray[np.uint8], n: int) -> dict[str, float]:
    """By a normal distribution of the brightness of each label, background near the heart among them."""
    there = [label for label in range(n + 1) if np.count_nonzero(labels == label) > 1]
    distance = np.empty((len(there), values.size), np.float32)
    for row, label in zip(distance, there, strict=True):
        own = values[labels == label]
        spread = max(float(own.std()), SMALLEST_SPREAD)
        row[:] = ((values - own.mean()) / spread) ** 2 + 2 * np.log(spread)
    liked = np.array(there)[distance.argmin(axis=0)] if there else labels
    return {f"misfit_{label}": float(np.mean(liked[labels == label] != label)) for label in there if label}


def _truth_of(case: JudgedCase, reference: Tensor, n: int) -> dict[str, float]:
    dice = segmentation_dice(case.mask, reference, n + 1)
    accuracy = (one_minus_mean(case.error, voxels) for voxels in (None, case.heart))
    return {str(label): float(d) for label, d in enumerate(dice, start=1)} | dict(zip(REGIONS, accuracy, strict=True))


def _reference_of(case: JudgedCase) -> Tensor:
    if case.reference is None:
        raise ValueError(f"case {case.case}, mask {case.kind}: no reference to regress on")
    return case.reference


def _labels(volume: Tensor) -> frozenset[int]:
    return frozenset(map(int, volume.unique().tolist())) - {0}
