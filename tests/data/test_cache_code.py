"""An entry of the cache is named by the source of every module that decides what its arrays are."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import whqa.data.cache as cache_module


def imported(module: str) -> set[str]:
    """Modules of whqa that a module imports, at its top or in its functions."""
    tree = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8"))
    names = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("whqa.")}
    packages = {"whqa", "whqa.data", "whqa.data.formats"}
    whole = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module in packages]
    return {str(n) for n in names} - packages | {f"{n.module}.{a.name}" for n in whole for a in n.names}


def test_the_code_of_all_modules_that_make_the_arrays_decides_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    makers, waiting = set[str](), ["whqa.data.reading", "whqa.data.preprocess", "whqa.data.points"]
    while waiting:
        name = waiting.pop()
        makers.add(name)
        waiting += sorted(imported(name) - makers - set(waiting))
    # these hold records, messages and writing, nothing that an array follows from
    makers -= {f"whqa.{name}" for name in ("errors", "files", "process", "data.case")}
    formats = ("advice", "class_maps", "foreign", "label_names", "layers", "stacks")
    makers -= {f"whqa.data.formats.{name}" for name in formats}
    read: list[Path] = []
    cache_module._code_version.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: (read.append(path), b"")[1])
        assert cache_module._code_version()
    cache_module._code_version.cache_clear()
    assert {p.stem for p in read} == {name.rpartition(".")[2] for name in makers}
