"""The scans that a run was trained on."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from whqa.config.instantiate import make
from whqa.config.run_config import CONFIG, read_run_config
from whqa.data.case import Cohort
from whqa.errors import InputError


def cohort_of_run(run_dir: Path) -> Cohort:
    """The cohort that a run's own configuration names, read from where it lay then.

    Args:
        run_dir: runs/<experiment>.

    Raises:
        InputError: the configuration is missing or names no reader of whqa's, or the scans are gone.
    """
    fold = run_dir / "errormap" / "0"
    data = read_run_config(fold).get("data")
    target = str(data.get("_target_", "")) if isinstance(data, DictConfig) else ""
    if not target.startswith("whqa.data.") or data is None:
        raise InputError(f"{fold / CONFIG}: data {target!r} is not one of whqa's readers; it is not run")
    cohort = make(data)
    assert isinstance(cohort, Cohort)
    return cohort
