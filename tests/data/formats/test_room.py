"""The room of file formats has two doors: the names of files, and reading and writing volumes."""

from __future__ import annotations

import ast
from pathlib import Path

import whqa

_DOORS = {"whqa.data.formats.file_names", "whqa.data.formats.volume_files"}


def test_no_other_room_imports_anything_but_the_two_doors():
    package = Path(whqa.__file__).parent
    inside = package / "data" / "formats"
    modules = {f"whqa.data.formats.{path.stem}" for path in inside.glob("*.py")}
    found: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        if path.parent != inside:
            for name in _imported(path):
                module = next((one for one in (name, name.rpartition(".")[0]) if one in modules), None)
                if module or name.startswith("whqa.data.formats"):
                    found.setdefault(module or name, set()).add(str(path.relative_to(package)))
    assert found.keys() == _DOORS, found


def _imported(path: Path) -> set[str]:
    """Full names of the modules, and of what is taken from them."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names
