"""What a message advises is accepted by every command that can print the message.

Messages are read from the source: texts of several words, those of f-strings with `{}` for their values. A command can
print the messages of the files that the functions answering it import, directly or through other files.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import io
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from omegaconf import OmegaConf

from whqa.assessment.label_map import parse_label_map
from whqa.cli.commands import main
from whqa.config.cohorts import sources
from whqa.config.mistakes import leaves, trainer_parameters
from whqa.config.words import compose_config
from whqa.masks.external_settings import ExternalSettings

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "whqa").rglob("*.py"))
}
# The functions of whqa/cli that answer a command: the files that they import are what it can run.
ANSWERED_BY = {
    "assess": ("assess", {"_assess", "_preview", "_pairs", "_assess_one", "_assess_many"}),
    "export": ("export", {"_export"}),
    "summarize": ("commands", {"_summarize"}),
    "compare": ("commands", {"_compare"}),
    "status": ("status", {"_status"}),
    "info": ("commands", {"_info"}),
    "train": ("commands", {"_train"}),
    "cv": ("commands", {"_cv", "_to_run", "_train"}),
    "sweep": ("commands", {"_sweep", "_to_run", "_train"}),
    "data check": ("data", {"_check", "_cohort"}),
    "data preview": ("data", {"_preview", "_cohort"}),
    "data prepare": ("data", {"_prepare"}),
    "data phantom": ("data", {"_phantom"}),
}
OF_A_FOLDER, OF_AN_EXPERIMENT = {"data check", "data preview"}, {"cv", "sweep", "train", "data prepare"}
# Commands that run a file, but not what its messages are about.
NOT_PRINTED = {
    "whqa.config.words": OF_A_FOLDER | {"data prepare"},  # whose settings begin with data.; it takes those of cv
    "whqa.config.mistakes": OF_A_FOLDER,
    # words for a training, which info lists
    "whqa.config.speed": OF_A_FOLDER | {"assess", "summarize", "info", "status", "data phantom"},
    "whqa.masks.external": {"assess", "summarize"},  # as were the settings of other programs
    "whqa.masks.plan": {"assess", "summarize", "status", "info", "data prepare"},  # a finished run's plan was accepted
    "whqa.config.run_config": {"assess", "summarize"},  # which compare the runs with each other alone
    "whqa.modules.errormap": {"assess", "summarize"},  # as were the settings of its network
    "whqa.judges.registry": {"info"},  # it lists the names alone
    "whqa.data.sources.choice": {"data phantom"},  # it reads all that it wrote
    **{m: {"assess", "summarize"} for m in ("whqa.masks.made_from", "whqa.masks.store")},
    "whqa.data.folds": {"assess", "summarize", "status"},  # which compares no cohorts
    "whqa.data.cache": {"assess", "summarize"},  # nor do these prepare scans
    "whqa.data.reading": {"assess", "summarize", "data phantom"},  # of references that a finished run has read
    # in words of their own
    "whqa.data.formats.nifti_placement": {"assess", "summarize", "status", "info", "data phantom"},
    "whqa.config.wandb_settings": OF_A_FOLDER,  # which log nothing
    # the masks of its reports are in memory, with the scheme of their cohort
    **{
        f"whqa.assessment.{m}": {"summarize"}
        for m in ("inputs", "input_places", "mask_labels", "placing", "unlike_labels", "told_opinion")
    },
    **{key: {"summarize"} for key in ("whqa.data.dicom.series", "whqa.data.dicom.heart_parts")},
    "whqa.results.correction_time": {"summarize"},  # which asks for no other minutes
    "whqa.parallel.many": {"train", "data phantom"},  # in one process; files that were just written
    "whqa.report.cohort_sheets": {"data phantom"},  # it shows all
}
# An option of the commands that read a folder, a setting of those that run an experiment: a message names both.
EITHER = {"--source", "data"}
# Options of other programs that a message shows in a command of theirs.
OF_OTHERS = {"--task", "--save"}  # TotalSegmentator; nnU-Net's --save_probabilities
# What a placeholder stands for: key=value itself, and parts of --label-map.
PLACEHOLDERS = {"key", "lv", "rv", "myo", "ignore"}
CONFIGURATIONS = sorted((ROOT / "conf").rglob("*.yaml"))
GROUPS = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
ROOTS = "|".join(sorted({*GROUPS, "preprocess", "augmentation"} - {"hydra"}))

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
SETTING = re.compile(r"(?<![\w.:/'\"@-])[+~]*((?:[a-z_]+|\{\})(?:[./](?:[a-z_]+|\{\}))*)=([^\s,;)`]*)")
KEY = re.compile(rf"(?<![\w./{{}}-])((?:{ROOTS})\.[a-z_]+)\b(?![(/.=\w])")
COMMAND = re.compile(r"`((?:whqa|make|torchrun|python|pip) [^`]*)`")
EXTRA = re.compile(r"whqa\[([a-z]+)\]")


class Message(NamedTuple):
    """A text of the source: where it stands, in which function."""

    module: str
    function: str
    line: int
    text: str

    @property
    def advice(self) -> str:
        """The text without the commands that it quotes, which have words of their own."""
        return COMMAND.sub("", self.text)

    def __str__(self) -> str:
        return f"{FILES[self.module].relative_to(ROOT)}:{self.line}: {self.text}"


@cache
def messages() -> list[Message]:
    """All texts of several words but docstrings and code."""
    return [
        Message(module, function, line, text)
        for module, path in FILES.items()
        for function, line, text in texts(ast.parse(path.read_text("utf-8")))
        if " " in text.strip() and not text.startswith("<") and not is_code(text)
    ]


def texts(node: ast.AST, function: str = "") -> Iterator[tuple[str, int, str]]:
    """Function, line and text of the strings below a node."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    if isinstance(node, ast.JoinedStr):
        parts = (v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
        yield function, node.lineno, "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield function, node.lineno, node.value
    if isinstance(node, ast.FunctionDef):
        function = function or node.name
    constants = {id(v) for v in node.values if isinstance(v, ast.Constant)} if isinstance(node, ast.JoinedStr) else ()
    for child in ast.iter_child_nodes(node):
        if id(child) not in constants:
            yield from texts(child, function)


def is_code(text: str) -> bool:
    try:
        return any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(text).body)
    except SyntaxError:
        return False


