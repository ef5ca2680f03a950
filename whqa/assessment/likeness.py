"""Whether a scan and its mask are like those of the run: what was measured on those holds for such alone."""

from __future__ import annotations

from dataclasses import dataclass

from whqa.assessment.inputs import Inputs
from whqa.assessment.model import TrainedRun
from whqa.assessment.run_grid import CaseOnGrid
from whqa.contract.quality_json import Unfamiliar
from whqa.results.familiarity import feature_table, unchecked, unfamiliar
from whqa.results.features import features


@dataclass(frozen=True)
class Likeness:
    """In what a scan and its mask are unlike the run's own.

    Attributes:
        unfamiliar: numbers that are unlike all of the run's own cases, the strangest first.
        unchecked: why the run's numbers are not enough to tell; None where they are.
    """

    unfamiliar: list[Unfamiliar]
    unchecked: str | None

    @property
    def warnings(self) -> list[str]:
        """For the user."""
        return [self.unchecked] if self.unchecked else []


def likeness_to(run: TrainedRun, case: CaseOnGrid, inputs: Inputs) -> Likeness:
    """Compare the numbers of one case with those of the run's own of the same modality."""
    known = feature_table(run.features, inputs.modality)
    numbers = features(case.image, case.mask, case.geometry, inputs.run_scheme.keys)
    strange = unfamiliar(numbers, known)
    return Likeness(strange, unchecked(known))
