"""Settings of `logger.wandb`, checked with all other words: nothing starts with one that W&B does not take."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from whqa.errors import InputError

MODES = ("offline", "online", "shared", "disabled")
OF_LIGHTNING = ("log_model", "prefix", "checkpoint_name", "add_file_policy")
"""Arguments of Lightning's logger beside those of wandb.init."""
_SET_BY_WHQA = ("dir", "save_dir", "id", "version", "name", "group", "job_type", "resume", "config", "offline")


def wandb_defaults() -> dict[str, str]:
    """Project and mode where a configuration states none: of W&B's own environment variables, else whqa and offline."""
    return {
        "project": os.environ.get("WANDB_PROJECT") or "whqa",
        "mode": os.environ.get("WANDB_MODE") or "offline",
    }


def require_wandb() -> Any:
    """The module wandb.

    Raises:
        InputError: it is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise InputError(
            "wandb is not installed; pip install 'whqa[wandb]', or go without W&B: metrics.csv "
            "and cases.csv hold the same numbers"
        ) from None
    return wandb


def wandb_options(config: DictConfig) -> dict[str, Any]:
    """What a configuration says of W&B; empty without logger=wandb."""
    loggers: Any = OmegaConf.to_container(config.get("logger") or OmegaConf.create(), resolve=True)
    return {k: v for k, v in (loggers.get("wandb") or {}).items() if k != "_target_"}


def check_wandb(options: Mapping[str, Any]) -> None:
    """Refuse what neither wandb.init nor Lightning's logger takes.

    Args:
        options: see `wandb_options`.

    Raises:
        InputError: wandb is not installed, there is no such setting or mode, or whqa sets it itself.
    """
    known = options_of_init() + OF_LIGHTNING
    for key in options:
        if key in _SET_BY_WHQA:
            raise InputError(f"logger.wandb.{key}: whqa sets it itself, from the experiment, the stage and the fold")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            guess = f"; did you mean 'logger.wandb.{near[0]}'?" if near else "; wandb.init takes no such argument"
            raise InputError(f"no key 'logger.wandb.{key}' in the configuration{guess}")
    mode = options.get("mode", wandb_defaults()["mode"])
    if mode not in MODES:
        raise InputError(f"W&B has no mode {mode!r} (WANDB_MODE): must be one of {', '.join(MODES)}")


def options_of_init() -> tuple[str, ...]:
    """Names of the arguments of `wandb.init`."""
    return tuple(inspect.signature(require_wandb().init).parameters)
