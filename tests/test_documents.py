"""What the documents for contributors say is true of the tree."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from functools import cache
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
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))),
)
METHOD = (ROOT / "docs" / "method.md").read_text("utf-8")
HOW_TO_ADD = tuple(name for name in DOCUMENTS if name.startswith("docs/howto/add_"))
READERS = [
    path.stem
    for path in sorted((ROOT / "whqa" / "data" / "sources").glob("*.py"))
    if f"def read_{path.stem}(" in path.read_text("utf-8")
]
NETWORK_FILES = sorted((ROOT / "conf" / "network").glob("*.yaml"))
METRICS = [p.stem for p in sorted((ROOT / "whqa" / "metrics").glob("*.py")) if p.stem != "__init__"]


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def texts_of(room: str) -> str:
    return "\n".join(path.read_text("utf-8") for path in (ROOT / "tests" / room).rglob("test_*.py"))


@pytest.mark.parametrize("name", [*DOCUMENTS, "CHANGELOG.md"])
def test_paths_that_a_document_names_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    paths = re.findall(r"(?<![\w/.])(?:whqa|conf|tests|docs|\.ci)/[\w./]*", text)
    assert [path for path in paths if not (ROOT / path.rstrip("./")).exists()] == []


@pytest.mark.parametrize("name", [*HOW_TO_ADD, "CONTRIBUTING.md", "docs/architecture.md", "docs/method.md"])
def test_names_that_a_document_gives_to_a_file_are_in_it(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    named = re.findall(r"`(\w+)`[^`.;]{0,60}?`((?:whqa|tests)/[\w/]+\.py)`", text)
    assert named or name == "CONTRIBUTING.md"
    missing = [(word, path) for word, path in named if not re.search(rf"\b{word}\b", (ROOT / path).read_text("utf-8"))]
    assert missing == []


def anchors(text: str) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def generated() -> dict[str, str]:
    """The pages that are made from the code when the site is built."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs" / "hooks"))
        from generated_pages import PAGES

        return {f"docs/{place}": make() for place, make in PAGES.items()}


def dead_links(name: str, text: str) -> list[str]:
    """Links of a document that lead nowhere; those to other sites are not followed."""
    pages, dead = generated(), []
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
        target = (ROOT / name).parent / path if path else ROOT / name
        place = target.resolve().relative_to(ROOT).as_posix()
        found = text if not path else pages.get(place)
        if found is None and target.exists():
            found = target.read_text("utf-8") if anchor else ""
        if found is None or (anchor and anchor not in anchors(found)):
            dead.append(f"{path}#{anchor or ''}")
    return dead


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_between_the_documents_lead_somewhere(name: str) -> None:
    assert dead_links(name, text_of(name)) == []


def test_links_of_the_pages_made_from_the_code_lead_somewhere() -> None:
    assert {name: dead for name, text in generated().items() if (dead := dead_links(name, text))} == {}


def test_a_dead_link_is_found() -> None:
    text = (
        "# A b\n[x](#a-b) [x](#c) [x](method.md#limits) [x](method.md#no) [x](none.md) [x](reference/settings.md#masks)"
    )
    assert dead_links("docs/index.md", text) == ["#c", "method.md#no", "none.md#"]


def broken_lines(text: str) -> list[str]:
    """Lines that Markdown shows otherwise than they are meant: rows without a table, <names> that become tags."""
    prose = re.sub(r"^```.*?^```|^ {4,}.*?$|<!--.*?-->", "", text, flags=re.MULTILINE | re.DOTALL)
    lines = prose.splitlines()
    rows = [
        line
        for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False)
        if line.startswith("|") and not before.startswith("|") and not after.startswith("|--")
    ]
    return rows + re.findall(r"<\w[\w ]*>", re.sub(r"`[^`]*`", "", prose))


@pytest.mark.parametrize("name", [*DOCUMENTS, "CHANGELOG.md"])
def test_markdown_shows_what_is_meant(name: str) -> None:
    assert broken_lines(text_of(name)) == []


def test_markdown_made_from_the_code_shows_what_is_meant() -> None:
    assert {name: found for name, text in generated().items() if (found := broken_lines(text))} == {}


def test_docstrings_of_public_names_show_what_is_meant() -> None:
    things = [getattr(whqa, name) for name in whqa.__all__ if name not in ("__version__", "metrics")]
    assert {thing: found for thing in things if (found := broken_lines(inspect.getdoc(thing) or ""))} == {}


def test_broken_markdown_is_found() -> None:
    table = "| a | b |\n|---|---|\n| 1 | `<x>` |\n"
    assert broken_lines(table) == []
    assert broken_lines(f"{table}\n| 2 | <run> |\n") == ["| 2 | <run> |", "<run>"]


