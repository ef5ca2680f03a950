"""What this installation can do, read from the registries that the code itself uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from whqa.config.instantiate import config_dir
from whqa.config.speed import Choice, choices
from whqa.judges.registry import BASELINES
from whqa.masks.plan import MASK_KINDS
from whqa.results.environment import environment
from whqa.structures import SCHEMES


def info() -> dict[str, Any]:
    """Versions, device, configuration groups, baselines and label schemes as plain JSON values."""
    groups = {d.name: _options(d) for d in sorted(config_dir().iterdir()) if d.is_dir() and d.name != "hydra"}
    return {
        "environment": environment(),
        "speed": {name: choice._asdict() for name, choice in choices().items()},
        "configuration": str(config_dir()),
        **groups,
        "baselines": sorted(BASELINES),
        "mask_kinds": list(MASK_KINDS),
        "label_schemes": {name: dict(scheme.values) for name, scheme in SCHEMES.items()},
    }


def info_text(found: dict[str, Any]) -> str:
    """The same for people, a line each."""
    lines = []
    for key, value in found.items():
        if isinstance(value, dict):
            lines += [f"{key}:", *(f"  {k}: {_short(v)}" for k, v in value.items())]
        else:
            lines.append(f"{key}: {_short(value)}")
    return "\n".join(lines)


def _options(group: Path) -> list[str]:
    return sorted(path.stem for path in group.glob("*.yaml"))


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(v) for v in value)
    if isinstance(value, dict):
        if value.keys() == set(Choice._fields):
            return "{value}: {why}; otherwise by {off}".format_map(value)
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return str(value)
