"""What of an output folder is ours: the names of our files, whose files lie there, and what may be removed.

The folder may be the user's own: files that only bear the names of ours stay, and an input is never written over.
"""

from __future__ import annotations

import os
import re
import tempfile
import traceback
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from whqa.errors import InputError
from whqa.files import read_json, write_text

# of a case
PROBABILITY, ERROR_MAP, CORRECTED = "error_probability.nii.gz", "error_map.nii.gz", "corrected_mask.nii.gz"
QUALITY, REPORT = "quality.json", "report.html"
# of a case whose image is a DICOM series
CORRECTED_SEG, ERROR_SEG = "corrected_mask.dcm", "error_map.dcm"
REQUEST, TRACEBACK = "request.json", "error.txt"
# of request.json: digests of the outputs that there are, by name
WRITTEN = "written"
# of a batch, beside the folders of its cases
INDEX, TABLE, WORKLIST = "index.html", "assessments.csv", "worklist.csv"

# of an earlier call with other options
_ALWAYS_REMOVED = (REPORT, CORRECTED_SEG, ERROR_SEG)
REQUEST_KEYS = frozenset(
    {"image", "mask", "name", "modality", "label_map", "confidence", "outputs", "run", "whqa"},
)
_QUALITY_KEYS = {"case", "verdict", "versions"}
# the only sign in a folder of a failed case that it is ours
_OWN_TRACEBACK = "whqa assess: what went wrong; the next call replaces or removes this file\n"
_LONGEST_NAME = 80


def make_folder(out: Path) -> None:
    """Make the output folder, and try to write there: minutes of work are lost where that fails only at the end.

    Raises:
        InputError: it cannot be made or written to, or is a file.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made a folder ({error.strerror}); choose another -o") from None
    try:
        with tempfile.TemporaryFile(dir=out):
            return
    except OSError as error:
        raise InputError(f"{out}: cannot be written to ({error.strerror}); choose another -o") from None


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Make the output folder before the work begins; work that fails leaves no empty folders.

    Raises:
        InputError: see `make_folder`.
    """
    made = [folder for folder in (out, *out.parents) if not os.path.lexists(folder)]
    try:
        make_folder(out)
        yield
    except BaseException:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


def folder_names(names: Iterable[str]) -> list[str]:
    """One folder name for each, in order: plain, distinct on any file system, and never a way to another folder."""
    taken = {INDEX, TABLE, WORKLIST}
    folders = []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFKC", name))
        # file systems count bytes
        plain = plain.encode()[:_LONGEST_NAME].decode(errors="ignore").strip("._-") or "case"
        folder, number = plain, 1
        while folder.casefold() in taken:
            number += 1
            folder = f"{plain}-{number}"
        taken.add(folder.casefold())
        folders.append(folder)
    return folders


def refuse_overwriting(outputs: Iterable[Path], inputs: Iterable[Path]) -> None:
    """The input is never changed, also where it lies in the output folder.

    Raises:
        InputError: an output would take the place of an input.
    """
    # of a link to itself it says no more than the path
    given = {os.path.realpath(path) for path in inputs}
    for path in outputs:
        if os.path.realpath(path) in given:
            raise InputError(f"{path}: is an input and would be overwritten; choose another -o")


def refuse_losing(folder: Path, outputs: Sequence[str], inputs: Iterable[Path | None]) -> None:
    """No input lies where a call writes, or is what it removes of an earlier one.

    Args:
        folder: of a case.
        outputs: names of the files that are about to be written.
        inputs: files that the call reads; None for what it was not given.

    Raises:
        InputError: an input would be lost.
    """
    given = [path for path in inputs if path is not None]
    refuse_overwriting((folder / name for name in (*outputs, *_ALWAYS_REMOVED, REQUEST, TRACEBACK)), given)


def clear(folder: Path, outputs: Sequence[str]) -> None:
    """Remove what an earlier call wrote here: a failure must not stand beside yesterday's verdict.

    Args:
        folder: of a case.
        outputs: names of the files that are about to be written.
    """
    earlier = _outputs_of_our_request(folder)
    names = [REQUEST, *(name for name in earlier if name.lower().endswith(".png"))] if earlier is not None else []
    if earlier is not None or _has_our_quality(folder):
        names += [*outputs, *_ALWAYS_REMOVED]
    if _has_our_traceback(folder):
        names.append(TRACEBACK)
    for name in dict.fromkeys(names):
        (folder / name).unlink(missing_ok=True)


def keep_traceback(folder: Path) -> None:
    """Write the traceback of the exception that is being handled into the folder, where the disk takes it."""
    with suppress(OSError):
        write_text(folder / TRACEBACK, _OWN_TRACEBACK + traceback.format_exc())


def _outputs_of_our_request(folder: Path) -> list[str] | None:
    """What request.json lists, if whqa wrote it and it lists nothing but plain names of files in this folder."""
    try:
        request = read_json(folder / REQUEST, "assess it again")
    except InputError:
        return None
    if not isinstance(request, dict) or not request.keys() >= REQUEST_KEYS:
        return None
    names = request["outputs"]
    return names if isinstance(names, list) and all(map(_is_plain, names)) else None


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name.isprintable() and Path(name).name == name != ".."


def _has_our_quality(folder: Path) -> bool:
    try:
        quality = read_json(folder / QUALITY, "assess it again")
    except InputError:
        return False
    return isinstance(quality, dict) and quality.keys() >= _QUALITY_KEYS


def _has_our_traceback(folder: Path) -> bool:
    try:
        with (folder / TRACEBACK).open("rb") as stream:
            return stream.readline(200) == _OWN_TRACEBACK.encode()
    except OSError:
        return False
