"""The walls of the house, read from its source; `make docs` draws the diagram in docs/architecture.md again."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeVar

import pytest

ROOT = Path(__file__).parents[1]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- drawn from the imports by `make docs`: begin -->\n", "<!-- end -->\n"

# From the bottom to the top: a file imports from lower floors and its own room, never from a neighbour on its floor.
FLOORS = (
    "errors",
    "files structures process quality",
    "parallel networks contract",
    "data metrics",
    "masks",
    "judges",
    "loading modules",
    "results",
    "report",
    "config",
    "callbacks",
    "assessment",
    "study",
    "stages",
    "summarize compare",
    "train cv",
    "sweep",
    "cli",
    "__init__ __main__",  # the doors of the house: `whqa.assess` and `python -m whqa`
)
# The same within the largest room.
DATA_FLOORS = (
    "formats preprocess_settings resample points",
    "alignment case",
    "preprocess reading folds",
    "sources cache",
    "findings phantom prepare dicom",
    "__init__",
)
TOP_MODULES, FUNCTION_LINES, FILE_LINES = 13, 50, 400
DOORS = ("__init__", "__main__")
VERSION = ("whqa", "__version__")  # a constant that every room may take from the door
# What the rest of the house may know of the formats of volumes.
FORMATS = ("whqa.data.formats.volume_files", "whqa.data.formats.file_names")
# Public names that two files may define, and why.
TWICE = {
    "main": "every command has one",
    "EXPECTED": "what each reader of a layout expects, for its messages",
    "read_grid": "a format's own, behind the one that takes any",
    **dict.fromkeys(("Array", "Item", "Triple"), "short for a type within a file"),
}

Graph = Mapping[str, set[str]]
Key = TypeVar("Key")


def module_files(root: Path) -> dict[str, Path]:
    """Dotted names of the modules under root/whqa; a package has its own name, the outermost is `whqa.__init__`."""
    files = {}
    for path in sorted((root / "whqa").rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        files[name if name == "whqa.__init__" else name.removesuffix(".__init__")] = path
    return files


def import_graph(root: Path) -> dict[str, set[str]]:
    """Which modules each module names in an import, wherever it stands: in a function or for type checkers too."""
    files = module_files(root)
    return {name: set(imported(ast.parse(path.read_text("utf-8")), files)) - {name} for name, path in files.items()}


def imported(tree: ast.AST, files: Mapping[str, Path]) -> Iterator[str]:
    """The modules of the house that a source text names; a name taken from a package may be a module of it."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise AssertionError("relative imports are not read here: write whqa...")
            package = str(node.module)
            modules = (alias.name for alias in node.names if (package, alias.name) != VERSION)
            names = [full if (full := f"{package}.{name}") in files else package for name in modules]
        yield from (name for name in ("whqa.__init__" if name == "whqa" else name for name in names) if name in files)


def room(module: str, within: str = "whqa") -> str:
    """The part of a module's name below `within`; its own package is `__init__`."""
    return module.removeprefix(within).removeprefix(".").split(".")[0] or "__init__"


def arrows_up(graph: Graph, floors: tuple[str, ...], within: str = "whqa") -> list[str]:
    """Imports that do not lead to a lower floor or stay in their room, and rooms without a floor."""
    level = {name: number for number, names in enumerate(floors) for name in names.split()}
    inside = {m: {t for t in targets if belongs(t, within)} for m, targets in graph.items() if belongs(m, within)}
    unknown = sorted({room(m, within) for m in inside} - set(level))
    return [f"{within}.{name} stands on no floor" for name in unknown] or [
        f"{source} imports {target}"
        for source, targets in inside.items()
        for target in sorted(targets)
        if (a := room(source, within)) != (b := room(target, within)) and level[b] >= level[a]
    ]


def belongs(module: str, within: str) -> bool:
    return f"{module}.".startswith(f"{within}.")


