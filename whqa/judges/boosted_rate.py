"""How many of a second opinion's doubts are borne out: the error rate of a mask by boosted regression trees.

    rate = (doubt + 0.003) * ratio(features),   doubt: sum of 1 - p_S(M) over a part, by the heart's voxels

for each part of the mask (`whqa.judges.mask_parts`) by itself, with the features of `whqa.judges.rate_features`. If the
opinion is right about its own certainty and the mask is no wiser, the ratio is 1: so it is for masks of the opinion's
own kind, and for gross faults. Of a right mask of another maker, which differs from the opinion wherever that is wrong,
it is 0. Which of these a mask is like is not linear in anything: seams thinner than the opinion is unsure speak for a
mask of its own kind, as thick ones for a right mask, thicker ones for a fault. So it is learned by gradient boosting
(Friedman 2001, Annals of Statistics 29(5)), scikit-learn's, and kept as plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt

from whqa.judges.mask_parts import MASK_PARTS
from whqa.judges.rate_features import OPINION_FEATURES, doubts_of_parts
from whqa.metrics.arrays import FloatArray

LEAST_DOUBT = 0.003
"""Added to the doubt: an opinion without any may be wrong."""
SETTINGS = {"n_estimators": 100, "max_depth": 3, "learning_rate": 0.1, "min_samples_leaf": 8, "random_state": 0}
_FIRST = 1
"""Of the features before it the opinion knows nothing."""

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Trees:
    """The nodes of all trees, one after the other; all but the roots of one length.

    Attributes:
        start: the ratio before the trees speak.
        roots: number of each tree's first node.
        left, right: node that follows where a feature is at most the threshold, and where it is above; -1 for a leaf.
        feature: number of the feature in `OPINION_FEATURES`.
        threshold: of the feature.
        value: what a leaf adds to the ratio.
    """

    start: float
    roots: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    feature: tuple[int, ...]
    threshold: tuple[float, ...]
    value: tuple[float, ...]

    def ratio(self, features: FloatArray) -> FloatArray:
        """What the trees say: (n, features of `rate_features`) -> (n,)."""
        left, right, feature, threshold, value = self._nodes
        # trees are grown, and so are read, in single precision
        said = np.asarray(features, np.float64)[:, _FIRST:].astype(np.float32)
        row, node = np.arange(len(said))[:, None], np.tile(np.array(self.roots, np.int64), (len(said), 1))
        while node.size and (inner := left[node] >= 0).any():
            low = said[row, feature[node]] <= threshold[node]
            node = np.where(inner, np.where(low, left[node], right[node]), node)
        return self.start + (value[node].sum(axis=1) if node.size else np.zeros(len(said)))

    @cached_property
    def _nodes(self) -> tuple[IntArray, IntArray, IntArray, FloatArray, FloatArray]:
        left, right, feature = (np.array(v, np.int64) for v in (self.left, self.right, self.feature))
        return left, right, feature, np.array(self.threshold), np.array(self.value)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> Trees:
        """What `dataclasses.asdict` made.

        Raises:
            ValueError, TypeError, KeyError: it did not.
        """
        whole = (tuple(map(index, numbers[name])) for name in ("roots", "left", "right", "feature"))
        real = (tuple(map(float, numbers[name])) for name in ("threshold", "value"))
        found = cls(float(numbers["start"]), *whole, *real)
        found._check()
        return found

    def _check(self) -> None:
        n = len(self.left)
        if any(len(v) != n for v in (self.right, self.feature, self.threshold, self.value)):
            raise ValueError("arrays of nodes differ in length")
        if any(not -1 <= k < max(n, len(OPINION_FEATURES)) for k in (*self.left, *self.right, *self.feature)):
            raise ValueError("a node or a feature that is not there")
        left, right, feature, threshold, value = self._nodes
        if not np.isfinite([self.start, *threshold, *value]).all():
            raise ValueError("a number is not finite")
        inner = left >= 0
        # later nodes only, so that every way down ends
        here, after = np.flatnonzero(inner), np.stack([left[inner], right[inner]])
        if ((after <= here) | (after >= n)).any() or not all(0 <= root < n for root in self.roots):
            raise ValueError("a node that is not there")
        if ((feature[inner] < 0) | (feature[inner] >= len(OPINION_FEATURES))).any():
            raise ValueError("not the features that there are")


@dataclass(frozen=True)
class BoostedRate:
    """Trees for each of `MASK_PARTS`."""

    parts: tuple[Trees, ...]

    def rates(self, features: FloatArray) -> FloatArray:
        """Expected wrong voxels of each part by the voxels of the heart: (n, features) -> (n, parts)."""
        ratio = np.stack([trees.ratio(features) for trees in self.parts], axis=1)
        return np.clip(ratio, 0, None) * (doubts_of_parts(features) + LEAST_DOUBT)

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> BoostedRate:
        """What `dataclasses.asdict` made.

        Raises:
            ValueError, TypeError, KeyError: it did not.
        """
        found = cls(tuple(map(Trees.from_dict, numbers["parts"])))
        if len(found.parts) != len(MASK_PARTS):
            raise ValueError("not the parts that there are")
        return found


def fit_boosted(
    features: Sequence[FloatArray], rates: Sequence[FloatArray], weights: Sequence[float]
) -> BoostedRate | None:
    """The trees of masks with reference; None where no mask has an error, or there is none.

    Args:
        features: of each mask, see `rate_features`, of cases that the opinion has not seen.
        rates: true numbers of wrong voxels of each part, by the voxels of the heart (parts,).
        weights: of the masks.
    """
    x, y, w = np.array(features, np.float64), np.array(rates, np.float64), np.array(weights, np.float64)
    if not len(x) or not (w[:, None] * y).sum() > 0:
        return None
    doubt = doubts_of_parts(x) + LEAST_DOUBT
    return BoostedRate(tuple(_grown(x, y[:, part], w, doubt[:, part]) for part in range(len(MASK_PARTS))))


def _grown(x: FloatArray, y: FloatArray, w: FloatArray, doubt: FloatArray) -> Trees:
    from sklearn.ensemble import GradientBoostingRegressor  # half a second, and only a training fits

    # a variance in proportion to the doubt; so the mean rate is met, of all masks and in each leaf
    trust = w * doubt
    model = GradientBoostingRegressor(**SETTINGS).fit(x[:, _FIRST:], y / doubt, sample_weight=trust / trust.mean())
    trees = [each.tree_ for each in model.estimators_[:, 0]]
    roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])]).tolist()

    def following(side: str) -> tuple[int, ...]:
        """Numbers of nodes among those of all trees."""
        pairs = [(root, node) for root, tree in zip(roots, trees, strict=True) for node in getattr(tree, side).tolist()]
        return tuple(-1 if node < 0 else root + node for root, node in pairs)

    return Trees(
        float(model.init_.constant_[0, 0]),
        tuple(roots),
        following("children_left"),
        following("children_right"),
        tuple(max(-1, k) for tree in trees for k in tree.feature.tolist()),
        tuple(v for tree in trees for v in tree.threshold.tolist()),
        tuple(SETTINGS["learning_rate"] * v for tree in trees for v in tree.value[:, 0, 0].tolist()),
    )
