"""The segmenter's own doubt: the predictive entropy of the softmax that made the mask."""

from __future__ import annotations

from torch import Tensor

from whqa.errors import InputError
from whqa.judges.threshold import LEVELS, score_levels
from whqa.quality import ErrorPrediction, JudgedCase


class Entropy:
    """P is the normalised entropy; wrong is where it reaches a threshold with the best error Dice on training masks.

    A mask without entropy is refused with an InputError.
    """

    name = "entropy"
    needs = frozenset({"entropy"})
    n_levels = LEVELS

    def levels(self, case: JudgedCase) -> Tensor:
        """See `NestedMaps.levels`: tau = k / 1024."""
        return score_levels(_entropy(case))

    def predict(self, case: JudgedCase, level: int) -> ErrorPrediction:
        """See `NestedMaps.predict`."""
        _, threshold = self.parameter(level)
        entropy = _entropy(case)
        return ErrorPrediction(entropy, entropy >= threshold)

    def parameter(self, level: int) -> tuple[str, float]:
        """The threshold."""
        return "threshold", level / LEVELS


def _entropy(case: JudgedCase) -> Tensor:
    if case.entropy is None:
        raise InputError(
            f"case {case.case}, mask {case.kind}: no segmenter entropy, which the baseline 'entropy' needs; "
            "judge masks of a whqa segmenter, or leave this baseline out"
        )
    return case.entropy