def circle(graph: Mapping[Key, set[Key]]) -> list[Key]:
    """One circle of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[Key] = error.args[1]
        return found
    return []


def too_long(root: Path) -> list[str]:
    """Files and functions over the house's limits."""
    found = []
    for path in module_files(root).values():
        text = path.read_text("utf-8")
        found += [f"{path.name}: {n} lines"] if (n := len(text.splitlines())) > FILE_LINES else []
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                found += [f"{path.name}: {node.name} has {lines} lines"] if lines > FUNCTION_LINES else []
    return found


def same_file_names(root: Path) -> list[str]:
    names = Counter(path.name for path in module_files(root).values())
    return [name for name, count in names.items() if count > 1 and Path(name).stem not in DOORS]


def same_definitions(root: Path) -> dict[str, list[str]]:
    """Public names that several files define; the same alias of a type or a type variable is no second thing."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for module, path in module_files(root).items():
        for node in ast.parse(path.read_text("utf-8")).body:
            for name, meaning in defined(node):
                found[name].append((module, meaning or module))
    return {
        name: [module for module, _ in places]
        for name, places in found.items()
        if not name.startswith("_") and len({meaning for _, meaning in places}) > 1
    }


def defined(node: ast.stmt) -> Iterator[tuple[str, str]]:
    """Names that a statement at the top of a file defines, each with what it stands for where that can be compared."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield node.name, ""
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        is_alias = isinstance(node.value, ast.Subscript) or (
            isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "TypeVar"
        )
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Name) and node.value is not None:
                yield target.id, ast.unparse(node.value) if is_alias else ""


def diagram(graph: Graph) -> str:
    """Rooms by floors, an arrow to what each imports; arrows that follow from others are left out."""
    rooms: dict[str, set[str]] = {room(m): set() for m in graph if room(m) not in DOORS}
    for module, targets in graph.items():
        if (name := room(module)) in rooms:
            rooms[name] |= {room(target) for target in targets} - {name, *DOORS}
    lines = ["flowchart TD"]
    for name in sorted(rooms):
        for target in sorted(rooms[name]):
            if not any(target in reachable(rooms, other) for other in rooms[name] - {target}):
                lines.append(f"    {name} --> {target}")
    linked = {word for line in lines[1:] for word in line.split()}
    lines += [f"    {name}" for name in sorted(rooms) if name not in linked]
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def reachable(rooms: Graph, start: str) -> set[str]:
    found, open_rooms = set[str](), [start]
    while open_rooms:
        new = rooms[open_rooms.pop()] - found
        found |= new
        open_rooms += new
    return found


def drawn() -> tuple[str, str, str]:
    """docs/architecture.md before, in and after the diagram."""
    before, _, rest = ARCHITECTURE.read_text("utf-8").partition(BEGIN)
    block, _, after = rest.partition(END)
    return before, block, after


@pytest.fixture(scope="module")
def graph() -> Graph:
    return import_graph(ROOT)


def house(root: Path, files: Mapping[str, str]) -> Path:
    """A small house of these files (names below whqa/) to try the checks on."""
    for name, text in {"__init__.py": "", **files}.items():
        path = root / "whqa" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    return root


def test_no_arrow_runs_up(graph: Graph) -> None:
    assert arrows_up(graph, FLOORS) == []
    assert arrows_up(graph, DATA_FLOORS, "whqa.data") == []


@pytest.mark.parametrize(
    "line",
    [
        "import whqa.high",
        "from whqa import high",
        "from whqa.high import thing",
        "def f():\n    from whqa.high import thing",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import whqa.high",
        "import whqa.beside",
        "from whqa import assess",
    ],
)
def test_an_arrow_that_runs_up_or_to_a_neighbour_is_found(tmp_path: Path, line: str) -> None:
    graph = import_graph(house(tmp_path, {"low/a.py": line, "high.py": "import whqa.low.a", "beside.py": ""}))
    floors = ("low beside", "high", "__init__")
    (found,) = arrows_up(graph, floors)
    assert found.startswith("whqa.low.a imports whqa.")
    assert arrows_up(graph | {"whqa.low.a": set()}, floors) == []


