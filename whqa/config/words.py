"""Words of the command line, checked before anything runs: a mistake gets one line with the nearest right word."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, OverrideType, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from whqa.config.instantiate import config_dir
from whqa.config.limits import plain_value, refuse_out_of_range
from whqa.config.mistakes import SET_BY_WHQA, explain, leaves, nearest, trainer_parameters
from whqa.config.schema import CPU_PRECISION, Config
from whqa.config.wandb_settings import check_wandb, wandb_options
from whqa.errors import InputError
from whqa.masks.external_settings import ExternalSettings
from whqa.process import is_first_rank

_OPTIONS_WITH_VALUE = {
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name"),
    *("-cd", "--config-dir", "-e", "--experimental-rerun", "-i", "--info"),
}
# Types that may stand where the first of them is the default's, and what to call them.
_KINDS: tuple[tuple[tuple[type, ...], str], ...] = (
    ((bool,), "true or false"),
    ((int,), "a whole number"),
    ((float, int), "a number"),
    ((list,), "a list"),
)
_UNTYPED = ("data.", "network.", "trainer.")
# Lightning takes numbers, words and lists of them.
_ANY_KIND = {"trainer.devices", "trainer.deterministic"}
_IMPORTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
_NO_CHECK = {"-h", "--help", "--hydra-help", "--version", "-sc", "--shell-completion"}
_SWEEPS = {"-m", "--multirun", "--experimental-rerun"}
# Hydra's own places: files of other runs are found by names that these would change.
_PLACES = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.job.chdir", "hydra.output_subdir")


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration that these overrides give, without running anything.

    Raises:
        InputError: an unknown key, group or option, a value of the wrong type or one that cannot be looked up; names
            the nearest right one.
    """
    with hydra_here():
        swept = next((o for o in _parsed(overrides) if o.is_sweep_override()), None)
        if swept is not None:
            raise InputError(f"{swept.input_line}: takes one value; `whqa sweep` cross-validates with each of several")
        return _compose(overrides)


def check_overrides(arguments: Sequence[str]) -> None:
    """Compose every choice of a command line once.

    Raises:
        InputError: see `compose_config`; or several values without `-m`.
    """
    if _NO_CHECK & {a.split("=", 1)[0] for a in arguments}:
        return
    with hydra_here():
        parsed = _parsed([*_search_path(arguments), *_overrides(arguments)])
        _refuse_sweep(parsed, arguments)
        choices = [_choices(o) for o in parsed]
        first = [c[0] for c in choices]
        _compose(first)
        for i, others in enumerate(choices):
            for other in others[1:]:
                _compose([*first[:i], other, *first[i + 1 :]])


def sweep_choices(overrides: Sequence[str]) -> list[list[str]]:
    """The values of every word of a sweep, each as a word of its own, those of a sweep file (`sweep=...`) at its place.

    A key that the command line states is not taken from the file.

    Raises:
        InputError: a word cannot be parsed, there is no such file, or only a sweeper that searches could draw a value.
    """
    with hydra_here():
        given, words = _parsed(overrides), list[str]()
        stated = {o.key_or_group: str(o.input_line) for o in given}
        place = [line for key, line in stated.items() if key == "hydra.searchpath"]
        for override in given:
            line = str(override.input_line)
            found = _of_file([*place, line]) if override.key_or_group == "sweep" else None
            words += [line] if found is None else [f"{k}={v}" for k, v in found.items() if k not in stated]
        parsed = _parsed(words)
        _refuse_search(parsed)
        return [_choices(o) for o in parsed]


def _of_file(words: list[str]) -> dict[str, Any]:
    _compose(words)
    return dict(compose("config", overrides=words, return_hydra_config=True).hydra.sweeper.params or {})


def _refuse_search(parsed: Sequence[Override]) -> None:
    for override in parsed:
        line, key = override.input_line, override.key_or_group
        if isinstance(override.value(), IntervalSweep):
            raise InputError(f"{line}: a grid has no point of an interval; list the values, or take range(...)")
        if key.startswith(("hydra/", "hydra.")) and key != "hydra.searchpath":
            raise InputError(f"{line}: sweepers and launchers of Hydra run single trainings, `whqa train -m ...`")


def search_path(folder: str | Path) -> str:
    """The override that stands for `--config-dir FOLDER`, wherever a command is started.

    Raises:
        InputError: no such folder.
    """
    place = Path(folder).absolute()
    if not place.is_dir():
        raise InputError(f"--config-dir {folder}: no such folder; it should hold groups, such as experiment/mine.yaml")
    return f"hydra.searchpath=['file://{place}']"


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
            raise InputError(f"no key {unknown!r} in the configuration{nearest(unknown, known)}")
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


