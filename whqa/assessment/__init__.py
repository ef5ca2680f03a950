"""A scan and a mask of it -> a verdict: error map, QI with intervals, corrected mask, what to do."""

from whqa.assessment.case import Assessment

__all__ = ["Assessment"]
