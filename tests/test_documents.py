"""What the documents for contributors say is true of the tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

import whqa
from whqa.assessment.model import NETWORKS
from whqa.config.words import compose_config
from whqa.judges.registry import BASELINES
from whqa.masks.faults.fault_kinds import FAULTS
from whqa.masks.plan import MASK_KINDS
from whqa.results.strata import STRATA

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in sorted((ROOT / "docs").glob("*.md"))))
METHOD = (ROOT / "docs" / "method.md").read_text("utf-8")
READERS = [
    path.stem
    for path in sorted((ROOT / "whqa" / "data" / "sources").glob("*.py"))
    if f"def read_{path.stem}(" in path.read_text("utf-8")
]
NETWORK_FILES = sorted((ROOT / "conf" / "network").glob("*.yaml"))
METRICS = [p.stem for p in sorted((ROOT / "whqa" / "metrics").glob("*.py")) if p.stem != "__init__"]


def texts_of(room: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in (ROOT / "tests" / room).rglob("test_*.py"))


@pytest.mark.parametrize("name", [*DOCUMENTS, "CHANGELOG.md"])
def test_paths_that_a_document_names_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    paths = re.findall(r"(?<![\w/.])(?:whqa|conf|tests|docs|\.ci)/[\w./]*", text)
    assert [path for path in paths if not (ROOT / path.rstrip("./")).exists()] == []


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md", "docs/method.md"])
def test_names_that_a_document_gives_to_a_file_are_in_it(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    named = re.findall(r"`(\w+)`[^`.;]{0,60}?`((?:whqa|tests)/[\w/]+\.py)`", text)
    assert named
    missing = [(word, path) for word, path in named if not re.search(rf"\b{word}\b", (ROOT / path).read_text("utf-8"))]
    assert missing == []


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_the_documents_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", (ROOT / name).read_text("utf-8"))
    for path, anchor in links:
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), path
        assert not anchor or anchor in anchors(target.read_text("utf-8")), f"{path}#{anchor}"


def test_settings_that_the_method_names_exist() -> None:
    config = compose_config([])
    named = re.findall(r"`(errormap|segmenter|masks|preprocess)\.(\w+)", METHOD)
    assert named
    assert [(group, key) for group, key in named if key not in config[group]] == []


def test_defaults_that_the_method_states_are_those_of_the_configuration() -> None:
    config = compose_config([])
    stated = re.findall(r"\| `(errormap|segmenter|masks)\.(\w+)` \| `([^`]+)`(?= \|)", METHOD)
    assert len(stated) > 10
    assert [(group, key, text) for group, key, text in stated if yaml.safe_load(text) != config[group][key]] == []


def test_the_method_explains_every_rival_stratum_and_kind_of_mask_and_fault() -> None:
    kinds = [kind for kind in MASK_KINDS if kind.rstrip("0123456789") == kind or kind.endswith("1")]
    missing = [name for name in (*BASELINES, *STRATA, *kinds, *FAULTS) if not re.search(rf"[`*]{name}[`*]", METHOD)]
    assert missing == []


def test_targets_that_the_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    for name in DOCUMENTS:
        assert set(re.findall(r"`make ([a-z]+)", (ROOT / name).read_text("utf-8"))) <= targets, name


@pytest.mark.parametrize("source", READERS)
def test_a_source_has_its_configuration_its_row_and_a_test(source: str) -> None:
    settings = yaml.safe_load((ROOT / "conf" / "data" / f"{source}.yaml").read_text("utf-8"))
    assert settings["_target_"] == f"whqa.data.sources.{source}.read_{source}"
    assert {"root", "name", "without", "spacing_rule"} <= set(settings)
    assert f"| `{source}` |" in README
    assert f"read_{source}" in texts_of("data/sources")


def test_every_configuration_of_data_has_a_reader() -> None:
    configured = {path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")}
    assert configured == {*READERS, "phantom"}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_stands_in_the_readme(name: str) -> None:
    assert f"`{name}` (" in README


def test_a_network_can_be_configured_and_assessed() -> None:
    targets = [yaml.safe_load(path.read_text("utf-8"))["_target_"] for path in NETWORK_FILES]
    assert sorted(targets) == sorted(NETWORKS)
    files = {target.rpartition(".")[0].rpartition(".")[2] for target in targets}
    assert [name for name in files if not (ROOT / "tests" / "networks" / f"test_{name}.py").exists()] == []


@pytest.mark.parametrize("name", METRICS)
def test_a_file_of_metrics_has_a_test(name: str) -> None:
    assert f"whqa.metrics.{name} import" in texts_of("metrics")


def test_the_citation_is_complete_and_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited), "required by the format, version 1.2.0"
    assert (cited["cff-version"], cited["version"]) == ("1.2.0", whqa.__version__)
    assert all({"type", "title", "authors"} <= set(reference) for reference in cited["references"])
    released = dict(re.findall(r"^## \[(\d\S*)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE))
    assert released.get(whqa.__version__) == cited.get("date-released"), "a version has a date once it is released"


def test_the_hooks_call_the_tools_of_the_project() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert local["repo"] == "local", "a hook with a version of its own would differ from `make lint`"
    entries = {hook["id"]: hook["entry"] for hook in local["hooks"]}
    assert entries["ruff-check"].startswith(".venv/bin/ruff check")
    assert entries["ruff-format"].startswith(".venv/bin/ruff format")
    assert entries["mypy"] == ".venv/bin/mypy"
    assert all(hook["language"] == "system" for hook in local["hooks"])


def test_every_room_has_its_paragraph() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    tops = [p for p in sorted((ROOT / "whqa").iterdir()) if p.suffix == ".py" or (p / "__init__.py").exists()]
    names = [f"whqa/{p.name}{'/' if p.is_dir() else ''}" for p in tops if not p.name.startswith("__")]
    assert names
    assert [name for name in names if f"`{name}`" not in text] == []


def test_a_docstring_opens_every_file() -> None:
    files = [p for folder in ("whqa",) for p in sorted((ROOT / folder).rglob("*.py"))]
    assert [str(p) for p in files if not ast.get_docstring(ast.parse(p.read_text("utf-8")))] == []