@contextmanager
def hydra_here() -> Iterator[None]:
    """Hydra with the configuration of whqa."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        yield


def _parsed(words: Sequence[str]) -> list[Override]:
    try:
        # with the loader Hydra itself enumerates what a pattern such as glob(*) takes in
        return OverridesParser.create(config_loader=GlobalHydra.instance().config_loader()).parse_overrides(list(words))
    except HydraException as error:
        raise InputError(explain(error, list)) from None


def _compose(overrides: Sequence[str]) -> DictConfig:
    known_keys = partial(_known_keys, overrides)
    _refuse_places(overrides)
    _refuse_no_options(overrides)
    try:
        config = compose("config", overrides=list(overrides))
        _refuse_unresolvable_of_hydra(overrides)
        _refuse_wrong_types(config, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(explain(error, known_keys)) from None
    except ValueError as error:  # Hydra's answer to a number where a group's option belongs
        raise InputError(f"{' '.join(overrides)}: {error}") from None
    unknown = next(_unknown_keys(config, Config), None)
    if unknown:
        raise InputError(f"no key {unknown!r} in the configuration{nearest(unknown, known_keys())}")
    _refuse_taken_away(config)
    _refuse_unknown_of_trainer(config)
    _refuse_unresolvable(config)
    _refuse_unknown_of_wandb(config)
    _refuse_no_targets(config)
    _refuse_no_place(config)
    refuse_out_of_range(config)
    external_settings(config.masks)
    return config


def _refuse_places(overrides: Sequence[str]) -> None:
    if not is_first_rank():
        # to them Lightning says where the run's directory is; the words of the first were checked
        return
    for override in overrides:
        if override.lstrip("+~").split("=", 1)[0] in _PLACES:
            raise InputError(
                f"{override}: a run's directory follows from its settings, so that every stage finds the others; "
                "choose runs_dir=... and name=..."
            )


def _refuse_no_options(overrides: Sequence[str]) -> None:
    """Hydra takes a number or null for an option as a mistake of its own, and an empty list for no group at all."""
    for override in _parsed(overrides):
        group, words = override.key_or_group, override.value()
        if override.type == OverrideType.DEL or not (group and (config_dir() / group).is_dir()) or group == "hydra":
            continue
        named = words if isinstance(words, list) and words else [words]
        if not all(isinstance(one, str | dict | QuotedString) for one in named):
            options = ", ".join(sorted(path.stem for path in (config_dir() / group).glob("*.yaml")))
            raise InputError(f"{override.input_line}: choose one of {options}, or leave it out")


def _refuse_no_targets(config: DictConfig) -> None:
    """What `instantiate` shall make must say of what."""
    plain = OmegaConf.to_container(config)
    for group in ("data", "network", "trainer"):
        _refuse_no_target(group, plain_value(plain, group), f"choose one with {group}=...")
    for group in ("callbacks", "logger"):
        for name, one in (plain_value(plain, group) or {}).items():
            remedy = "leave it out" if name == "checkpoint" else f"~{group}.{name} takes it out"
            _refuse_no_target(f"{group}.{name}", one, remedy)


def _refuse_no_target(key: str, made: Any, remedy: str) -> None:
    if not isinstance(made, dict):
        raise InputError(f"{key}={'null' if made is None else made}: must be a mapping with {key}._target_; {remedy}")
    target = made.get("_target_")
    if not isinstance(target, str) or not _IMPORTED.fullmatch(target):
        raise InputError(
            f"{key}._target_={'null' if target is None else target}: must be the dotted name of a class or function; "
            f"{remedy}"
        )


def _refuse_sweep(parsed: Sequence[Override], arguments: Sequence[str]) -> None:
    swept = next((o for o in parsed if o.is_sweep_override() or _names_a_sweep(o)), None)
    keys = {o.key_or_group for o in parsed}
    if swept is None:
        return
    if not _SWEEPS & set(arguments) and "hydra.mode" not in keys:
        raise InputError(f"{swept.input_line}: stands for several values; -m trains with each of them")
    continuous = next((o for o in parsed if isinstance(o.value(), IntervalSweep)), None)
    if continuous is not None and "hydra/sweeper" not in keys:
        raise InputError(
            f"{continuous.input_line}: only a sweeper that searches draws from an interval; add hydra/sweeper=optuna "
            "(pip install 'whqa[optuna]'), or list the values"
        )


def _names_a_sweep(override: Override) -> bool:
    return override.key_or_group == "sweep" and override.value() is not None


def _refuse_unknown_of_trainer(config: DictConfig) -> None:
    """The schema leaves `trainer` to Lightning: there a key must be one of its parameters, and none that whqa sets."""
    if config.trainer.get("_target_") != "pytorch_lightning.Trainer":
        return
    for key in config.trainer:
        if key in SET_BY_WHQA:
            raise InputError(f"trainer.{key}: whqa sets it itself; {SET_BY_WHQA[key]}")
        parameters = trainer_parameters()
        if parameters and key not in parameters and not str(key).startswith("_"):
            known = [f"trainer.{name}" for name in parameters]
            raise InputError(f"no key 'trainer.{key}' in the configuration{nearest(f'trainer.{key}', known)}")


def _refuse_unknown_of_wandb(config: DictConfig) -> None:
    options = wandb_options(config)
    if options:
        check_wandb(options)


def _refuse_unresolvable(config: DictConfig) -> None:
    """Look up every interpolation but the processor's precision, which takes torch."""
    for key, value in leaves(OmegaConf.to_container(config)):
        if isinstance(value, str) and "${" in value and CPU_PRECISION not in value:
            try:
                OmegaConf.select(config, key)
            except OmegaConfBaseException as error:
                cause = error.__cause__ or error
                raise InputError(f"{key}={value}: {str(cause).splitlines()[0]}") from None


