"""Which mask belongs to which image: two folders matched by name, or a table of paths.

Names are compared without their ending and without one closing word that says what the file is, so that
`case7_0000.nii.gz` and `case7_image.nii.gz` find `case7.nii.gz`, `case7_label.nii.gz` or `case7_seg.nii.gz`.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from whqa.data.sources.listing import VOLUME_ENDINGS, list_files, same_file
from whqa.errors import InputError

IMAGE_WORDS = ("_image", "_img", "_0000")
MASK_WORDS = ("_labels", "_label", "_mask", "_segmentation", "_seg", "_prediction", "_pred", "_gt")
_OTHER_CHANNEL = re.compile(r"_(?!0000)\d{4}$")
_LONGEST_NAME = 80
# Files of a batch that lie beside its folders.
INDEX, TABLE = "index.html", "assessments.csv"


@dataclass(frozen=True)
class Pair:
    """One image with a mask of it; `modality` is None where the run's is meant."""

    name: str
    image: Path
    mask: Path
    modality: str | None = None


@dataclass(frozen=True)
class Pairs:
    """What was found; `problems` are lines about what has no partner, by the name of the case."""

    found: tuple[Pair, ...]
    problems: tuple[tuple[str, str], ...] = ()


def pairs_of_folders(images: Path, masks: Path) -> Pairs:
    """Match the volumes of two folders, or of one folder that holds both; sub-folders are left out.

    Raises:
        InputError: a folder cannot be read, or not a single pair is in them.
    """
    together = same_file(images, masks)
    problems = [*_unreadable(images), *([] if together else _unreadable(masks))]
    scans, labels = _by_case(images, IMAGE_WORDS, together), _by_case(masks, MASK_WORDS, together)
    found = []
    for case in sorted(scans.keys() | labels.keys()):
        image, mask = scans.get(case, []), labels.get(case, [])
        if len(image) == len(mask) == 1 and not same_file(image[0], mask[0]):
            found.append(Pair(case, image[0], mask[0]))
        else:
            problems.append((case, _why_no_pair(image, mask, images, masks)))
    if not found:
        advice = "files of one case must share their name; a table of paths (image, mask) works for any names"
        raise InputError(f"{images} and {masks}: no image with a mask of the same name; {advice}")
    return Pairs(tuple(found), tuple(problems))


def pairs_of_table(path: Path) -> Pairs:
    """Read a CSV table with the columns image and mask, and name and modality where it has them; others are ignored.

    Paths are relative to the table's folder. Commas, semicolons or tabs separate.

    Raises:
        InputError: not readable, or a column is missing, or no row.
    """
    rows = _read_table(path)
    found, problems = [], []
    for number, row in enumerate(rows, start=2):
        image, mask = row.get("image", ""), row.get("mask", "")
        name = row.get("name") or (case_name(Path(image).name, IMAGE_WORDS) if image else f"line {number}")
        modality = row.get("modality", "").lower() or None
        if not image or not mask:
            problems.append((name, f"{path}: line {number} has no {'mask' if image else 'image'}"))
        elif "\0" in image + mask:
            problems.append((name, f"{path}: line {number}: a path holds a NUL byte; correct the table"))
        elif modality not in (None, "ct", "mr"):
            problems.append((name, f"{path}: line {number}: modality {modality!r} must be ct or mr"))
        else:
            found.append(Pair(name, path.parent / image, path.parent / mask, modality))
    if not rows:
        raise InputError(f"{path}: has no rows; write one line with image and mask for each case")
    return Pairs(tuple(found), tuple(problems))


def case_name(file_name: str, words: Sequence[str] = (*IMAGE_WORDS, *MASK_WORDS)) -> str:
    """File name without its ending and without one of the closing words."""
    stem = _stem(file_name)
    return next((stem[: -len(w)] for w in words if stem.lower().endswith(w) and len(stem) > len(w)), stem)


def folder_names(names: Iterable[str]) -> list[str]:
    """One folder name for each, in order: plain, distinct on any file system, and never a way to another folder."""
    taken = {INDEX, TABLE}
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


def _stem(file_name: str) -> str:
    endings = sorted(VOLUME_ENDINGS, key=len, reverse=True)
    return next((file_name[: -len(e)] for e in endings if file_name.lower().endswith(e)), Path(file_name).stem)


def _unreadable(folder: Path) -> list[tuple[str, str]]:
    return [(folder.name, line) for line in list_files(folder, depth=0).problems]


def _by_case(folder: Path, words: Sequence[str], together: bool) -> dict[str, list[Path]]:
    """Files that can play the role of `words`, by case: those that say so by a word of their own, else those without
    any; a folder of its own in which all files have words of the other role means what the user says it is."""
    groups: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    files = list_files(folder, depth=0).files
    stems = {_stem(name) for name in files}
    for name, path in files.items():
        stem = _stem(name)
        if _OTHER_CHANNEL.search(stem) and f"{stem[:-4]}0000" in stems:
            continue
        groups[case_name(name)][_role(stem)].append(path)
    roles = ["image" if words is IMAGE_WORDS else "mask", ""]
    if not together and not any(role in group for group in groups.values() for role in roles):
        roles = ["image", "mask"]
    chosen = {case: next((g[role] for role in roles if role in g), []) for case, g in groups.items()}
    return {case: paths for case, paths in chosen.items() if paths}


def _role(stem: str) -> str:
    for role, words in (("image", IMAGE_WORDS), ("mask", MASK_WORDS)):
        if any(stem.lower().endswith(w) and len(stem) > len(w) for w in words):
            return role
    return ""


def _why_no_pair(image: Sequence[Path], mask: Sequence[Path], images: Path, masks: Path) -> str:
    for files in (image, mask):
        if len(files) > 1:
            return f"{files[0]} and {files[1].name} are of one case by name; remove or rename one"
    if not image or not mask:
        there, lacking, folder = (image, "mask", masks) if image else (mask, "image", images)
        return f"{there[0]}: no {lacking} of this name in {folder}"
    return f"{image[0]}: no mask of this name in {masks}"


def _read_table(path: Path) -> list[Mapping[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        header = lines[0] if lines else ""
        separator = next((s for s in ",;\t" if s in header), ",")
        reader = csv.DictReader(lines, delimiter=separator)
        columns = {name: (name or "").strip().lower() for name in reader.fieldnames or ()}
        rows = [{columns[k]: (v or "").strip() for k, v in row.items() if k in columns} for row in reader]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not readable as a CSV table ({error}); save it as CSV in UTF-8") from None
    missing = [name for name in ("image", "mask") if name not in columns.values()]
    if missing:
        there = ", ".join(filter(None, columns.values())) or "none"
        raise InputError(f"{path}: column {missing[0]!r} is missing; there are {there[:200]}")
    return [row for row in rows if any(row.values())]