def imports(node: ast.AST) -> set[str]:
    """The modules of the package that are imported below a node, other than for type checkers."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        return set()
    found: set[str] = set()
    if isinstance(node, ast.Import):
        found = {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        full = {f"{node.module}.{alias.name}" for alias in node.names}
        found = {name if name in FILES else str(node.module) for name in full}
    return (found & FILES.keys()).union(*map(imports, ast.iter_child_nodes(node)))


@cache
def imports_of(module: str) -> frozenset[str]:
    # the schema takes types and defaults of rooms that other code runs; a file of the commands serves several
    if module == "whqa.config.schema" or module in {f"whqa.cli.{file}" for file, _ in ANSWERED_BY.values()}:
        return frozenset()
    return frozenset(imports(ast.parse(FILES[module].read_text("utf-8"))))


@cache
def run_by(command: str) -> frozenset[str]:
    """The modules whose code a command can run, those that a configuration names among them."""
    file, functions = ANSWERED_BY[command]
    tree = ast.parse(FILES[f"whqa.cli.{file}"].read_text("utf-8"))
    waiting: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in functions:
            waiting |= imports(node)
    if command in OF_A_FOLDER | OF_AN_EXPERIMENT:
        targets = [path for path in CONFIGURATIONS if command in {"cv", "sweep", "train"} or path.parent.name == "data"]
        waiting |= {name for path in targets for name in re.findall(r"_target_: (whqa[\w.]+)\.\w+", path.read_text())}
    return frozenset(reached(waiting))


def reached(waiting: set[str]) -> set[str]:
    """These modules and all that they import."""
    found: set[str] = set()
    while waiting:
        found |= waiting
        waiting = {name for module in waiting for name in imports_of(module)} - found
    return found


def printed_by(message: Message) -> list[str]:
    """The commands that can print a message; none for help texts, which are tested as such."""
    if message.module == "whqa.config.settings_help":
        return []
    served = {c for c, (file, _) in ANSWERED_BY.items() if message.module == f"whqa.cli.{file}"}
    if served:
        return [command for command in ANSWERED_BY if command in served and message.function in ANSWERED_BY[command][1]]
    without = set(NOT_PRINTED.get(message.module, set()))
    # it reads finished experiments as summarize does
    without |= {"compare"} if "summarize" in without else set()
    # it loads a run as assess does, and reads no scans
    without |= {"export"} if "assess" in without else set()
    return [c for c in ANSWERED_BY if message.module in run_by(c) and c not in without]


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """Command -> the options of its help."""
    found = {}
    for command in ANSWERED_BY:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*command.split(), "--help"])
        found[command] = set(OPTION.findall(printed.getvalue())) | {"--help"}
    return found


@cache
def keys_of_experiments() -> frozenset[str]:
    """The keys of all configurations, and those above them."""
    keys = {f"trainer.{name}" for name in trainer_parameters()} | GROUPS | {"hydra/sweeper"}
    keys |= {f"masks.external.{{}}.{field.name}" for field in dataclasses.fields(ExternalSettings)}
    stated = [OmegaConf.to_container(compose_config(["experiment=demo"]))]
    for group in ("data", "network", "logger"):
        files = (ROOT / "conf" / group).glob("*.yaml")
        stated += [{group: yaml.safe_load(path.read_text("utf-8"))} for path in files]
    for key in (key for config in stated for key, _ in leaves(config)):
        keys |= {key[:end] for end in range(len(key) + 1) if key[end : end + 1] in (".", "")}
    return frozenset(keys)


def keys_of(source: str) -> set[str]:
    return {f"data.{key}" for key in yaml.safe_load((ROOT / "conf" / "data" / f"{source}.yaml").read_text("utf-8"))}


def keys_taken(command: str, message: Message) -> frozenset[str] | set[str]:
    """The settings that a command takes where it prints this message."""
    readers = [s for s in sources() if message.module in reached({f"whqa.data.sources.{s}"})]
    of_readers = set.intersection(*map(keys_of, readers)) if readers else set().union(*map(keys_of, sources()))
    if command in OF_A_FOLDER:
        return of_readers | {key.removeprefix("data.") for key in of_readers}
    if command not in OF_AN_EXPERIMENT:
        return set()
    keys = {key for key in keys_of_experiments() if not key.startswith("data.")} | of_readers
    if of_a_group(message):
        keys |= {key.removeprefix("network.") for key in keys}
    of_all_runs = command in {"cv", "sweep"} and message.module in {"whqa.cv", "whqa.sweep.sweep_plan"}
    return keys - {"stage", "fold", "fit"} if of_all_runs else keys


def of_a_group(message: Message) -> bool:
    """Whether the name of a group is printed before the keys: it made the object that refuses them, or says so."""
    return message.module.startswith("whqa.networks.") or message.text.startswith("preprocess: ")


def takes(keys: Iterable[str], key: str) -> bool:
    """Whether a key, in which values may stand as in {}.steps, can be one of these."""
    pattern = re.escape(key).replace(r"\{\}", r"[\w.{}]+")
    return any(re.fullmatch(pattern, other) for other in keys)


def wrong_advice(message: Message, options: Mapping[str, set[str]]) -> list[str]:
    """Words of a message that a command which can print it does not take."""
    stated = [key for key, _ in SETTING.findall(message.advice)] + KEY.findall(message.advice)
    named = [option for option in OPTION.findall(message.advice) if option not in OF_OTHERS]
    if {*stated, *named} >= EITHER:
        stated, named = [s for s in stated if s not in EITHER], [n for n in named if n not in EITHER]
    return [
        f"whqa {command} does not take {word}: {message}"
        for command in printed_by(message)
        for word in [
            *(o for o in named if o not in options[command]),
            *(k for k in stated if k not in PLACEHOLDERS and not takes(keys_taken(command, message), k)),
        ]
    ]


def wrong_command(message: Message, options: Mapping[str, set[str]]) -> list[str]:
    """What a message quotes as a command and is none."""
    found = []
    for line in COMMAND.findall(message.text):
        words = line.split()
        if words[0] == "make":
            makefile = (ROOT / "Makefile").read_text("utf-8")
            good = re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE) is not None
            good = good and all(f"$({word.split('=')[0]})" in makefile for word in words[2:])
        elif words[0] == "whqa":
            command = next((c for c in ANSWERED_BY if f"{line} ".startswith(f"whqa {c} ")), "")
            good = bool(command) and set(OPTION.findall(line)) <= options[command]
            good = good and all(takes(keys_of_experiments(), key) for key, _ in SETTING.findall(line))
        else:
            good = all(word in FILES for word in words if word.startswith("whqa"))
        found += [] if good else [f"{line}: {message}"]
    return found


def test_commands_take_what_their_messages_advise(options: dict[str, set[str]]) -> None:
    assert "\n".join(line for message in messages() for line in wrong_advice(message, options)) == ""


def test_settings_are_named_in_full() -> None:
    """`segmenter.learning_rate`, not `learning_rate`, which no command takes."""
    keys = keys_of_experiments()
    leaf = {key.rpartition(".")[2] for key in keys if "_" in key.rpartition(".")[2]} - keys
    short = re.compile(rf"(?<![\w.{{}}/-])(?:{'|'.join(sorted(leaf))})(?![\w.(/])")
    found = [str(m) for m in messages() if printed_by(m) and short.search(m.text) and not of_a_group(m)]
    assert "\n".join(found) == ""


def test_commands_that_messages_quote_can_be_given(options: dict[str, set[str]]) -> None:
    assert "\n".join(line for message in messages() for line in wrong_command(message, options)) == ""


def test_extras_that_messages_name_can_be_installed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = {extra for message in messages() for extra in EXTRA.findall(message.text)}
    assert named
    assert named <= set(extras)


def test_settings_that_messages_advise_with_a_value_are_valid() -> None:
    stated = {
        (key, value.rstrip(".:"))
        for message in messages()
        for key, value in SETTING.findall(message.advice)
        if printed_by(message) and not message.module.startswith("whqa.cli.") and key not in PLACEHOLDERS
    }
    whole = sorted(f"{key}={value}" for key, value in stated if re.fullmatch(r"[a-z0-9_-]+", value) and "{" not in key)
    assert "data.links=true" in whole
    # a sweeper of Hydra comes with an extra
    for setting in (setting for setting in whole if not setting.startswith("hydra/")):
        key = setting.partition("=")[0]
        source = next((f"data={source}" for source in sources() if key in keys_of(source)), "data=phantom")
        compose_config(["experiment=demo", source, setting])


@pytest.mark.parametrize(
    "message",
    [
        Message("whqa.assessment.label_map", "", 1, "state data.structures"),
        Message("whqa.assessment.pairs", "", 1, "{}: not found; set data.root=... instead"),
        Message("whqa.data.sources.acdc", "", 1, "set data.links=true if you trust its links"),
        Message("whqa.data.sources.checks", "", 1, "choose another with segmenter.steps=5"),
        Message("whqa.stages.running", "", 1, "try --jobs 1"),
        Message("whqa.stages.running", "", 1, "set {}.stepz={}"),
    ],
    ids=lambda m: m.text,
)
def test_advice_that_a_command_does_not_take_is_found(message: Message, options: dict[str, set[str]]) -> None:
    assert wrong_advice(message, options)


@pytest.mark.parametrize("line", ["make cw", "make cv EXQ=1", "whqa data chek DIR", "whqa cv --all", "whqa cv stepz=3"])
def test_commands_that_do_not_exist_are_found(line: str, options: dict[str, set[str]]) -> None:
    assert wrong_command(Message("whqa.cv", "", 1, f"use `{line}`"), options)


def test_the_pairs_that_messages_about_labels_show_are_a_label_map() -> None:
    text = next(m.text for m in messages() if m.module == "whqa.assessment.label_map" and "lv=1" in m.text)
    assert parse_label_map(text.split(", ")[0]).values
