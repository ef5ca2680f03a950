"""What runs must agree in, however they came about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def table_of() -> Callable[[Path], dict[str, Any]]:
    """runs/<experiment> -> all of its summary.json, but for where and how fast it was made."""

    def read(experiment: Path) -> dict[str, Any]:
        summary = json.loads((experiment / "summary.json").read_text())
        del summary["environment"]
        for parts in (part for method in summary["methods"].values() for part in method.values()):
            del parts["seconds_per_case"]
        return summary

    return read
