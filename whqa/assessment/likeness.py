"""Whether a scan and its mask are like those of the run: what was measured on those holds for such alone."""

from __future__ import annotations

from dataclasses import dataclass

from whqa.assessment.model import TrainedRun
from whqa.assessment.run_grid import CaseOnGrid
from whqa.contract.quality_json import Unfamiliar
from whqa.data.case import Modality
from whqa.results.familiarity import better_than_own, load_features, unchecked, unfamiliar
from whqa.results.features import features

BETTER = "the mask is more like the run's references than like the masks of its segmenters"


@dataclass(frozen=True)
class Likeness:
    """In what a scan and its mask are unlike the run's own.

    Attributes:
        unfamiliar: numbers that are unlike all of the run's own cases, the strangest first.
        better: sentences on what makes the mask better than those of the run's segmenters, the strangest first.
        unchecked: why the run's numbers are not enough to tell; None where they are.
    """

    unfamiliar: list[Unfamiliar]
    better: list[str]
    unchecked: str | None

    @property
    def warnings(self) -> list[str]:
        """For the user."""
        words = [self.unchecked] if self.unchecked else []
        # the figures of a scan unlike the run's own may be off in either direction
        if self.better and not self.unfamiliar:
            words.append(f"T{BETTER[1:]}; its figures are probably too low. {self.better[0]}")
        return words


def likeness_to(run: TrainedRun, case: CaseOnGrid, modality: Modality) -> Likeness:
    """Compare the numbers of one case with those of the run's own of the same modality."""
    known = load_features(run.directory, modality)
    numbers = features(case.image, case.mask, case.geometry, run.scheme.keys)
    strange = unfamiliar(numbers, known)
    return Likeness(strange, better_than_own(numbers, known), unchecked(known))
