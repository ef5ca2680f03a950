"""The one way from a template beside this file to a page: one environment, one style, one policy.

Everything that comes from files is escaped. The Content-Security-Policy of a page names no address, so that even where
a hostile file name got past the escaping, it could neither run nor load anything.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from whqa.report.numbers import show_share
from whqa.report.wording import confidence_words, percent, sentence


def render(template: str, *, looks: str = "", script: str = "", inline_styles: bool = False, **content: Any) -> str:
    """A page as HTML; all names are of files beside this one.

    Args:
        template: that extends page.html.j2.
        looks: CSS of this page alone.
        script: that runs in the page.
        inline_styles: whether the template sets sizes of single pictures.
        content: what the template shows.
    """
    style = _packaged("style.css") + (_packaged(looks) if looks else "")
    code = _packaged(script) if script else ""
    policy = _policy("'unsafe-inline'" if inline_styles else _hash(style), _hash(code) if script else "")
    # whqa's own text and the package's, never that of a scan
    return (
        _environment().get_template(template).render(policy=policy, style=Markup(style), script=Markup(code), **content)
    )


def data_uri(png: bytes) -> str:
    """A picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("whqa.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "confidence": confidence_words,
        "sentence": sentence,
        "share": show_share,
    }
    return environment


def _packaged(name: str) -> str:
    return files("whqa.report").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Only what stands in the page: its style, a script by its hash, pictures and the viewer from its own bytes."""
    rules = ["default-src 'none'", f"style-src {style}", "img-src data: blob:", "base-uri 'none'"]
    if script:
        rules.append(f"script-src {script} blob:")
    return "; ".join([*rules, "form-action 'none'"])


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
