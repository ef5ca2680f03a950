"""The pages that are made from the code when the site is built; nothing of them is committed."""

from __future__ import annotations

from collections.abc import Callable

from commands_page import commands_page
from contract_pages import CONTRACT_PAGES, contract_page
from notebook_page import first_look_page
from settings_page import settings_page

PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands_page,
    "reference/settings.md": settings_page,
    **{f"reference/{name}.md": (lambda name=name: contract_page(name)) for name in CONTRACT_PAGES},
    "notebooks/first_look.md": first_look_page,
}
"""Place below docs/ -> what makes its Markdown."""
