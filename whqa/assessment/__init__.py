"""A scan and a mask of it -> a verdict: error map, QI with intervals, corrected mask, what to do."""

from whqa.assessment.case import Assessment
from whqa.assessment.model import TrainedRun, load_run
from whqa.assessment.pipeline import assess, write_assessment

__all__ = ["Assessment", "TrainedRun", "assess", "load_run", "write_assessment"]
