"""A scan and a mask of it -> a verdict: error map, QI with intervals, corrected mask, what to do."""

from whqa.assessment.model import TrainedRun, load_run
from whqa.assessment.pipeline import assess, write_assessment
from whqa.contract.quality_json import Assessment

__all__ = ["Assessment", "TrainedRun", "assess", "load_run", "write_assessment"]
