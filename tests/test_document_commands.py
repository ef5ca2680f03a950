"""Every command that the documents show is taken by the parsers that would read it; nothing is run."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from whqa.cli.commands import command_parser, settings_of
from whqa.config.cohorts import sources
from whqa.config.instantiate import config_dir
from whqa.config.launcher import slurm_settings, without_launcher
from whqa.config.schema import Config
from whqa.config.words import check_overrides, compose_config, sweep_choices
from whqa.errors import InputError

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", *(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").rglob("*.md")))
# Of Hydra, in packages of their own.
PLUGINS = {"hydra/sweeper": "hydra_optuna_sweeper", "hydra/launcher": "hydra_submitit_launcher"}
STARTS = {"whqa", "make", "torchrun", "pip"}
# What may stand before a command.
_BEFORE = re.compile(r"\w+=\S*|/usr/bin/time|&&")


def commands(text: str) -> Iterator[str]:
    """Commands of a document: the lines of its sh blocks, and what it quotes as one."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            yield from filter(None, [line.strip()])
    without_blocks = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (" ".join(line.split()) for line in re.findall(r"`([^`]+)`", without_blocks))


def words_of(line: str) -> list[str]:
    """The words of a command of ours, without what stands before it; none of any other."""
    words = shlex.split(line, comments=True)
    while words and _BEFORE.fullmatch(words[0]):
        words = words[1:]
    first = Path(words[0]).name if words else ""
    return [first, *words[1:]] if first in STARTS else []


def shown() -> list[tuple[str, str]]:
    """Document and command, each command once."""
    found: dict[tuple[str, ...], tuple[str, str]] = {}
    for name in DOCUMENTS:
        for line in commands((ROOT / name).read_text("utf-8")):
            try:
                ours = words_of(line)
            except ValueError:
                # an apostrophe: no command
                ours = []
            if len(ours) > 1:
                found.setdefault(tuple(ours), (name, line))
    return list(found.values())


def shown_settings() -> list[tuple[str, list[str]]]:
    """Document and settings that it quotes together, without a command before them."""
    heads = {*(path.name for path in config_dir().iterdir()), "hydra", *Config.__annotations__}
    found: dict[str, tuple[str, list[str]]] = {}
    for name in DOCUMENTS:
        for line in commands((ROOT / name).read_text("utf-8")):
            words = line.split() if line.count("=") > 1 and not re.search(r"[<'\"]|\.\.\.|[A-Z]{3}", line) else []
            named = [re.match(r"\+{0,2}(\w+)[\w./]*=\S", word) for word in words]
            if len(words) > 1 and all(one and one[1] in heads for one in named):
                found.setdefault(line, (name, words))
    return list(found.values())


def wrong(line: str) -> str:
    """Why a command cannot be given as it stands; "" where it can."""
    try:
        words = words_of(line)
        check = {"whqa": wrong_whqa, "make": wrong_make, "torchrun": wrong_torchrun, "pip": wrong_extra}[words[0]]
        return check(words[1:])
    except InputError as error:
        return str(error)


def wrong_whqa(words: Sequence[str]) -> str:
    if words[0].startswith("-"):
        return "" if words[0] in ("--help", "--version") else f"no option {words[0]!r}"
    if words[0] == "train":
        return "" if stands_for_more(words) or missing_plugin(words) else check_overrides(words[1:]) or ""
    command, parser, rest = parser_of(words)
    if parser is None:
        return f"no command {command!r}"
    if not rest:
        # it is named, not given
        return ""
    if stands_for_more(rest):
        options = {word for action in parser._actions for word in action.option_strings}
        unknown = [word for word in rest if word.startswith("-") and word not in options]
        return f"no option {unknown[0]!r}" if unknown else ""
    try:
        given, extra = command_parser().parse_known_args(list(words))
    except SystemExit:
        return "argparse does not take it"
    settings = settings_of(given, extra)
    if getattr(given, "launcher", None) == "slurm" and is_installed(PLUGINS["hydra/launcher"]):
        slurm_settings(settings)
    return wrong_settings(command, without_launcher(settings))


def wrong_settings(command: str, settings: list[str]) -> str:
    if command in ("cv", "data prepare"):
        compose_config(settings)
    elif command == "sweep":
        choices = sweep_choices(settings)
        # one point that takes the last of all values: the grammar has been read, composing costs a third of a second
        compose_config([values[-1] for values in choices])
        if all(len(values) == 1 for values in choices):
            return "a sweep of one point"
    elif settings:
        texts = ((config_dir() / "data" / f"{source}.yaml").read_text("utf-8") for source in sources())
        keys = {key for text in texts for key in yaml.safe_load(text)}
        return "".join(f"no setting {s}" for s in settings if s.partition("=")[0] not in keys)
    return ""


