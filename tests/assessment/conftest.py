"""A trained run, as assess takes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from whqa.assessment import TrainedRun, load_run


@pytest.fixture(scope="module")
def run(judged: Path) -> TrainedRun:
    """The tiny study's run with fold 0."""
    (directory,) = (judged / "runs").glob("*/errormap")
    return load_run(directory.parent)
