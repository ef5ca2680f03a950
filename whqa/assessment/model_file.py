"""A model file: a trained run as one file that can be given away, opened again.

    LICENSE, docs/README.md, configs/metadata.json       as in a MONAI bundle; the README is the model card
    summary.json, folds.json, errormap/..., segmenter/...  as in runs/<experiment>, weights as safetensors

It is a zip archive without pickles. metadata.json has the digest of every other member, and the archive's comment that
of metadata.json, so that no byte changes unseen; who gave the file away, no digest can tell.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from whqa.contract.model_json import Member, ModelJson
from whqa.errors import InputError
from whqa.files import reading

FORMAT = 1
METADATA = "configs/metadata.json"
CARD = "docs/README.md"
LICENSE = "LICENSE"
AGAIN = "get it again from whoever gave it to you, or make it again: `whqa export RUN -o FILE`"
# The same run makes the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)
_NAME = re.compile(r"(?:[A-Za-z0-9_][\w.-]*/)*[A-Za-z0-9_][\w.-]*", re.ASCII)


def pack(path: Path, members: Mapping[str, bytes], metadata: bytes) -> None:
    """Write a model file: `members` by name, and the metadata that has their digests."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {METADATA: metadata, **members}.items():
            info = zipfile.ZipInfo(name, _DATE)
            # trained weights do not get smaller
            info.compress_type = zipfile.ZIP_STORED if name.endswith(".safetensors") else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
        archive.comment = _comment(metadata)


def read_metadata(path: Path) -> ModelJson:
    """What a model file says about itself, once all of it is known to be whole.

    Raises:
        InputError: the file is missing, torn, changed, of a newer format, or no model file.
    """
    return _read(path)[0]


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[Path, ModelJson]]:
    """A temporary folder with what a model file holds, laid out as runs/<experiment> is, and its metadata.

    Raises:
        InputError: see `read_metadata`.
    """
    metadata, members = _read(path)
    with tempfile.TemporaryDirectory(prefix="whqa-") as root:
        for name, content in members.items():
            target = Path(root, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        yield Path(root), metadata


def refuse_lacking(path: Path, folds: Sequence[int]) -> None:
    """Whether a model file has the networks of these folds.

    Raises:
        InputError: it has not, or see `read_metadata`.
    """
    if folds:
        held = read_metadata(path)["whqa"]["judges"]["networks"]
        lacking = [fold for fold in folds if fold not in held]
        if lacking:
            raise InputError(f"{path}: holds no network of fold {lacking[0]}; choose from {', '.join(map(str, held))}")


def digest(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _comment(metadata: bytes) -> bytes:
    return f"whqa {digest(metadata)}".encode()


def _read(path: Path) -> tuple[ModelJson, dict[str, bytes]]:
    if path.is_dir():
        raise InputError(f"{path}: a folder, not a model file; `whqa export RUN -o FILE` makes one of a finished run")
    with reading(path, "a model file of whqa", AGAIN), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if METADATA not in names:
            raise ValueError(f"no {METADATA} in it")
        content = archive.read(METADATA)
        metadata = json.loads(content)
        _refuse_newer(path, int(metadata["whqa"]["format"]))
        # before anything is unpacked: members are what the metadata lists, and none leads out of a folder
        if archive.comment != _comment(content) or sorted(names) != sorted([METADATA, *metadata["files"]]):
            raise InputError(f"{path}: changed since it was written ({METADATA}); {AGAIN}")
        if strange := next((name for name in names if not _NAME.fullmatch(name)), None):
            raise ValueError(f"a member is called {strange!r}")
        return metadata, {name: _member(path, archive, name, told) for name, told in metadata["files"].items()}


def _refuse_newer(path: Path, version: int) -> None:
    if version > FORMAT:
        raise InputError(
            f"{path}: of format {version}, newer than this version of whqa reads ({FORMAT}); update whqa, or ask for a "
            "file made by this one"
        )


def _member(path: Path, archive: zipfile.ZipFile, name: str, told: Member) -> bytes:
    # the size first: a small archive can hold a huge member
    content = archive.read(name) if archive.getinfo(name).file_size == told["bytes"] else b""
    if digest(content) != told["sha256"]:
        raise InputError(f"{path}: changed since it was written ({name}); {AGAIN}")
    return content
