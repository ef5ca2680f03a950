"""MkDocs' hooks: pages made from the code, pages that lie beside docs/, and guides that nobody has listed yet."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from generated_pages import PAGES
from mkdocs.structure.files import File, Files
from page_table import table

ROOT = Path(__file__).parents[2]
BESIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files at the top of the repository -> their place in the site."""


def on_config(config: Any) -> Any:
    """Guides that the navigation lacks stand at the end of theirs, so that a new one is never lost."""
    for section in config.nav:
        if "How-to" in section:
            listed = re.findall(r"howto/\w+\.md", str(section))
            found = sorted(path.name for path in (ROOT / "docs" / "howto").glob("*.md"))
            section["How-to"] += [f"howto/{name}" for name in found if f"howto/{name}" not in listed]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what is not below docs/."""
    for place, make in PAGES.items():
        files.append(File.generated(config, place, content=make()))
    for name, place in BESIDE.items():
        text = (ROOT / name).read_text("utf-8").replace("](docs/", "](")
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to files beside docs/ lead to their pages; a diagram, whose script lies elsewhere, is told as a table."""
    markdown = re.sub(r"^```mermaid\n(.*?)^```\n", _as_table, markdown, flags=re.MULTILINE | re.DOTALL)
    here = posixpath.dirname(page.file.src_uri) or "."
    for name, place in BESIDE.items():
        markdown = re.sub(rf"\]\((?:\.\./)*{name}", f"]({posixpath.relpath(place, here)}", markdown)
    return markdown


def _as_table(diagram: re.Match[str]) -> str:
    arrows: dict[str, list[str]] = {}
    for line in diagram[1].splitlines()[1:]:
        source, _, target = line.strip().partition(" --> ")
        arrows.setdefault(source, []).append(target)
    return (
        "\n".join(table(("room", "imports"), [(name, ", ".join(filter(None, to))) for name, to in arrows.items()]))
        + "\n"
    )
