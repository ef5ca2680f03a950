"""Segmentation quality assessment for whole hearts: error maps, quality indicators and cross-validated experiments.

The names in `__all__` are what other projects may use; everything else may change with any version.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from whqa import metrics
    from whqa.assessment.model import load_run
    from whqa.assessment.pipeline import assess
    from whqa.config.cohorts import cohort_of as read_cohort
    from whqa.data.phantom import phantom_cohort as phantoms
    from whqa.data.preprocess_settings import Preprocess
    from whqa.errors import InputError
    from whqa.loading.datamodule import WholeHeartDataModule
    from whqa.networks.voxresnet import VoxResNet

__all__ = [
    "InputError",
    "Preprocess",
    "VoxResNet",
    "WholeHeartDataModule",
    "__version__",
    "assess",
    "load_run",
    "metrics",
    "phantoms",
    "read_cohort",
]
__version__ = "0.1.0"

# Public name -> module, name in it.
_HOMES = {
    "InputError": ("whqa.errors", "InputError"),
    "Preprocess": ("whqa.data.preprocess_settings", "Preprocess"),
    "VoxResNet": ("whqa.networks.voxresnet", "VoxResNet"),
    "WholeHeartDataModule": ("whqa.loading.datamodule", "WholeHeartDataModule"),
    "assess": ("whqa.assessment.pipeline", "assess"),
    "load_run": ("whqa.assessment.model", "load_run"),
    "phantoms": ("whqa.data.phantom", "phantom_cohort"),
    "read_cohort": ("whqa.config.cohorts", "cohort_of"),
}


def __getattr__(name: str) -> Any:
    # torch and Lightning take seconds to import
    if name == "metrics":
        return importlib.import_module("whqa.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, inside = _HOMES[name]
    return getattr(importlib.import_module(module), inside)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