def test_every_page_stands_once_in_the_navigation() -> None:
    listed = re.findall(r"[\w/]+\.md$", text_of("mkdocs.yml"), flags=re.MULTILINE)
    places = {name.removeprefix("docs/") for name in (*DOCUMENTS, *generated()) if name.startswith("docs/")}
    assert len(listed) == len(set(listed))
    beside = {"contributing.md", "changelog.md"}
    assert set(listed) - beside <= places
    # guides that are not listed are added when the site is built
    assert {place for place in places - set(listed) if not place.startswith("howto/")} == set()


def test_every_key_of_the_configuration_is_explained() -> None:
    generated()
    sections = list(sys.modules["settings_page"].sections())
    keys = {setting.key for _, _, settings in sections for setting in settings}
    assert {"folds", "preprocess.spacing", "errormap.head", "data.frames", "network.n_sides", "trainer.devices"} <= keys
    bare = [s.key for _, _, settings in sections for s in settings if len(s.says) < 5 and not s.says.endswith(".")]
    assert bare == []


def test_the_reference_of_commands_has_every_command_and_option() -> None:
    page = generated()["docs/reference/commands.md"]
    for name in ("whqa train", "whqa assess", "whqa data phantom"):
        assert f"## {name}\n" in page
    assert "`--confidence CONFIDENCE`" in page
    assert "{ct,mr}" in page


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    for module in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(module, reason="needs pip install '.[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    expected = {name.removeprefix("docs/").replace(".md", ".html") for name in (*DOCUMENTS[2:], *generated())}
    assert expected <= pages.keys()
    loaded = re.compile(r"<(?:script|img|link rel=.stylesheet.)[^>]*(?:src|href)=.https?:")
    assert [name for name, html in pages.items() if loaded.search(html)] == []
    assert "whqa.WholeHeartDataModule.of_cohort" in pages["reference/python.html"]


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
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE))
    for name in DOCUMENTS:
        assert set(re.findall(r"`make ([a-z-]+)", (ROOT / name).read_text("utf-8"))) <= targets, name


@pytest.mark.parametrize("source", READERS)
def test_a_source_has_its_configuration_its_row_and_a_test(source: str) -> None:
    settings = yaml.safe_load((ROOT / "conf" / "data" / f"{source}.yaml").read_text("utf-8"))
    assert settings["_target_"] == f"whqa.data.sources.{source}.read_{source}"
    assert {"root", "name", "without", "spacing_rule"} <= set(settings)
    assert f"| `{source}` |" in text_of("docs/howto/your_data.md")
    assert f"read_{source}" in texts_of("data/sources")


def test_every_configuration_of_data_has_a_reader() -> None:
    configured = {path.stem for path in (ROOT / "conf" / "data").glob("*.yaml")}
    assert configured == {*READERS, "phantom"}


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_stands_among_the_rivals(name: str) -> None:
    assert f"`{name}` (" in text_of("docs/explanation/overview.md")


def test_numbers_of_the_readme_are_those_of_the_evidence() -> None:
    shown = re.findall(r"\(`(\w+)`\) \| (\S+) \| ([^|]+) \| ([^|]+) \|", text_of("README.md"))
    assert shown
    evidence = text_of("docs/evidence.md")
    for masks, network, *leads in shown:
        assert f"| errormap | {masks} | {network} |" in evidence
        for rival, lead in zip(("opinion", "tta"), leads, strict=True):
            assert re.search(rf"^\| {rival} \| {masks} \| \S+ \| {re.escape(lead)} \|", evidence, re.MULTILINE)


def test_the_cohorts_of_the_readme_have_a_row_of_the_evidence() -> None:
    section = text_of("README.md").partition("| cohort, mean Dice")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()[2:]]
    assert len(rows) == 3
    evidence = text_of("docs/evidence.md").splitlines()
    for _, network, *leads, pcc, mae in rows:
        own = rf"\| errormap \| (final \| )?{network} .*\| {pcc} \| {mae} \|"
        assert any(re.match(own, line) for line in evidence), network
        for lead in filter(None, leads):
            assert any(f"| {lead} |" in line for line in evidence), lead


def test_the_ablations_of_the_readme_are_those_of_the_evidence() -> None:
    section = text_of("README.md").partition("| trained | final masks |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()[2:]]
    assert len(rows) == 6
    evidence = text_of("docs/evidence.md").splitlines()
    for _, final, novel in rows:
        assert any(f"| {final} |" in line and line.endswith(f"| {novel} |") for line in evidence), final


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
