"""A notebook as a page: its text, and its code with what it prints not; the notebook itself shows that."""

from __future__ import annotations

import json
from pathlib import Path

_NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "first_look.ipynb"


def first_look_page() -> str:
    """docs/notebooks/first_look.ipynb in Markdown."""
    cells = json.loads(_NOTEBOOK.read_text("utf-8"))["cells"]
    blocks = [
        "".join(cell["source"]) if cell["cell_type"] == "markdown" else f"```python\n{''.join(cell['source'])}\n```"
        for cell in cells
    ]
    note = f"*[{_NOTEBOOK.name}]({_NOTEBOOK.name}) is the notebook itself, to be run.*"
    return "\n\n".join([blocks[0], note, *blocks[1:]]) + "\n"
