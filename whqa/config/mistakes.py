"""What to say of a wrong word: Hydra's errors in one line, and the nearest right word where one is near."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.errors import MissingConfigException

from whqa.config.limits import wanted

# Of Hydra's grammar, where it meets a character that it has another use for.
_NO_GRAMMAR = ("LexerNoViableAlt", "extraneous input", "mismatched input", "token recognition error")
_IN_QUOTES = r"""'patient="(\d+)"'"""
# Of two leaves of keys, from which they are called near: rat and rate are, epoch and devices are not.
_NEAR = 0.75
_LENGTH = "the length of a training is segmenter.steps and errormap.steps"
_EVERY = "validation comes every segmenter.validate_every and errormap.validate_every epochs"
SET_BY_WHQA = {
    "max_epochs": _LENGTH,
    "min_epochs": _LENGTH,
    "check_val_every_n_epoch": _EVERY,
    "val_check_interval": _EVERY,
    "accumulate_grad_batches": "patches of a step are segmenter.batch_size and errormap.batch_size",
    "default_root_dir": "runs lie in runs_dir",
    "callbacks": "callbacks stand under the key callbacks",
    "logger": "loggers are chosen by logger=...",
    "use_distributed_sampler": "the order of patches depends on the seed alone",
}
"""Parameters of Lightning's trainer that other settings decide, and which."""


def explain(error: BaseException, known_keys: Callable[[], Sequence[str]]) -> str:
    """One line about an error of Hydra or OmegaConf.

    Args:
        known_keys: of the configuration; asked for where a key is unknown.
    """
    text = str(error)
    if isinstance(error, MissingConfigException):
        found = re.search(r"Could not find '([\w-]+)/([^']*)'", text)
        options = [line.strip() for line in re.findall(r"^\t+([\w-]+)$", text, flags=re.MULTILINE)]
        if found:
            group, name = found.groups()
            return f"no {group} {name!r}{nearest(name, options)} There are: {', '.join(options)}"
    missing = re.search(r"Could not override '([^']+)'", text)
    if missing:
        return _unknown_key(missing.group(1), known_keys())
    merged = re.match(r"Error merging override ([\w.]+)=(.*)", text)
    if merged and wanted(merged[1]):
        default = "; leave it out for the default" if merged[2] == "null" else ""
        return f"{merged[1]}={merged[2]}: must be {wanted(merged[1])}{default}"
    cause = error.__cause__
    reason = str(cause).splitlines()[0] if cause and str(cause) else ""
    first = text.splitlines()[0] if text else type(error).__name__
    details = text.splitlines()[1] if "parsing" in first and len(text.splitlines()) > 1 else reason
    if any(words in text for words in _NO_GRAMMAR):
        found = re.match(r"LexerNoViableAltException: (.*)|Error parsing override '(.*)'$", first)
        setting = found[found.lastindex or 0] if found else first
        key, _, value = setting.partition("=")
        plain = re.fullmatch(r"[\w.+~/@-]+", key) and value and not re.search(r"[\"'\\]", value)
        quoted = f"'{key}=\"{value}\"'" if plain else _IN_QUOTES
        return f"{setting}: has special characters; put the value in quotes inside the quotes: {quoted}"
    return f"{first}: {details}" if details else first


def _unknown_key(key: str, known: Sequence[str]) -> str:
    of_trainer = trainer_parameters() if key.startswith("trainer.") else ()
    leaf = key.rpartition(".")[2]
    if re.match(r"masks\.external(\.|$)", key) or (leaf in of_trainer and leaf not in SET_BY_WHQA):
        return f"{key}: not in the configuration yet; a plus sign adds it: +{key}=..."
    further = [f"trainer.{name}" for name in of_trainer]
    text = f"no key {key!r} in the configuration{nearest(key, [*known, *further])}"
    meant = difflib.get_close_matches(leaf, of_trainer, n=1, cutoff=_NEAR)
    return f"{text} whqa sets it itself; {SET_BY_WHQA[meant[0]]}" if meant and meant[0] in SET_BY_WHQA else text


def nearest(word: str, words: Iterable[str]) -> str:
    """`; did you mean ...?` with the nearest of the words, by its last part and then as a whole; else a full stop."""

    def likeness(known: str) -> tuple[float, float]:
        return _ratio(word.rpartition(".")[2], known.rpartition(".")[2]), _ratio(word, known)

    best = max(words, key=lambda known: (sum(likeness(known)), known), default="")
    leaf, whole = likeness(best) if best else (0.0, 0.0)
    return f"; did you mean {best!r}?" if leaf >= _NEAR or (leaf >= 0.6 and whole >= 0.6) else "."


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def leaves(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of everything in a container that is no container itself, or an empty one."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in items:
        if isinstance(child, dict | list) and child:
            yield from leaves(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", child


@cache
def trainer_parameters() -> tuple[str, ...]:
    """Parameters of `pytorch_lightning.Trainer`, read from its source: importing it takes seconds. () if not found."""
    package = find_spec("pytorch_lightning")
    if package is None or not package.origin:
        return ()
    source = Path(package.origin).parent / "trainer" / "trainer.py"
    if not source.is_file():
        return ()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return tuple(argument.arg for argument in node.args.kwonlyargs)
    return ()
