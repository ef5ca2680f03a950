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
from whqa.data.sources.checks import check_modality
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


def read_description(root: Path, expected: str, links: bool = False) -> dict[str, Any]:
    """The object in `root`/dataset.json; `links`: whether it may be a link that leads out of `root`.

    Raises:
        InputError: missing, outside `root`, over 8 MiB, not JSON, or not an object.
    """
    path = root / FILE_NAME
    if not os.path.isfile(path):
        raise InputError(f"{root}: has no {FILE_NAME}; it should be {expected}")
    stay_inside(root, path, "the file itself", links)
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise InputError(
                f"{path}: {path.stat().st_size:,} bytes are no description of a data set; give the right one"
            )
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path}: not readable as JSON ({short(error)}); correct or download it again") from None
    return typed(value, dict, path, "its content")


def typed(value: Any, kind: type[T], path: Path, where: str) -> T:
    """The value, once it is of that JSON type.

    Raises:
        InputError: it is not; names the entry.
    """
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{path}: {where} must be {_KINDS[kind]}, not {short(repr(value))}")
    return value


def entry(description: Mapping[str, Any], key: str, kind: type[T], path: Path, where: str = "") -> T:
    """A required key of the description, or of the object in it that `where` names.

    Raises:
        InputError: missing or of another type.
    """
    prefix = f"{where}: " if where else ""
    if key not in description:
        raise InputError(f"{path}: {prefix}key {key!r} is missing; it must be {_KINDS[kind]}")
    return typed(description[key], kind, path, f"{prefix}{key!r}")


def channel_of(description: Mapping[str, Any], key: str, wanted: int | str | None, path: Path) -> tuple[int, str]:
    """Number and name of the channel to read.

    Args:
        description: the object in dataset.json.
        key: of the object that names the channels by number.
        wanted: number or name; None takes the only one.
        path: of dataset.json.

    Raises:
        InputError: there is none, none is chosen among several, or the chosen one does not exist.
    """
    channels = {
        numbered(number, path, repr(key)): typed(text, str, path, f"{key!r}: {number!r}")
        for number, text in entry(description, key, dict, path).items()
    }
    there = ", ".join(f"{number} {short(text)}" for number, text in list(channels.items())[:8])
    if not channels:
        raise InputError(f"{path}: {key!r} names no channel; correct it")
    if wanted is None and len(channels) > 1:
        raise InputError(f"{path}: has several channels ({there}); choose one with data.channel")
    for number, text in channels.items():
        if wanted is None or str(wanted) in (str(number), text):
            return number, text
    raise InputError(f"{path}: has no channel {wanted!r}; there are {there}")


def numbered(text: str, path: Path, where: str) -> int:
    """The number that a key of the description is.

    Raises:
        InputError: it is none.
    """
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise InputError(f"{path}: {where}: {short(text)!r} must be a number, such as '0'")
    return int(text)


def modality_of_channel(stated: Modality | None, channel: str, path: Path) -> Modality:
    """The stated modality, or what the channel's name tells.

    Raises:
        InputError: neither tells one.
    """
    modality = stated or modality_of(channel)
    if modality is None:
        raise InputError(f"{path}: channel {short(channel)!r} is neither CT nor MR by name; set data.modality=ct or mr")
    check_modality(modality)
    return modality


def count_problems(description: Mapping[str, Any], there: int, path: Path) -> list[str]:
    """A download that was cut short has fewer training cases than it states, which is optional."""
    stated = description.get("numTraining")
    if type(stated) is not int or stated == there:
        return []
    advice = "copy the rest or correct the number"
    return [f"{path}: 'numTraining' is {stated}, but {there} training case(s) were found; {advice}"]


def described_file(root: Path, text: Any, where: str, links: bool = False) -> Path:
    """The path of a file that the description names relative to its folder; the file need not exist.

    Args:
        root: folder of the description.
        text: as it stands there.
        where: the entry, for messages.
        links: whether links below `root` may lead out of it.

    Raises:
        InputError: not a text, absolute, or leading out of `root`, by `..` or by a link.
    """
    path = root / FILE_NAME
    stated = typed(text, str, path, where)
    parts = [part for part in stated.split("/") if part not in ("", ".")]
    if not parts or not stated.isprintable() or _ABSOLUTE.match(stated) or "\\" in stated:
        raise InputError(
            f"{path}: {where}: {short(repr(stated))} is no path relative to the data folder; move the file into the "
            "folder and correct the entry"
        )
    return stay_inside(root, root.joinpath(*parts), f"{where}: {short(repr(stated))}", links and ".." not in parts)


def stay_inside(root: Path, path: Path, where: str, links: bool = False) -> Path:
    """The same path, once it and whatever it links to lie in `root`.

    Raises:
        InputError: it leads out of `root` (unless `links` lets links do so), or it cannot be followed.
    """
    parts = path.parts[len(root.parts) :]
    if ".." not in parts and not any(map(os.path.islink, itertools.accumulate((str(root), *parts), os.path.join))):
        return path
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{root / FILE_NAME}: {where} cannot be followed ({short(error)}); correct it") from None
    if not inside and not links:
        raise InputError(
            f"{root / FILE_NAME}: {where} leads out of the data folder; copy the file into it"
            + (" and correct the entry" if ".." in parts else ", or set data.links=true if you trust its links")
        )
    return path


def short(value: object) -> str:
    """At most 80 characters of a text that may be anything."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
