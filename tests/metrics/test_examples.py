"""The examples in the docstrings are true, and no public function of the functional cores lacks one."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

CORES = ("correlation", "error_detection", "failure", "segmentation", "surface")
# their values are large or only counts: the functions above them have the example
WITHOUT = {"finite_pairs", "error_counts", "confusion", "volume_diagonal_mm", "mean_by_structure"}


@pytest.mark.parametrize("core", CORES)
def test_examples_hold(core: str) -> None:
    module = importlib.import_module(f"whqa.metrics.{core}")
    found = doctest.testmod(module, raise_on_error=False)
    assert found.failed == 0
    public = {
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    }
    silent = {name for name in public if ">>>" not in (inspect.getdoc(getattr(module, name)) or "")}
    assert silent <= WITHOUT
