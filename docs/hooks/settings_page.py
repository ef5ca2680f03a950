"""Every key of the configuration with its type, default and consequence, from the schema and what it stands for.

What a key does is explained once, in the section "Attributes" or "Args" of a docstring: of the class of the schema, of
the classes that it inherits from, or of the object that one of them refers to ("see `whqa....`"). Where an object is
made of the settings (`_target_`), its docstring explains them.
"""

from __future__ import annotations

import dataclasses
import inspect
import pydoc
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import yaml
from omegaconf import OmegaConf
from page_table import code, table

from whqa.config.instantiate import config_dir
from whqa.config.limits import wanted
from whqa.config.schema import Config
from whqa.config.words import compose_config
from whqa.contract.json_schema import explained_keys
from whqa.masks.external import ExternalMethod
from whqa.masks.external_settings import ExternalSettings

_INTRO = """\
# Settings

`KEY=VALUE` goes over the files of `conf/`, in `whqa train`, `whqa cv`, `whqa sweep` and `whqa data prepare`; a key that
is not there yet takes a plus sign, `+KEY=VALUE`. `GROUP=OPTION` chooses a file. `whqa train --cfg job` prints all of
them, composed. A mistyped key or a value beyond its limits is refused with the nearest right one. This page is made
from the schema; an experiment may state other values than the defaults.
"""
_HEAD = ("key", "value", "default", "what it does")
_MADE = ("data", "network")
_OF_LIGHTNING = "trainer"


class Setting(NamedTuple):
    """A key: what it may be, its default in YAML, what it does."""

    key: str
    kind: str
    default: str
    says: str


def settings_page() -> str:
    """The page."""
    lines = [_INTRO]
    for title, text, settings in sections():
        rows = [(code(s.key), s.kind, code(s.default), re.sub(r"\bNone\b", "null", s.says)) for s in settings]
        lines += [f"## {title}\n", f"{text}\n" if text else "", *table(_HEAD, rows), ""]
    for group in ("experiment", "sweep", "debug"):
        rows = [(code(f"{group}={path.stem}"), _comment(path)) for path in _options(group)]
        lines += [f"## {group}\n", *table(("option", "what it is"), rows), ""]
    return "\n".join(lines)


def sections() -> Iterator[tuple[str, str, list[Setting]]]:
    """Title, a line and the settings of every part of the configuration."""
    config = OmegaConf.to_container(compose_config([]), enum_to_str=True)
    assert isinstance(config, dict)
    yield "Top level", "", list(_typed(Config, "", config))
    for field in dataclasses.fields(Config):
        hint = get_type_hints(Config)[field.name]
        if dataclasses.is_dataclass(hint):
            yield field.name, _groups(field.name), list(_typed(hint, f"{field.name}.", config[field.name]))
    yield "masks.external.&lt;program&gt;", "Masks of another program, each key with a plus sign.", list(_external())
    for group in _MADE:
        for path in _options(group):
            yield f"{group}={path.stem}", _comment(path), list(_made(group, path))
    yield _OF_LIGHTNING, f"{_groups(_OF_LIGHTNING)} Any parameter of Lightning's Trainer is a key.", list(_of_trainer())


def _typed(schema: type, prefix: str, values: Mapping[str, Any]) -> Iterator[Setting]:
    says = explanations(schema)
    for field in dataclasses.fields(schema):
        if not dataclasses.is_dataclass(get_type_hints(schema)[field.name]):
            key = f"{prefix}{field.name}"
            default = "" if isinstance(values[field.name], dict) else _shown(values[field.name])
            yield Setting(key, wanted(key), default, says.get(field.name, ""))


def explanations(schema: type) -> dict[str, str]:
    """Field -> what it does, by the docstrings of a dataclass, of its bases and of what these refer to."""
    found: dict[str, str] = {}
    for described in schema.__mro__[:-1]:
        found = explained_keys(described) | found
    for described in schema.__mro__[:-1]:
        for name in re.findall(r"[Ss]ee `(whqa[\w.]+)`", inspect.getdoc(described) or ""):
            target = pydoc.locate(name)
            found = explained_keys(target, "Args") | explained_keys(target) | found
    return found


def _external() -> Iterator[Setting]:
    says = explained_keys(ExternalMethod)
    for field in dataclasses.fields(ExternalSettings):
        default = field.default if field.default is not dataclasses.MISSING else {} if field.name == "parts" else "???"
        yield Setting(f"masks.external.NAME.{field.name}", _annotated(field.type), _shown(default), says[field.name])


def _made(group: str, path: Path) -> Iterator[Setting]:
    text = path.read_text("utf-8")
    values = yaml.safe_load(text)
    comments = dict(re.findall(r"^(\w+):[^#\n]*# (.*)$", text, flags=re.MULTILINE))
    target = pydoc.locate(values.pop("_target_"))
    says, parameters = arguments(target), inspect.signature(target).parameters
    for name, value in values.items():
        key = f"{group}.{name}"
        kind = _annotated(parameters[name].annotation)
        shown = "" if value == "???" else _shown(value)
        yield Setting(key, wanted(key) or kind, shown, says.get(name) or comments.get(name, ""))


def arguments(target: Any) -> dict[str, str]:
    """Parameter -> what it does; where it is "as of" another function, what that says."""
    says = explained_keys(target, "Args")
    for name, text in says.items():
        other = re.match(r"as of `(whqa[\w.]+)`", text)
        says[name] = arguments(pydoc.locate(other[1]))[name] if other else text
    return says


def _of_trainer() -> Iterator[Setting]:
    import pytorch_lightning as pl

    text = inspect.getdoc(pl.Trainer.__init__) or ""
    for name, value in yaml.safe_load((config_dir() / _OF_LIGHTNING / "cpu.yaml").read_text("utf-8")).items():
        # a paragraph a parameter, whose first sentence says what it is
        told = re.search(rf"^    {name}: ((?:.+\n?)+)", text, flags=re.MULTILINE)
        if told is not None:
            key, first = f"{_OF_LIGHTNING}.{name}", re.split(r"(?<=\w[.)])\s", " ".join(told[1].split()))[0]
            yield Setting(key, wanted(key) or _kind(value), "" if isinstance(value, list) else _shown(value), first)


def _groups(name: str) -> str:
    options = _options(name) if (config_dir() / name).is_dir() else []
    return f"Options: {', '.join(code(f'{name}={path.stem}') for path in options)}." if options else ""


def _options(group: str) -> list[Path]:
    return sorted((config_dir() / group).glob("*.yaml"))


def _comment(path: Path) -> str:
    """The comments at the top of a file, without those for Hydra."""
    top = path.read_text("utf-8").partition("\n\n")[0].splitlines()
    lines = [line.removeprefix("#").strip() for line in top if line.startswith("#")]
    return " ".join(line for line in lines if not line.startswith("@package"))


def _annotated(annotation: Any) -> str:
    return code(str(annotation).replace("None", "null"))


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return {int: "a whole number", float: "a number", list: "a list"}.get(type(value), "text")


def _shown(value: Any) -> str:
    if value == "":
        return "''"
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("\n...\n").strip().strip("'")
