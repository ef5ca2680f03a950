"""The rules by which an error map follows from its probabilities, in a module that imports nothing but words."""

from __future__ import annotations

from enum import StrEnum


class ThresholdRule(StrEnum):
    """How the threshold of the error map is chosen, see `whqa.judges.calibration`."""

    expected = "expected"
    dice = "dice"
