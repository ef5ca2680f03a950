"""W&B is a mirror and never costs a training: whatever fails there costs one line, and the run goes on without."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import DummyLogger, rank_zero_experiment

from whqa.process import is_first_rank

REACH_S = 5.0
# How long W&B may hold up a run: its beginning, and at the end the upload; `wandb sync` uploads what is left.
_PATIENCE_S = {"init_timeout": 20.0, "finish_timeout": 120.0}
# What wandb would write elsewhere; where its settings lie (WANDB_CONFIG_DIR) is left alone: they name the server.
_PLACES = {"WANDB_CACHE_DIR": "cache", "WANDB_DATA_DIR": "data", "WANDB_ARTIFACT_DIR": "artifacts"}

# Kinds of warnings that the run in progress has given.
_told: set[str] = set()


class Mirror(WandbLogger):
    """Lightning's W&B logger; a run that cannot begin online begins offline, and one that cannot begin is none."""

    _nothing: Any = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, begun on first use; something that takes everything and does nothing where it cannot begin."""
        if self._nothing is None:

            def start(mode: str) -> Any:
                # Lightning keeps the arguments of wandb.init there; tests/callbacks/test_mirror.py sees that it does
                self._wandb_init["mode"] = mode
                return super(Mirror, self).experiment

            begun = begin(start, self._wandb_init["mode"])
            if self._experiment is None:
                self._nothing = begun
            return begun
        return self._nothing

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Numbers and pictures of a step."""
        with spared():
            super().log_metrics(metrics, step)

    def log_hyperparams(self, params: Any) -> None:
        """What the module says of itself; the run's configuration is there already."""
        with spared():
            super().log_hyperparams(params)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Upload checkpoints, where `log_model` asks for it."""
        with spared():
            super().after_save_checkpoint(checkpoint_callback)

    def finalize(self, status: str) -> None:
        """Upload checkpoints, where `log_model` asks for it."""
        with spared():
            super().finalize(status)


def begin(start: Callable[[str], Any], mode: str) -> Any:
    """What `start(mode)` begins; offline where it cannot begin so; what takes all and does nothing where not at all."""
    for tried in dict.fromkeys((mode, "offline")):
        with spared():
            return start(tried)
    return DummyLogger().experiment


@contextmanager
def spared() -> Iterator[None]:
    """What fails in the block is of the mirror alone: a warning the first time in a run, and no error."""
    try:
        yield
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        _tell("failed", f"{reason}; the run goes on, metrics.csv and cases.csv hold all numbers")


def _tell(kind: str, text: str) -> None:
    if is_first_rank() and kind not in _told:
        _told.add(kind)
        warnings.warn(f"W&B: {text}", stacklevel=2)


@contextmanager
def within_run() -> Iterator[None]:
    """A run of its own: what it is told is told anew, and what it sets in the environment ends with it."""
    before = {name: os.environ.get(name) for name in _PLACES}
    _told.clear()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def stay_below(place: Path) -> None:
    """What wandb would write to the home directory lies below `place`, unless the environment says otherwise."""
    for name, folder in _PLACES.items():
        os.environ.setdefault(name, str((place / "wandb" / folder).absolute()))


def patience() -> dict[str, float]:
    """Settings of wandb that keep a run from waiting; those that the installed version has."""
    import wandb

    return {name: value for name, value in _PATIENCE_S.items() if name in wandb.Settings.model_fields}


def usable_mode(mode: str) -> str:
    """`mode`, or "offline" with a warning where it needs a server that cannot be used now: no key, or no network."""
    if mode not in ("online", "shared") or not is_first_rank():
        return mode
    trouble: str | None = "it cannot be asked"
    with spared():
        trouble = trouble_online()
    if trouble:
        _tell("offline", f"{trouble}; going on offline, `wandb sync` uploads it later")
    return "offline" if trouble else mode


def trouble_online() -> str | None:
    """Why W&B's server cannot be used from here: no key, or no answer within `REACH_S` seconds; None where it can."""
    import requests
    import wandb

    settings = wandb.setup().settings
    server = settings.base_url
    if not (settings.api_key or settings.identity_token_file or requests.utils.get_netrc_auth(server)):
        return f"no key for {server}, see `wandb login`"
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(requests.head(server, timeout=REACH_S))
        except requests.RequestException:
            return

    # in a thread, as looking up a name may take longer than any time that a request is given
    asking = threading.Thread(target=ask, daemon=True, name="ask-wandb")
    asking.start()
    asking.join(REACH_S)
    return None if answers else f"{server} does not answer"
