"""The `dataset.json` of nnU-Net and of the Medical Decathlon: read with the distrust that a downloaded file deserves.

Whatever the file names must lie in its own folder: absolute paths, `..` and links that lead out of it are refused, and
so is everything of the wrong type, before a file is opened.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from whqa.data.case import Modality
from whqa.data.sources.checks import check_modality, existing_folder
from whqa.data.sources.names import modality_of
from whqa.errors import InputError

FILE_NAME = "dataset.json"
# Where the volumes of such a data set lie, relative to it.
FOLDERS = r"(images|labels)\w*/"
# Some 40,000 cases.
_LARGEST_BYTES = 8 << 20
# Also of a home folder, and on a drive or a server of Windows.
_ABSOLUTE = re.compile(r"[/~]|[A-Za-z]:")
_KINDS: dict[type, str] = {dict: "an object {...}", list: "a list [...]", str: "a text", int: "a whole number"}
T = TypeVar("T")
STATE_STRUCTURES = "state data.structures"
"""What helps where the label names of a description do not do."""


class Description:
    """The object in dataset.json and its folder.

    Attributes:
        folder: of the data set.
        path: of dataset.json.
        content: the object.
        links: whether links below the folder may lead out of it.
    """

    def __init__(self, root: str | Path | None, expected: str, links: bool = False) -> None:
        """Read it; `expected` is what the folder should look like.

        Raises:
            InputError: no folder, or dataset.json is missing, outside of it, over 8 MiB, not JSON, or not an object.
        """
        self.folder, self.links = existing_folder(root, expected), links
        self.path = self.folder / FILE_NAME
        if not os.path.isfile(self.path):
            raise InputError(f"{self.folder}: has no {FILE_NAME}; it should be {expected}")
        self.inside(self.path, "the file itself")
        try:
            size = self.path.stat().st_size
            if size > _LARGEST_BYTES:
                raise InputError(f"{self.path}: {size:,} bytes are no description of a data set; give the right one")
            value = json.loads(self.path.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError, OSError) as error:
            raise InputError(
                f"{self.path}: not readable as JSON ({short(error)}); correct or download it again"
            ) from None
        self.content: dict[str, Any] = self.typed(value, dict, "its content")

    def typed(self, value: Any, kind: type[T], where: str) -> T:
        """The value, once it is of that JSON type.

        Raises:
            InputError: it is not; names the entry.
        """
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{self.path}: {where} must be {_KINDS[kind]}, not {short(repr(value))}")
        return value

    def entry(self, key: str, kind: type[T], within: Mapping[str, Any] | None = None, where: str = "") -> T:
        """A required key of the description, or of the object in it that `where` names.

        Raises:
            InputError: missing or of another type.
        """
        content = self.content if within is None else within
        prefix = f"{where}: " if where else ""
        if key not in content:
            raise InputError(f"{self.path}: {prefix}key {key!r} is missing; it must be {_KINDS[kind]}")
        return self.typed(content[key], kind, f"{prefix}{key!r}")

    def number(self, text: str, where: str) -> int:
        """The number that a key of the description is.

        Raises:
            InputError: it is none.
        """
        if not re.fullmatch(r"[0-9]{1,5}", text):
            raise InputError(f"{self.path}: {where}: {short(text)!r} must be a number, such as '0'")
        return int(text)

    def channel(self, key: str, wanted: int | str | None, stated: Modality | None) -> tuple[int, Modality]:
        """Number of the channel to read, and its modality.

        Args:
            key: of the object that names the channels by number.
            wanted: number or name; None takes the only one.
            stated: the modality; None goes by the channel's name.

        Raises:
            InputError: there is none, none is chosen among several, the chosen one does not exist, or no modality is
                stated and the name tells none.
        """
        channels = {
            self.number(number, repr(key)): self.typed(text, str, f"{key!r}: {number!r}")
            for number, text in self.entry(key, dict).items()
        }
        there = ", ".join(f"{number} {short(text)}" for number, text in list(channels.items())[:8])
        if not channels:
            raise InputError(f"{self.path}: {key!r} names no channel; correct it")
        if wanted is None and len(channels) > 1:
            raise InputError(f"{self.path}: has several channels ({there}); choose one with data.channel")
        found = [n for n, text in channels.items() if wanted is None or str(wanted) in (str(n), text)]
        if not found:
            raise InputError(f"{self.path}: has no channel {wanted!r}; there are {there}")
        name = channels[found[0]]
        modality = stated or modality_of(name)
        if modality is None:
            advice = "set data.modality=ct or mr"
            raise InputError(f"{self.path}: channel {short(name)!r} is neither CT nor MR by name; {advice}")
        check_modality(modality)
        return found[0], modality

    def count_problems(self, there: int) -> list[str]:
        """A download that was cut short has fewer training cases than it states, which is optional."""
        stated = self.content.get("numTraining")
        if type(stated) is not int or stated == there:
            return []
        advice = "copy the rest or correct the number"
        return [f"{self.path}: 'numTraining' is {stated}, but {there} training case(s) were found; {advice}"]

    def file(self, text: Any, where: str) -> Path:
        """The path of a file that the description names relative to its folder; the file need not exist.

        Args:
            text: as it stands there.
            where: the entry, for messages.

        Raises:
            InputError: not a text, absolute, or leading out of the folder, by `..` or by a link.
        """
        stated = self.typed(text, str, where)
        parts = [part for part in stated.split("/") if part not in ("", ".")]
        if not parts or not stated.isprintable() or _ABSOLUTE.match(stated) or "\\" in stated:
            raise InputError(
                f"{self.path}: {where}: {short(repr(stated))} is no path relative to the data folder; move the file "
                "into the folder and correct the entry"
            )
        return self.inside(self.folder.joinpath(*parts), f"{where}: {short(repr(stated))}")

    def inside(self, path: Path, where: str) -> Path:
        """The same path, once it and whatever it links to lie in the folder.

        Raises:
            InputError: it leads out of the folder (unless links may, which is no licence for `..`), or it cannot be
                followed.
        """
        parts = path.parts[len(self.folder.parts) :]
        steps = itertools.accumulate((str(self.folder), *parts), os.path.join)
        if ".." not in parts and not any(map(os.path.islink, steps)):
            return path
        try:
            within = path.resolve().is_relative_to(self.folder.resolve())
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"{self.path}: {where} cannot be followed ({short(error)}); correct it") from None
        if not within and (".." in parts or not self.links):
            raise InputError(
                f"{self.path}: {where} leads out of the data folder; copy the file into it"
                + (" and correct the entry" if ".." in parts else ", or set data.links=true if you trust its links")
            )
        return path


def read_by(source: str) -> str:
    """The advice to read a folder by another source, in the words of every command."""
    return f"read it with --source {source}, in an experiment with data={source}"


def short(value: object) -> str:
    """At most 80 characters of a text that may be anything."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
