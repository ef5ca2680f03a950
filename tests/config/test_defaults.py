"""A default stands once, beside the object that uses it: whoever uses whqa from Python gets what Hydra's users get."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_object
from omegaconf import MISSING, DictConfig, OmegaConf

import whqa
from whqa.config.instantiate import config_dir
from whqa.config.schema import AugmentationConfig, ErrorMapConfig, PreprocessConfig, SegmenterConfig
from whqa.config.words import compose_config
from whqa.data.preprocess_settings import Preprocess
from whqa.loading.augmentation import Augmentation
from whqa.masks.external import ExternalMethod
from whqa.masks.external_settings import ExternalSettings

# Of rooms that take settings of a stage.
ROOMS = ("loading", "modules", "callbacks", "judges", "masks")
# A number there, the rule that finds it here.
OTHERS = {"threshold"}
TARGETS = sorted(path for group in ("data", "network") for path in (config_dir() / group).glob("*.yaml"))
PARTIAL = sorted(path for group in ("experiment", "debug") for path in (config_dir() / group).glob("*.yaml"))


def plain(value: Any) -> Any:
    """Lists for tuples and plain text for members of an enumeration."""
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, str) else value


def defaults_of_fields(settings: type) -> dict[str, Any]:
    """Default of every field of a dataclass that has one."""
    found = {}
    for field in dataclasses.fields(settings):
        if field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
    return found


def defaults_of_parameters(target: Any) -> dict[str, Any]:
    """Default of every parameter that has one."""
    if inspect.isclass(target) and issubclass(target, BaseException):
        # has no signature of its own
        return {}
    parameters = inspect.signature(target).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def of_rooms() -> Iterator[tuple[str, Any]]:
    """Every public class and function of the rooms, once, by its name."""
    for room in ROOMS:
        package = importlib.import_module(f"whqa.{room}")
        for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            for name, thing in vars(importlib.import_module(info.name)).items():
                if getattr(thing, "__module__", "") == info.name and callable(thing) and not name.startswith("_"):
                    yield name, thing


@pytest.mark.parametrize(
    ("schema", "target"),
    [(PreprocessConfig, Preprocess), (AugmentationConfig, Augmentation), (ExternalSettings, ExternalMethod)],
    ids=lambda kind: kind.__name__,
)
def test_a_section_has_the_fields_and_defaults_of_its_object(schema: type, target: type) -> None:
    stated, used = defaults_of_fields(schema), defaults_of_fields(target)
    # what the object asks for in any case may have a default here, and the name of a program is its key
    assert {f.name for f in dataclasses.fields(schema)} == {f.name for f in dataclasses.fields(target)} - {"name"}
    assert {name: plain(stated[name]) for name in used} == {name: plain(value) for name, value in used.items()}


@pytest.mark.parametrize("schema", [SegmenterConfig, ErrorMapConfig], ids=lambda kind: kind.__name__)
def test_every_parameter_named_like_a_setting_of_a_stage_has_its_default(schema: type) -> None:
    stated = defaults_of_fields(schema)
    compared = []
    for name, thing in of_rooms():
        for parameter, default in defaults_of_parameters(thing).items():
            if parameter in stated.keys() - OTHERS:
                assert plain(default) == plain(stated[parameter]), f"{name}({parameter}=...)"
                compared.append((name, parameter))
    assert {("WholeHeartDataModule", "foreground"), ("SegmenterModule", "learning_rate")} <= {
        *compared,
        *(("SegmenterModule", parameter) for name, parameter in compared if name == "DeepSupervisionModule"),
    }


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_states_the_defaults_of_what_it_makes(path: Path) -> None:
    """All of them, for Hydra takes only keys that stand there, and none of another value."""
    stated: Any = OmegaConf.to_container(OmegaConf.load(path))
    used = defaults_of_parameters(get_object(stated.pop("_target_")))
    assert used.keys() <= stated.keys()
    own = {key: value for key, value in stated.items() if key in used and not str(value).startswith("${")}
    assert own == {key: plain(used[key]) for key in own}


def changes(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Key and value of every leaf."""
    for key, value in node.items():
        if isinstance(value, DictConfig):
            yield from changes(value, f"{prefix}{key}.")
        elif key != "defaults":
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("path", PARTIAL, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_experiment_states_only_what_it_changes(path: Path) -> None:
    written = OmegaConf.load(path)
    assert isinstance(written, DictConfig)
    groups = [f"{key.split('/')[-1]}={value}" for one in written.get("defaults", []) for key, value in one.items()]
    before = compose_config(groups)
    same = [key for key, value in changes(written) if OmegaConf.select(before, key) == value]
    assert same == []


@pytest.mark.parametrize("stage", ["segmenter", "errormap"])
def test_a_stage_s_file_states_only_what_has_no_default(stage: str) -> None:
    stated: Any = OmegaConf.load(config_dir() / stage / "default.yaml")
    known = defaults_of_fields({"segmenter": SegmenterConfig, "errormap": ErrorMapConfig}[stage])
    assert [key for key, value in stated.items() if known[key] == value] == []
    assert {key for key, value in known.items() if value == MISSING} <= set(stated)


def test_the_schema_is_there_without_what_takes_seconds_to_import() -> None:
    heavy = "('torch', 'pytorch_lightning', 'monai', 'pandas', 'matplotlib', 'numpy', 'nibabel')"
    program = f"import sys, whqa.config.words; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(whqa.__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "[]\n"
