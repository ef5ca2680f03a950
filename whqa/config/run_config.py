"""config.yaml of the runs of an experiment: read back, and compared, so that runs of different settings never mix."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from whqa.config.instantiate import differences, of_run
from whqa.errors import InputError
from whqa.files import reading
from whqa.masks.run_state import has_begun, made_anew

CONFIG = "config.yaml"
_NAMED = 5
_OF_EVERY_RUN = ("stage", "fold", "data", "preprocess", "network")


def read_run_config(run_dir: Path) -> DictConfig:
    """The settings of a run.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = run_dir / CONFIG
    with reading(path, "the settings of a run", made_anew(run_dir)):
        config = OmegaConf.load(path)
        if not isinstance(config, DictConfig):
            raise ValueError("no mapping")
        lacking = [name for name in (*_OF_EVERY_RUN, str(config.get("stage"))) if config.get(name) is None]
        if lacking:
            raise ValueError(f"lacks {lacking[0]}")
        return config


def refuse_other_settings(cfg: DictConfig, run_dir: Path) -> None:
    """Compare the configuration with that of the run which the directory holds, if it holds one.

    Raises:
        InputError: they differ in what decides the result.
    """
    if has_begun(run_dir):
        changed = _differences(run_dir, read_run_config(run_dir), cfg)
        if changed:
            raise InputError(
                f"{run_dir}: holds a run with other settings ({', '.join(changed[:_NAMED])}); "
                "choose another name=..., or remove the directory"
            )


def refuse_sweep(experiment: Path) -> None:
    """Whether `runs/<experiment>` holds the points of a sweep, among which no experiment of its own may lie.

    Raises:
        InputError: it does.
    """
    if not (experiment / "folds.json").exists() and any(experiment.glob("*/folds.json")):
        raise InputError(f"{experiment}: holds a sweep, not an experiment; choose another name=...")


def refuse_mixed_settings(run_dirs: Sequence[Path]) -> None:
    """Whether runs of an experiment differ in nothing but stage and fold; those without config.yaml are passed over.

    Raises:
        InputError: they do; names the runs and the settings in which they differ from most others.
    """
    there = [path for path in run_dirs if (path / CONFIG).is_file()]
    if len(set(map(_settings_text, there))) == 1 and read_run_config(there[0]):
        # as nearly always, and reading each takes a tenth of a second
        return
    kept = {path: read_run_config(path) for path in there}
    standards = [path for path in kept if path.parent.name == "errormap"] or list(kept)
    found = [_unlike(kept, kept[path]) for path in standards]
    stale = min(found, key=len, default={})
    if stale:
        names = ", ".join(f"{path.parent.name}/{path.name}" for path in stale)
        keys = list(dict.fromkeys(key for changed in stale.values() for key in changed))
        raise InputError(
            f"{run_dirs[0].parents[1]}: {names} have other settings than the other runs ({', '.join(keys[:_NAMED])}); "
            f"train again: rm -r {' '.join(shlex.quote(str(path)) for path in stale)} and the same `whqa cv ...`"
        )


def _settings_text(run_dir: Path) -> str:
    """The file but for the stage and the fold that its place says; of a file that is no text, its own name."""
    try:
        text = (run_dir / CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return str(run_dir)
    for own in (f"stage: {run_dir.parent.name}", f"fold: {run_dir.name}", f"fold: '{run_dir.name}'"):
        text = text.replace(f"\n{own}\n", "\n", 1)
    return text


def _unlike(saved: Mapping[Path, DictConfig], standard: DictConfig) -> dict[Path, list[str]]:
    changed = {
        path: _differences(path, own, of_run(standard, path.parent.name, path.name)) for path, own in saved.items()
    }
    return {path: keys for path, keys in changed.items() if keys}


def _differences(run_dir: Path, saved: DictConfig, current: DictConfig) -> list[str]:
    with reading(run_dir / CONFIG, "the settings of a run", made_anew(run_dir)):
        return differences(saved, current)
