"""The segmenter's own doubt: the predictive entropy of the softmax that made the mask."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from whqa.errors import InputError
from whqa.judges.baseline import CaseSource, chosen, parameter
from whqa.judges.by_level import fit_level
from whqa.judges.threshold import LEVELS, score_levels
from whqa.quality import ErrorPrediction, JudgedCase


class Entropy:
    """P is the normalised entropy; wrong is where it reaches a threshold with the best error Dice on training masks."""

    name = "entropy"
    needs_entropy = True
    n_levels = LEVELS

    def __init__(self, threshold: float | None = None) -> None:
        self.threshold = threshold

    def fit(self, cases: CaseSource) -> None:
        """Choose the threshold; see `Baseline.fit`."""
        fit_level(self, cases)

    def levels(self, case: JudgedCase) -> Tensor:
        """See `LevelBaseline.levels`: tau = k / 1024."""
        return score_levels(_entropy(case))

    def choose(self, level: int) -> None:
        """See `LevelBaseline.choose`."""
        self.threshold = level / LEVELS

    def predict(self, case: JudgedCase) -> ErrorPrediction:
        """See `Baseline.predict`.

        Raises:
            InputError: the mask comes without entropy.
        """
        entropy = _entropy(case)
        return ErrorPrediction(entropy, entropy >= chosen(self.name, self.threshold))

    def parameters(self) -> dict[str, float]:
        """Key "threshold"."""
        return {"threshold": chosen(self.name, self.threshold)}

    def load(self, parameters: Mapping[str, float]) -> None:
        """See `Baseline.load`."""
        self.threshold = parameter(self.name, parameters, "threshold")


def _entropy(case: JudgedCase) -> Tensor:
    if case.entropy is None:
        raise InputError(
            f"case {case.case}, mask {case.kind}: no segmenter entropy, which the baseline 'entropy' needs; "
            "judge masks of a whqa segmenter, or leave this baseline out"
        )
    return case.entropy