def parser_of(words: Sequence[str]) -> tuple[str, argparse.ArgumentParser | None, Sequence[str]]:
    """Name of the command, its parser, and the words behind its name."""
    parser: argparse.ArgumentParser = command_parser()
    named: list[str] = []
    while (choices := subcommands(parser)) and len(named) < len(words):
        word = words[len(named)]
        named.append(word)
        if word not in choices:
            return " ".join(named), None, []
        parser = choices[word]
    return " ".join(named), parser, words[len(named) :]


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found = next((a for a in parser._actions if isinstance(a, argparse._SubParsersAction)), None)
    return {} if found is None else dict(found.choices)


def stands_for_more(words: Sequence[str]) -> bool:
    """Whether something is to be filled in that no parser could take."""
    return any(word == "..." or word.endswith("=...") for word in words)


def missing_plugin(words: Sequence[str]) -> bool:
    chosen = [PLUGINS[word.partition("=")[0]] for word in words if word.startswith(tuple(PLUGINS))]
    return not all(map(is_installed, chosen))


def is_installed(plugin: str) -> bool:
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{plugin}") is not None


def wrong_make(words: Sequence[str]) -> str:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    unused = [w for w in words[1:] if "=" in w and not re.search(rf"\(?\b{w.partition('=')[0]}\)", makefile)]
    if unused:
        return f"the Makefile has no {unused[0].partition('=')[0]}"
    dry = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True)
    if dry.returncode:
        return dry.stderr.strip()
    if any("<" in word or word.endswith("...") for word in words):
        return ""
    lines = re.sub(r"\\\n\s*", "", dry.stdout).splitlines()
    return "; ".join(filter(None, (wrong(line) for line in lines if "/whqa " in line)))


def wrong_torchrun(words: Sequence[str]) -> str:
    module = words[words.index("-m") + 1]
    return wrong_whqa(["train", *words[words.index(module) + 1 :]]) if find_spec(module) else f"no module {module}"


def wrong_extra(words: Sequence[str]) -> str:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = [one for word in words for one in re.findall(r"\[(\w+)\]$", word)]
    return "".join(f"no extra {one}" for one in named if one not in extras)


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_commands_of_the_documents_can_be_given() -> None:
    found = [f"{name}: {line}: {why}" for name, line in shown() if (why := wrong(line))]
    assert "\n".join(found) == ""


def test_settings_that_are_quoted_together_can_be_given_together() -> None:
    found = shown_settings()
    assert len(found) > 3
    bad = []
    for name, words in found:
        try:
            compose_config(["experiment=demo", *without_launcher(words)])
        except InputError as error:
            bad.append(f"{name}: {' '.join(words)}: {error}")
    assert "\n".join(bad) == ""


def test_there_are_commands_of_every_sort() -> None:
    starts = [words_of(line)[:2] for _, line in shown()]
    assert {"whqa", "make", "torchrun", "pip"} <= {words[0] for words in starts}
    assert set(subcommands(command_parser())) <= {words[1] for words in starts}


@pytest.mark.parametrize(
    "line",
    [
        "whqa asess scan.nii.gz mask.nii.gz -o out",
        "whqa assess ... --modle runs/demo",
        "whqa cv experiment=demo errormap.stepz=3",
        "whqa cv experiment=dmo",
        "whqa sweep experiment=demo errormap.steps=250",
        "whqa data check DIR modalty=mr",
        "whqa train experiment=demo fold=0,1",
        "WANDB_MODE=online whqa cv experiment=demo loger=wandb",
        "make cw",
        "make cv EXQ=demo",
        'make cv EXP=demo ARGS="stepz=3"',
        "torchrun -m whqa.trian -m experiment=demo fold=0,1",
        "pip install 'whqa[slrum]'",
    ],
)
def test_a_command_that_cannot_be_given_is_found(line: str) -> None:
    assert wrong(line)


def test_commands_are_read_from_blocks_and_from_the_text() -> None:
    text = "Do `make\ndemo`.\n```sh\nA=1 whqa cv \\\n    seed=1   # why\nls\n```\n```python\nwhqa.assess()\n```\n"
    assert list(commands(text)) == ["A=1 whqa cv seed=1   # why", "ls", "make demo"]
    assert [words_of(line) for line in commands(text)] == [["whqa", "cv", "seed=1"], [], ["make", "demo"]]
