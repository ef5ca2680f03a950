"""What jobs ask Slurm for: Hydra's submitit settings, `conf/hydra/launcher/slurm.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import OmegaConf

from whqa.config.mistakes import explain, leaves
from whqa.config.words import hydra_here
from whqa.errors import InputError

PREFIX = "hydra.launcher."
_CHOICE = "hydra/launcher="


def without_launcher(words: Sequence[str]) -> list[str]:
    """The words of an experiment alone: how it is launched is no part of it."""
    return [word for word in words if not _is_of_launcher(word)]


def slurm_settings(words: Sequence[str]) -> dict[str, Any]:
    """Keys of submitit's executor with their values, as `hydra.launcher.KEY=VALUE` among the words states them.

    Raises:
        InputError: submitit is not installed, or there is no such key or value.
    """
    if find_spec("hydra_plugins") is None or find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        raise InputError("--launcher slurm: needs submitit; pip install 'whqa[slurm]'")
    place = [word for word in words if word.startswith("hydra.searchpath=")]
    chosen = [word for word in words if word.startswith(_CHOICE)][-1:] or [f"{_CHOICE}slurm"]
    stated = [word for word in words if _is_of_launcher(word) and not word.startswith(_CHOICE)]
    with hydra_here():
        try:
            config = compose("config", [*place, *chosen, *stated], return_hydra_config=True).hydra.launcher
        except HydraException as error:
            known = compose("config", [f"{_CHOICE}slurm"], return_hydra_config=True).hydra.launcher
            keys = [PREFIX + key for key, _ in leaves(OmegaConf.to_container(known))]
            raise InputError(explain(error, lambda: keys)) from None
    # submitit's own places and names, which whqa gives to its jobs itself
    kept = OmegaConf.masked_copy(config, [key for key in config if key not in ("_target_", "submitit_folder", "name")])
    settings: Any = OmegaConf.to_container(kept, resolve=True)
    return {str(key): value for key, value in settings.items()}


def _is_of_launcher(word: str) -> bool:
    return word.lstrip("+~").startswith((PREFIX, _CHOICE))
