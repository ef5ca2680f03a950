"""The files of a data folder, whatever else lies in it: hidden files, broken links, folders that cannot be opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from whqa.data.formats.file_names import VOLUME_ENDINGS
from whqa.errors import InputError

_MOST_ENTRIES = 2_000_000


@dataclass(frozen=True)
class Listing:
    """Files below a folder.

    Attributes:
        root: the folder.
        files: path relative to `root` with forward slashes -> path, sorted by the former. A link to nowhere is listed
            as the file that it pretends to be, so that reading it names it; devices and pipes are not.
        problems: folders that could not be opened and names that are no text.
    """

    root: Path
    files: Mapping[str, Path]
    problems: tuple[str, ...] = ()

    def within(self, folder: str) -> dict[str, Path]:
        """File name -> path of the files directly in a sub-folder."""
        start = f"{folder}/"
        return {name[len(start) :]: path for name, path in self.files.items() if _parent(name) == folder}


def list_files(root: Path, depth: int | None = None, endings: tuple[str, ...] | None = VOLUME_ENDINGS) -> Listing:
    """List the files below `root`, without those whose name starts with a dot; opens no file.

    Args:
        root: an existing folder. Links to folders are followed, but not those to a folder that they lie in.
        depth: how many levels of sub-folders are entered; None: all.
        endings: in lower case, of the files wanted; the case of a name's letters does not matter. None: all files.

    Raises:
        InputError: `root` cannot be opened, or more than two million entries lie below it.
    """
    files: dict[str, Path] = {}
    problems: list[str] = []
    for inside, entry in _walk(root, depth, problems):
        if endings is not None and not entry.name.lower().endswith(endings):
            continue
        if inside.isprintable():
            files[inside] = Path(entry.path)
        else:
            problems.append(f"{root}: the name of the file {inside!a} is not plain text; rename or remove it")
    return Listing(root, dict(sorted(files.items())), tuple(problems))


def same_file(first: Path, second: Path) -> bool:
    """Whether two paths are one file, through links; a link to nowhere is no other file."""
    try:
        return os.path.samefile(first, second)
    except OSError:
        return first == second


def _walk(root: Path, depth: int | None, problems: list[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    waiting: list[tuple[str, str, frozenset[tuple[int, int]]]] = [("", str(root), frozenset())]
    count = 0
    while waiting:
        start, folder, above = waiting.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in above:
                continue
            with os.scandir(folder) as entries:
                found = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name, reverse=True)
        except OSError as error:
            line = f"{folder}: folder cannot be opened ({error.strerror}); change its permissions or move it away"
            if not start:
                raise InputError(line) from None
            problems.append(line)
            continue
        count += len(found)
        if count > _MOST_ENTRIES:
            raise InputError(f"{root}: over {_MOST_ENTRIES:,} files lie below it; state the data set's own folder")
        for entry in found:
            kind = _kind(entry)
            if kind == "file":
                yield start + entry.name, entry
            elif kind == "folder" and (depth is None or start.count("/") < depth):
                waiting.append((f"{start}{entry.name}/", entry.path, above | {(status.st_dev, status.st_ino)}))


def _kind(entry: os.DirEntry[str]) -> str | None:
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
            return "file"
    except OSError:  # a link to itself
        return "file"
    return None


def _parent(name: str) -> str:
    return name.rpartition("/")[0]
