"""From a configuration to objects, and what two configurations of one run may differ in."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from whqa.config.run_name import EXTERNAL_ROOT
from whqa.config.schema import Config, Stage
from whqa.errors import InputError

# How and where a run is run. Of Lightning's settings clipping decides what a training becomes, and callbacks may.
_HOW = re.compile(r"^(data\.root|.*\.num_workers|trainer\.(?!gradient_clip_).*|callbacks\.(checkpoint|learning_rate))$")


NO_MEMORY = "memory: you tried to allocate"
"""What torch says of a processor's memory; of a GPU's it has an exception."""


def config_dir() -> Path:
    """The configuration groups: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def of_run(config: DictConfig, stage: str, fold: str) -> DictConfig:
    """The configuration that another run of the same experiment has."""
    changed = OmegaConf.merge(config, {"stage": stage, "fold": fold})
    assert isinstance(changed, DictConfig)
    return changed


def differences(saved: DictConfig, current: DictConfig) -> list[str]:
    """Keys whose values differ between two configurations of one run, without those that only say how or where to run.

    A segmenter does not depend on the settings of the error-map stage, and no run on a setting that came after it.
    """
    ignored = _ignored(current)
    flat_saved, flat_current = (_as_before(dict(_leaves(plain(c), ignored))) for c in (saved, current))
    known = dict(_leaves(_all_settings(), ignored))
    later = known.keys() - (flat_saved.keys() & flat_current.keys())
    keys = (flat_saved.keys() | flat_current.keys()) - later
    return sorted(k for k in keys if flat_saved.get(k) != flat_current.get(k))


def _as_before(flat: dict[str, Any]) -> dict[str, Any]:
    """With the values that runs had before there were settings for them, where these decide."""
    if flat.get("masks.plan") == "nested":
        flat.setdefault("errormap.opinion_ensemble", False)
    return flat


def deciding(config: DictConfig) -> dict[str, Any]:
    """What decides the result of a run, by dotted key: where it is the same, one run serves for the other."""
    return dict(_leaves(plain(config), _ignored(config)))


def _ignored(config: DictConfig) -> set[str]:
    ignored = {"name", "fit", "runs_dir", "cache_dir", "data_dir", "logger"}
    return ignored | {"errormap", "masks"} if config.stage == Stage.segmenter else ignored


@cache
def _all_settings() -> dict[str, Any]:
    return plain(OmegaConf.structured(Config))


def _leaves(config: Mapping[str, Any], ignored: set[str], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        path = prefix + str(key)
        if path in ignored or _HOW.match(path):
            continue
        if isinstance(value, dict):
            yield from _leaves(value, ignored, f"{path}.")
        elif EXTERNAL_ROOT.match(path):
            yield path, "anywhere"  # the masks themselves are compared, see whqa.masks.external
        else:
            yield path, value


def make(config: DictConfig, **arguments: Any) -> Any:
    """`hydra.utils.instantiate` with plain containers; what the user can put right comes out as InputError.

    Raises:
        InputError: the target's own, a missing value, or an argument that the target refuses; names the group.
    """
    try:
        return instantiate(config, _convert_="all", **arguments)
    except (InstantiationException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        if isinstance(cause, InputError | OSError):
            raise cause from None
        # by name: importing Lightning takes seconds, which a command that only reads files should not cost
        of_trainer = type(cause).__name__ == "MisconfigurationException"
        if of_trainer or isinstance(cause, TypeError | ValueError | OmegaConfBaseException):
            raise InputError(_of_setting(config, str(cause).splitlines()[0])) from error
        if error.__cause__ is None or isinstance(cause, ImportError | AttributeError):
            # there is no such target
            said = str(cause).partition("\nfull_key")[0].partition(", set env var")[0]
            raise InputError(f"{config._get_full_key(None)}: {said}") from error
        if isinstance(cause, MemoryError) or NO_MEMORY in str(cause):
            key = config._get_full_key(None)
            raise InputError(f"{key}: needs more memory than this machine has; choose a smaller one") from error
        raise


def _of_setting(config: DictConfig, said: str) -> str:
    """A target that names its argument names a setting."""
    if "No supported gpu backend" in said:
        said = "PyTorch finds no GPU on this machine; leave the choice of a trainer out to train on the CPU"
    if "unexpected keyword argument" in said:
        key, known = config._get_full_key(None), signature(get_object(config._target_)).parameters
        others = [f"{key}.{name!s}" for name in config if not str(name).startswith("_") and name not in known]
        return (
            f"{', '.join(others)}: not of {config._target_.rpartition('.')[2]}, an experiment or you set it; choose an "
            f"experiment that is made for this, or take it out: {' '.join(f'~{name}' for name in others)}"
        )
    named = re.match(r"(\w+)=", said)
    return f"{config._get_full_key(None)}{'.' if named and named[1] in config else ': '}{said}"


def plain(config: DictConfig) -> dict[str, Any]:
    """A configuration's mapping as plain containers, interpolations resolved."""
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}