def _refuse_wrong_types(config: DictConfig, overrides: Sequence[str]) -> None:
    """The schema leaves these groups to their targets: there a value must be of the kind of its default."""
    changed = [o.split("=", 1)[0] for o in overrides if o.startswith(_UNTYPED) and o.partition("=")[0] not in _ANY_KIND]
    if not changed:
        return
    default = compose("config", overrides=[o for o in overrides if not o.startswith(_UNTYPED)])
    for key in changed:
        before, now = (plain_value(OmegaConf.to_container(c), key) for c in (default, config))
        if str(OmegaConf.select(config, key, throw_on_resolution_failure=False)).startswith("${"):
            continue
        if now is None and not key.startswith(("data.", "network.")):
            # of Lightning's, null is the default of many
            continue
        for types, kind in _KINDS:
            if type(before) is types[0] and type(now) not in types:
                raise InputError(f"{key}={'null' if now is None else now}: must be {kind}, as {before} is")


def _refuse_taken_away(config: DictConfig) -> None:
    """A tilde takes keys out of the configuration, also those that every run needs."""
    for group in ("data", "network", "masks", "trainer"):
        if OmegaConf.is_missing(config, group) or not config.get(group):
            raise InputError(f"{group}: every run needs one; leave ~{group} out, or choose one with {group}=...")
    if not OmegaConf.select(config, "callbacks.checkpoint"):
        raise InputError("callbacks.checkpoint: runs go on, and judge, from their checkpoint; leave this callback in")


def _refuse_no_place(config: DictConfig) -> None:
    """The name is that of one folder in `runs_dir`, where folders that begin with a dot are the cache and such."""
    name = str(config.name)
    if not name.strip() or name.startswith(".") or "/" in name:
        raise InputError(
            f"name={name}: must be the name of a folder, without a slash and without a dot at its beginning"
        )
    for key in ("runs_dir", "data_dir", "cache_dir"):
        if not str(OmegaConf.select(config, key)).strip():
            raise InputError(f"{key}=: must be a folder; leave it out for the default")
    for key, what in (("data.root", "a folder"), ("data.name", "a name")):
        value = OmegaConf.select(config, key, throw_on_missing=False, default="x")
        if not isinstance(value, str) or not value.strip():
            quoted = isinstance(value, int | float) and f"; quotes inside the quotes make it one: '{key}=\"{value}\"'"
            raise InputError(f"{key}={'null' if value is None else value}: must be {what}{quoted or ''}")


def _refuse_unresolvable_of_hydra(overrides: Sequence[str]) -> None:
    """Hydra looks its own settings up before it gives a run the word; whatever it sets itself is missing until then."""
    keys = [o.lstrip("+").split("=", 1)[0] for o in overrides if o.lstrip("+").startswith("hydra.") and "${" in o]
    if not keys:
        return
    config = compose("config", overrides=list(overrides), return_hydra_config=True)
    for key in keys:
        try:
            OmegaConf.select(config, key)
        except InterpolationToMissingValueError:
            continue
        except OmegaConfBaseException as error:
            raise InputError(f"{key}: {str(error.__cause__ or error).splitlines()[0]}") from None


def _search_path(arguments: Sequence[str]) -> list[str]:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, given, value = argument.partition("=")
        if name in ("-cd", "--config-dir"):
            return [search_path(value if given else following)]
    return []


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
    key, value = text.split("=", 1)[0], override.value()
    if isinstance(value, IntervalSweep):
        return [f"{key}={value.start}", f"{key}={value.end}"]
    choices = [f"{key}={one}" for one in override.sweep_string_iterator()]
    if not choices:
        raise InputError(f"{text}: stands for no value at all")
    return choices


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """Of the groups' options that are chosen; what else is stated may be what is wrong."""
    groups = sorted(p.name for p in config_dir().iterdir() if p.is_dir())
    chosen = [o for o in overrides if o.split("=", 1)[0] in groups]
    keys: set[str] = set()
    for key, _ in leaves(OmegaConf.to_container(compose("config", overrides=chosen))):
        parts = key.split(".")
        keys |= {".".join(parts[: i + 1]) for i in range(len(parts))}
    return sorted({*groups, *keys})


def _unknown_keys(config: Any, schema: type, prefix: str = "") -> Iterator[str]:
    hints = get_type_hints(schema)
    for key in map(str, config):
        if key not in hints:
            yield f"{prefix}{key}"
        elif dataclasses.is_dataclass(hints[key]):
            yield from _unknown_keys(config[key], hints[key], f"{prefix}{key}.")