def test_a_room_without_a_floor_is_found(tmp_path: Path) -> None:
    graph = import_graph(house(tmp_path, {"low.py": "", "new/a.py": ""}))
    assert arrows_up(graph, ("low", "__init__")) == ["whqa.new stands on no floor"]


def test_floors_within_a_room(tmp_path: Path) -> None:
    graph = import_graph(
        house(
            tmp_path,
            {"data/__init__.py": "", "data/formats/nifti.py": "from whqa.data.case import Case", "data/case.py": ""},
        )
    )
    floors = ("formats", "case", "__init__")
    assert arrows_up(graph, floors, "whqa.data") == ["whqa.data.formats.nifti imports whqa.data.case"]


def test_no_circle_of_files(graph: Graph) -> None:
    assert circle(graph) == []


def test_a_circle_is_found(tmp_path: Path) -> None:
    files = {"a.py": "import whqa.b", "b.py": "def f():\n    from whqa.c import x", "c.py": "from whqa import a"}
    assert set(circle(import_graph(house(tmp_path, files)))) == {"whqa.a", "whqa.b", "whqa.c"}


def test_few_modules_lie_at_the_top() -> None:
    assert len(list((ROOT / "whqa").glob("*.py"))) <= TOP_MODULES


def test_files_and_functions_are_short() -> None:
    assert too_long(ROOT) == []


def test_what_is_too_long_is_found(tmp_path: Path) -> None:
    long = "class A:\n    def f():\n" + "        pass\n" * FUNCTION_LINES
    files = {"a.py": long, "b.py": "\n" * (FILE_LINES + 1), "c.py": long.replace("        pass\n", "", 1)}
    assert too_long(house(tmp_path, files)) == ["a.py: f has 51 lines", "b.py: 401 lines"]


def test_no_two_files_have_one_name(tmp_path: Path) -> None:
    assert same_file_names(ROOT) == []
    assert same_file_names(house(tmp_path, {"a/__init__.py": "", "a/x.py": "", "b/x.py": ""})) == ["x.py"]


def test_no_two_public_things_have_one_name() -> None:
    found = same_definitions(ROOT)
    assert {name: places for name, places in found.items() if name not in TWICE} == {}
    assert set(TWICE) <= set(found), "an exception that nobody needs any more"


def test_a_name_of_two_things_is_found(tmp_path: Path) -> None:
    files = {
        "a.py": "class Rule: ...\nFloats = Array[float]\nWIDTH: int = 3\ndef _own(): ...",
        "b.py": "Rule = Literal['x']\nFloats = Array[float]\nWIDTH = 3\ndef _own(): ...",
        "c.py": "from whqa.a import Rule",
    }
    twice = ["whqa.a", "whqa.b"]
    assert same_definitions(house(tmp_path, files)) == {"Rule": twice, "WIDTH": twice}


def test_formats_are_read_through_two_files_only(graph: Graph) -> None:
    inner = [m for m in graph if belongs(m, "whqa.data.formats") and m not in FORMATS]
    users = {
        (m, t) for m, targets in graph.items() for t in targets & set(inner) if not belongs(m, "whqa.data.formats")
    }
    assert inner
    assert users == set()


def test_nothing_that_is_shipped_leans_on_a_folder_beside_the_project() -> None:
    texts = [p for folder in ("whqa", "conf") for p in (ROOT / folder).rglob("*") if p.suffix != ".pyc" and p.is_file()]
    assert [str(p) for p in texts if b"../" + b"shared" in p.read_bytes()] == []


def test_the_diagram_shows_the_imports(graph: Graph, tmp_path: Path) -> None:
    assert drawn()[1] == diagram(graph), "the imports have changed: `make docs` draws the diagram again"
    files = {"a.py": "", "b.py": "import whqa.a", "c.py": "import whqa.a, whqa.b", "d.py": ""}
    assert diagram(import_graph(house(tmp_path, files))).splitlines()[2:-1] == ["    b --> a", "    c --> b", "    d"]


if __name__ == "__main__":
    before, _, after = drawn()
    ARCHITECTURE.write_text(before + BEGIN + diagram(import_graph(ROOT)) + END + after, "utf-8")
