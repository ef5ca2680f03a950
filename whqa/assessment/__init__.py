"""A scan and a mask of it -> a verdict: error map, QI with intervals, corrected mask, what to do."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whqa.assessment.model import TrainedRun, load_run
    from whqa.assessment.pipeline import assess
    from whqa.assessment.writing import write_assessment
    from whqa.contract.quality_json import Assessment

__all__ = ["Assessment", "TrainedRun", "assess", "load_run", "write_assessment"]

_HOMES = {
    "Assessment": "whqa.contract.quality_json",
    "TrainedRun": "whqa.assessment.model",
    "assess": "whqa.assessment.pipeline",
    "load_run": "whqa.assessment.model",
    "write_assessment": "whqa.assessment.writing",
}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, and pairs and label maps of a command line are checked without it
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
