"""Reverse classification accuracy: a mask is as good as a segmenter that learned from it alone.

After Valindria et al. 2017 (arXiv 1702.03407): a classifier is trained on the one image with the mask under judgement
as if it were the truth, and segments reference images, whose truth is known; the best Dice of each structure over them
is the mask's score. They tried atlas forests, a small network and registration of a single atlas; a registration takes
seconds to minutes a pair. Here it is a forest: trees that see the brightness of a voxel, of its surroundings, and where
it lies from the middle of the heart, on a grid of 6 mm. So coarse a segmenter is worse than the mask, and its Dice is
lower; how much lower is learned on training masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from torch import Tensor

from whqa.judges.baseline import CaseSource
from whqa.judges.constant import REGIONS
from whqa.judges.dice_regressor import MISSED_FROM
from whqa.judges.error_rate import RateModel, fit_rate
from whqa.judges.second_opinion import family_weights
from whqa.metrics.arrays import FloatArray
from whqa.metrics.segmentation import segmentation_dice
from whqa.quality import JudgedCase, QualityPrediction, box_around, one_minus_mean

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesClassifier

GRID_MM, MARGIN_MM = 6.0, 18.0
REFERENCES, TREES, MOST_VOXELS = 5, 30, 4000


@dataclass(frozen=True, eq=False)
class Coarse:
    """The voxels of a coarse grid about a heart.

    Attributes:
        seen: what the trees see of each: brightness in windows of three sizes, mm from the heart's middle (n, 6).
        labels: of each, by the mask or the reference, uint8 (n,).
    """

    seen: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]


class Reverse:
    """Expected Dice of each structure and QI over both regions, from the scores of reverse classification.

    Each is a logistic regression on the structure's own score and the mean of all, fitted on a sample of the training
    masks in which every family weighs alike. A mask's own case is never among its references.
    """

    name = "reverse"
    needs: frozenset[str] = frozenset()
    wants_all = False

    def __init__(self) -> None:
        self._references: dict[str, Coarse] = {}
        self._models: dict[str, RateModel | None] = {}
        self._usual: dict[str, float] = {}
        self._latest: tuple[str, npt.NDArray[np.float32]] | None = None
        self._n_masks = 0

    def fit(self, cases: CaseSource) -> None:
        """Two passes over the cases: for references, then for scores; see `Baseline.fit`."""
        for case in cases():
            if case.reference is None:
                raise ValueError(f"case {case.case}, mask {case.kind}: no reference to segment")
            if case.case not in self._references:
                self._references[case.case] = self._coarse(case, case.reference)
        if not self._references:
            raise ValueError("no case to fit reverse classification on")
        scores, truths, kinds = [], [], []
        for case in cases():
            scores.append(self._scores(case))
            truths.append(_truth_of(case, self._structures))
            kinds.append(case.kind)
        self._n_masks, weights = len(kinds), family_weights(kinds)
        for column, name in enumerate((*map(str, self._structures), *REGIONS)):
            known = [i for i, truth in enumerate(truths) if not np.isnan(truth[column])]
            self._usual[name] = float(np.mean([truths[i][column] for i in known])) if known else 1.0
            self._models[name] = fit_rate(
                [_features(scores[i], column) for i in known],
                [float(truths[i][column]) for i in known],
                [weights[i] for i in known],
            )

    def predict(self, case: JudgedCase) -> QualityPrediction:
        """See `Baseline.predict`."""
        if not self._models:
            raise RuntimeError(f"baseline {self.name!r} is not fitted")
        scores, drawn = self._scores(case), set(map(int, case.mask.unique().tolist()))
        said = {}
        for column, (name, model) in enumerate(self._models.items()):
            found = self._usual[name] if model is None else float(model.rate(_features(scores, column)[None])[0])
            said[name] = found
        expected = {k: said[str(k)] if k in drawn else 0.0 for k in self._structures if k in drawn | self._missed}
        return QualityPrediction({region: said[region] for region in REGIONS}, expected)

    def parameters(self) -> dict[str, Any]:
        """How many masks it was fitted on, the references, and the regressions' coefficients."""
        models = {name: None if m is None else [m.intercept, *m.coefficients] for name, m in self._models.items()}
        return {"masks": self._n_masks, "references": len(self._references), "models": models}

    @property
    def _structures(self) -> tuple[int, ...]:
        return tuple(range(1, 1 + max(int(one.labels.max(initial=1)) for one in self._references.values())))

    @property
    def _missed(self) -> set[int]:
        have = {k: np.mean([(one.labels == k).any() for one in self._references.values()]) for k in self._structures}
        return {k for k, share in have.items() if share >= MISSED_FROM}

    def _scores(self, case: JudgedCase) -> FloatArray:
        """Best Dice of each structure over the references, 0 for one that the mask lacks: (structures,)."""
        own = self._coarse(case, case.mask)
        trees = _trees(own)
        names = sorted(name for name in self._references if name != case.case)
        chosen = names[:: max(1, -(-len(names) // REFERENCES))]
        dice = [_dice(trees, self._references[name], self._structures) for name in chosen]
        return np.nan_to_num(np.nanmax(np.vstack([*dice, np.zeros(len(self._structures))]), axis=0))

    def _coarse(self, case: JudgedCase, labels: Tensor) -> Coarse:
        steps = tuple(max(1, round(GRID_MM / edge)) for edge in case.spacing)
        if self._latest is None or self._latest[0] != case.case:
            # masks come case by case
            image = case.image.float().cpu().numpy()
            windows = [tuple(n * step for step in steps) for n in (1, 3)]
            self._latest = case.case, np.stack([image, *(ndimage.uniform_filter(image, size) for size in windows)])
        grid = tuple(slice(step // 2, None, step) for step in steps)
        values = labels.cpu().numpy().astype(np.uint8)[grid]
        edges = np.array(case.spacing) * steps
        box = box_around(values != 0, [int(MARGIN_MM / edge) for edge in edges])
        inside = values[box]
        at = np.stack(np.meshgrid(*(np.arange(n) for n in inside.shape), indexing="ij"), axis=-1).reshape(-1, 3) * edges
        drawn = inside.ravel() > 0
        at = at - (at[drawn] if drawn.any() else at).mean(axis=0)
        look = self._latest[1][(slice(None), *grid)][(slice(None), *box)].reshape(3, -1).T
        return Coarse(np.hstack([look, at]).astype(np.float32), inside.ravel())


def _trees(own: Coarse) -> ExtraTreesClassifier:
    # half a second, and only who asks for this rival needs it
    from sklearn.ensemble import ExtraTreesClassifier

    every = -(-len(own.labels) // MOST_VOXELS)
    trees = ExtraTreesClassifier(TREES, min_samples_leaf=2, random_state=0)
    return trees.fit(own.seen[::every], own.labels[::every])


def _dice(trees: ExtraTreesClassifier, on: Coarse, structures: Sequence[int]) -> FloatArray:
    """Of each structure, nan where the reference has none: (structures,)."""
    said = trees.predict(on.seen)
    sizes = [((on.labels == k).sum(), (said == k).sum(), ((on.labels == k) & (said == k)).sum()) for k in structures]
    return np.array([2 * hit / (true + called) if true else np.nan for true, called, hit in sizes])


def _features(scores: FloatArray, column: int) -> FloatArray:
    """The structure's own score and the mean; of a region the worst score and the mean."""
    own = scores[column] if column < len(scores) else scores.min()
    return np.array([own, scores.mean()])


def _truth_of(case: JudgedCase, structures: Sequence[int]) -> FloatArray:
    """Dice of each structure, nan where neither mask nor reference has it, and Acc of each region."""
    assert case.reference is not None
    n = max(len(structures), int(case.mask.max()), int(case.reference.max()))
    dice = segmentation_dice(case.mask, case.reference, n + 1)[: len(structures)]
    return np.array([*dice, *(one_minus_mean(case.error, region) for region in (None, case.heart))], np.float64)
