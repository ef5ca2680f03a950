"""Settings of another program's masks and their defaults, in a module that imports nothing but words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class ExternalSettings:
    """What a configuration states of one program under `masks.external`, see `whqa.masks.external.ExternalMethod`."""

    root: str
    pattern: str = "*.nii.gz"
    scheme: Any = None
    parts: dict[str, str] = field(default_factory=dict)
    unseen: bool = False
    partial: bool = False
    probabilities: str | None = None
