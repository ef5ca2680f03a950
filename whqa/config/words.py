"""Words of the command line, checked before anything runs: a mistake gets one line with the nearest right word."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from whqa.config.instantiate import config_dir
from whqa.config.schema import Config, Stage
from whqa.errors import InputError
from whqa.masks.external_settings import ExternalSettings

_OPTIONS_WITH_VALUE = {
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name"),
    *("-cd", "--config-dir", "-e", "--experimental-rerun", "-i", "--info"),
}
# Of the seed and of the settings of both stages; what else is wrong, the objects made from it say themselves.
_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**32 - 1),
    **dict.fromkeys(("steps", "steps_per_epoch", "batch_size", "validate_every"), (1, math.inf)),
    **dict.fromkeys(("max_voxels", "baseline_masks"), (1, math.inf)),
    **dict.fromkeys(("learning_rate", "weight_decay", "num_workers", "overlays"), (0, math.inf)),
    **dict.fromkeys(("dice_weight", "positive_weight", "label_weight"), (0, math.inf)),
    **dict.fromkeys(("warmup", "early", "foreground"), (0, 1)),
}
# Types that may stand where the first of them is the default's, and what to call them.
_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool,), "true or false"),
    ((int,), "a whole number"),
    ((float, int), "a number"),
    ((list,), "a list"),
)
# Of Hydra's grammar, where it meets a character that it has another use for.
_NO_GRAMMAR = ("LexerNoViableAlt", "extraneous input", "mismatched input", "token recognition error")
_IN_QUOTES = r"""'patient="(\d+)"'"""
_NO_CHECK = {"-h", "--help", "--hydra-help", "--version", "-sc", "--shell-completion", "-cd", "--config-dir"}


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration that these overrides give, without running anything.

    Raises:
        InputError: an unknown key, group or option, or a value of the wrong type; names the nearest right one.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_dir()), version_base="1.3"):
            config = compose("config", overrides=list(overrides))
            _refuse_wrong_types(config, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(_explain(error)) from None
    except ValueError as error:  # Hydra's answer to a number where a group's option belongs
        raise InputError(f"{' '.join(overrides)}: {error}") from None
    unknown = next(_unknown_keys(config, Config), None)
    if unknown:
        raise InputError(f"no key {unknown!r} in the configuration{_nearest(unknown, _known_keys())}")
    _refuse_out_of_range(config)
    external_settings(config.masks)
    return config


def external_settings(masks: DictConfig) -> dict[str, ExternalSettings]:
    """The settings of `masks.external` with their type and defaults, by method.

    Raises:
        InputError: one is no mapping, lacks its folder, has an unknown key or a value of the wrong type.
    """
    typed = {}
    container: Any = OmegaConf.to_container(masks.external, resolve=True)
    for method, settings in container.items():
        place = f"masks.external.{method}"
        given = settings if isinstance(settings, dict) else {}
        unknown = next(_unknown_keys(given, ExternalSettings, f"{place}."), None)
        if unknown:
            known = [f"{place}.{f.name}" for f in dataclasses.fields(ExternalSettings)]
            raise InputError(f"no key {unknown!r} in the configuration{_nearest(unknown, known)}")
        if "root" not in given:
            raise InputError(f"{place}: state the folder of its masks, +{place}.root=FOLDER")
        merged = OmegaConf.structured(ExternalSettings)
        for key, value in given.items():
            try:
                merged = OmegaConf.merge(merged, {key: value})
            except OmegaConfBaseException as error:
                raise InputError(f"{place}.{key}={value}: {str(error).splitlines()[0]}") from None
        typed[str(method)] = ExternalSettings(**OmegaConf.to_container(merged))  # type: ignore[arg-type]
    return typed


def check_overrides(arguments: Sequence[str]) -> None:
    """Compose every choice of a command line once.

    Raises:
        InputError: see `compose_config`.
    """
    if _NO_CHECK & {a.split("=", 1)[0] for a in arguments}:
        return
    words = list(_overrides(arguments))
    try:
        parsed = OverridesParser.create().parse_overrides(words)
    except HydraException as error:
        raise InputError(_explain(error)) from None
    choices = [_choices(o) for o in parsed]
    first = [c[0] for c in choices]
    compose_config(first)
    for i, others in enumerate(choices):
        for other in others[1:]:
            compose_config([*first[:i], other, *first[i + 1 :]])


def _refuse_wrong_types(config: DictConfig, overrides: Sequence[str]) -> None:
    """The schema leaves `data` and `network` to their targets: there a value must be of the kind of its default."""
    changed = [o.split("=", 1)[0] for o in overrides if o.startswith(("data.", "network."))]
    if not changed:
        return
    default = compose("config", overrides=[o for o in overrides if not o.startswith(("data.", "network."))])
    for key in changed:
        before, now = (_raw(c, key) for c in (default, config))
        if now is None or str(now).startswith("${"):
            continue
        for types, kind in _KINDS:
            if type(before) is types[0] and type(now) not in types:
                raise InputError(f"{key}={now}: must be {kind}, as {before} is")


def _raw(config: DictConfig, key: str) -> Any:
    value: Any = OmegaConf.to_container(config)
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _refuse_out_of_range(config: DictConfig) -> None:
    for key, (low, high) in _RANGES.items():
        for path in [key] if key == "seed" else [f"{stage}.{key}" for stage in Stage]:
            value = OmegaConf.select(config, path)
            if value is not None and not low <= value <= high:
                limits = f"between {low:g} and {high:g}" if high < math.inf else f"at least {low:g}"
                raise InputError(f"{path}={value}: must be {limits}")


def _overrides(arguments: Iterable[str]) -> Iterator[str]:
    skip = False
    for argument in arguments:
        if not skip and not argument.startswith("-"):
            yield argument
        skip = argument in _OPTIONS_WITH_VALUE


def _choices(override: Override) -> list[str]:
    text = override.input_line or ""
    if not override.is_sweep_override():
        return [text]
    key = text.split("=", 1)[0]
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _explain(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, MissingConfigException):
        found = re.search(r"Could not find '([\w-]+)/([^']*)'", text)
        options = [line.strip() for line in re.findall(r"^\t+([\w-]+)$", text, flags=re.MULTILINE)]
        if found:
            group, name = found.groups()
            return f"no {group} {name!r}{_nearest(name, options)} There are: {', '.join(options)}"
    missing = re.search(r"Could not override '([^']+)'", text)
    if missing:
        key = missing.group(1)
        if re.match(r"masks\.external(\.|$)", key):
            return f"{key}: not in the configuration yet; a plus sign adds it: +{key}=..."
        return f"no key {key!r} in the configuration{_nearest(key, _known_keys())}"
    cause = error.__cause__
    reason = str(cause).splitlines()[0] if cause and str(cause) else ""
    first = text.splitlines()[0] if text else type(error).__name__
    details = text.splitlines()[1] if "parsing" in first and len(text.splitlines()) > 1 else reason
    if any(words in text for words in _NO_GRAMMAR):
        found = re.match(r"LexerNoViableAltException: (.*)|Error parsing override '(.*)'$", first)
        setting = found[found.lastindex or 0] if found else first
        return f"{setting}: has special characters; put the value in quotes inside the quotes: {_IN_QUOTES}"
    return f"{first}: {details}" if details else first


def _nearest(word: str, words: Iterable[str]) -> str:
    known = list(words)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    leaf = difflib.get_close_matches(word.split(".")[-1], [k.split(".")[-1] for k in known], n=1, cutoff=0.75)
    if not near and leaf:
        near = [next(k for k in known if k.split(".")[-1] == leaf[0])]
    return f"; did you mean {near[0]!r}?" if near else "."


def _known_keys() -> list[str]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("config")
    groups = [p.name for p in config_dir().iterdir() if p.is_dir()]
    return sorted({*groups, *_flatten(OmegaConf.to_container(config))})


def _flatten(value: Any, prefix: str = "") -> Iterator[str]:
    for key, child in value.items():
        yield f"{prefix}{key}"
        if isinstance(child, dict):
            yield from _flatten(child, f"{prefix}{key}.")


def _unknown_keys(config: Any, schema: type, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(schema)
    for key in map(str, config):
        if key not in hints:
            yield f"{prefix}{key}"
        elif dataclasses.is_dataclass(hints[key]):
            yield from _unknown_keys(config[key], hints[key], f"{prefix}{key}.")
