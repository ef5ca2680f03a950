"""Which mask belongs to which image: two folders matched by name, or a table of paths.

Files of two folders that have the same name belong together. The rest is compared without one closing word that says
what the file is, so that `case7_0000.nii.gz` and `case7_image.nii.gz` find `case7.nii.gz`, `case7_label.nii.gz` or
`case7_seg.nii.gz`; what then has no partner is told, but for the other channels of a paired `case7_0000.nii.gz`.
A mask may be a folder of structure files: `case7/` or, as TotalSegmentator writes it, `case7/segmentations/`. Of DICOM,
images are folders or archives of a series, and masks folders, archives or files: `case7/`, `case7.zip`, `case7.dcm`.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from whqa.assessment.structure_files import PARTS, is_structure_folder, structure_folders
from whqa.data.formats.file_names import IMAGE_WORDS, MASK_WORDS, case_name, stem
from whqa.data.formats.volume_files import CLASS_MAP_ENDINGS, describe_foreign, holds_dicom
from whqa.data.sources.listing import list_files, same_file
from whqa.errors import InputError

# nnU-Net's first channel, but as well a number that belongs to the name of a case
_NUMBER = "_0000"
_NEEDED = ("image", "mask")
_OTHER_CHANNEL = re.compile(r"_(?!0000)\d{4}$")


@dataclass(frozen=True)
class Pair:
    """One image with a mask of it.

    Attributes:
        name: of the case.
        image, mask: files; the mask may be a folder of structure files.
        modality: None where the run's is meant.
        probabilities: file with a program's softmax, or None.
    """

    name: str
    image: Path
    mask: Path
    modality: str | None = None
    probabilities: Path | None = None


@dataclass(frozen=True)
class Pairs:
    """What was found; `problems` are lines about what has no partner, by the name of the case."""

    found: tuple[Pair, ...]
    problems: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Group:
    """Files that are one case by name."""

    case: str
    images: Sequence[Path]
    masks: Sequence[Path]

    @property
    def is_pair(self) -> bool:
        one = len(self.images) == len(self.masks) == 1
        return one and not same_file(self.images[0], self.masks[0])


def pairs_of_folders(images: Path, masks: Path) -> Pairs:
    """Match the volumes of two folders, or of one folder that holds both; of sub-folders, those of structure files.

    Raises:
        InputError: a folder cannot be read, or not a single pair is in them.
    """
    together = same_file(images, masks)
    problems = [*_unreadable(images), *([] if together else _unreadable(masks))]
    scans = [*_files(images), *_dicom_places(images)]
    labels = [*_files(masks), *structure_folders(masks), *_dicom_places(masks)]
    groups = [] if together else _by_equal_names(scans, labels)
    groups += _by_words(scans, labels, together, _files_of(groups))
    found = [Pair(g.case, g.images[0], g.masks[0]) for g in groups if g.is_pair]
    lonely = [g for g in groups if not g.is_pair and not _is_other_channel(g, found, together)]
    problems += [(g.case, _why_no_pair(g.images, g.masks, images, masks)) for g in lonely]
    problems += [] if together else _unused(scans, labels, groups)
    problems.sort(key=lambda problem: problem[0])
    if not found:
        raise InputError(_no_pair(images, masks, together, [line for _, line in problems]))
    return Pairs(tuple(sorted(found, key=lambda pair: pair.name)), tuple(problems))


def is_one_case(image: Path, mask: Path) -> bool:
    """Whether two paths are one scan with a mask of it, and no folders of cases."""
    if not image.is_dir():
        return True
    if not holds_dicom(image):
        return False
    if not mask.is_dir() or is_structure_folder(mask):
        return True
    # a folder that holds one DICOM mask, or series in folders of their own beside a folder of masks
    return holds_dicom(mask) and len(list_files(mask, endings=None).files) == 1


def pairs_of_table(path: Path) -> Pairs:
    """Read a CSV table with the columns image and mask, and name, modality and probabilities where it has them.

    Other columns are ignored. Paths are relative to the table's folder. Commas, semicolons or tabs separate.

    Raises:
        InputError: not readable, or a column is missing, or no row.
    """
    rows = _read_table(path)
    found, problems = [], []
    for number, row in rows:
        image, mask = row.get("image", ""), row.get("mask", "")
        name = row.get("name") or (case_name(Path(image).name) if image else f"line {number}")
        modality = row.get("modality", "").lower() or None
        if not image or not mask:
            problems.append((name, f"{path}: line {number} has no {'mask' if image else 'image'}"))
        elif "\0" in image + mask:
            problems.append((name, f"{path}: line {number}: a path holds a NUL byte; correct the table"))
        elif modality not in (None, "ct", "mr"):
            problems.append((name, f"{path}: line {number}: modality {modality!r} must be ct or mr"))
        else:
            softmax = _beside(path, row["probabilities"]) if row.get("probabilities") else None
            found.append(Pair(name, _beside(path, image), _beside(path, mask), modality, softmax))
    if not rows:
        raise InputError(f"{path}: has no rows; write one line with image and mask for each case")
    return Pairs(tuple(found), tuple(problems))


def with_probabilities(pairs: Pairs, place: Path) -> Pairs:
    """The same pairs with a program's softmax each, named as the mask, the case or the image.

    Args:
        pairs: that have none; those that a table names are kept.
        place: folder of the files.

    Raises:
        InputError: no such folder, or not one of the cases has any.
    """
    if not place.is_dir():
        raise InputError(f"{place}: no such folder; give the one that holds the probabilities of all cases")
    problems, found = list(pairs.problems), []
    for pair in pairs.found:
        there = [pair.probabilities] if pair.probabilities else _probabilities_of(pair, place)
        if len(there) == 1:
            found.append(replace(pair, probabilities=there[0]))
        elif there:
            problems.append((pair.name, f"{there[0]} and {there[1].name} are both its probabilities; remove one"))
        else:
            problems.append((pair.name, f"{pair.mask}: no probabilities of this name in {place}, such as a .npz"))
    if pairs.found and not found:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{place}: no probabilities of any case; {problems[-1][1]}{more}")
    return Pairs(tuple(found), tuple(problems))


def _probabilities_of(pair: Pair, place: Path) -> list[Path]:
    """The files by the first name of which there are any."""
    called = _called(pair.mask)
    for bare in (stem(called), case_name(called), pair.name, stem(pair.image.name), case_name(pair.image.name)):
        paths = [place / f"{bare}{ending}" for ending in CLASS_MAP_ENDINGS]
        given = [path for path in paths if not same_file(path, pair.mask) and not same_file(path, pair.image)]
        there = [path for path in given if path.is_file()]
        if there:
            return there
    return []


def _unreadable(folder: Path) -> list[tuple[str, str]]:
    return [(folder.name, line) for line in list_files(folder, depth=0).problems]


def _files(folder: Path) -> list[Path]:
    return list(list_files(folder, depth=0).files.values())


def _dicom_places(folder: Path) -> list[Path]:
    """The folders, archives and files of DICOM in a folder, each of one case."""
    there = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    named = (path for path in there if path.is_dir() or path.suffix.lower() in (".dcm", ".zip"))
    return [path for path in named if holds_dicom(path) and not (path.is_dir() and _holds_parts(path))]


def _holds_parts(folder: Path) -> bool:
    return any(is_structure_folder(inner) for inner in (folder / PARTS, folder) if inner.is_dir())


def _called(path: Path) -> str:
    """The name that says which case a file, a folder of structure files or one of DICOM files is of."""
    if path.name == PARTS:
        return path.parent.name
    return path.stem if path.suffix.lower() in (".dcm", ".zip") else path.name


def _files_of(groups: Iterable[_Group]) -> set[Path]:
    return {path for group in groups for path in (*group.images, *group.masks)}


def _by_equal_names(scans: Iterable[Path], labels: Iterable[Path]) -> list[_Group]:
    """Files of two folders whose names are equal, where no closing word says that another partner is meant."""
    groups = []
    images, masks = _by_stem(scans), _by_stem(labels)
    for case in sorted(images.keys() & masks.keys()):
        image, mask = images[case], masks[case]
        both = [s for s in image if s in mask and not same_file(image[s][0], mask[s][0])]
        meant = _meant_by(image.keys(), mask.keys()) if both else "words"
        if meant == "names":
            alone = len(image.keys() | mask.keys()) == 1 and not both[0].endswith(_NUMBER)
            groups += [_Group(case if alone else bare, image[bare], mask[bare]) for bare in both]
        elif meant == "unclear":
            groups.append(_Group(case, [*chain(*image.values())], [*chain(*mask.values())]))
    return groups


def _meant_by(scans: Collection[str], labels: Collection[str]) -> str:
    """What decides about the files of one case that share a name: their names, their words, or nobody knows."""
    every, equal = {*scans, *labels}, set(scans) == set(labels)
    if len({_role(bare) for bare in every}) == 1:
        return "names"
    worded = {_role(bare) for bare in every if not bare.endswith(_NUMBER)} - {""}
    if not worded:
        # `p` and `p_0000`: two cases, or a case and its first channel
        return "names" if equal else "unclear"
    return "unclear" if equal and "image" not in worded else "words"


def _by_words(scans: Sequence[Path], labels: Sequence[Path], together: bool, taken: Collection[Path]) -> list[_Group]:
    """The files that are not taken, by name without the closing word."""
    masks = _by_case(labels, "mask", together, taken)
    images = _by_case(scans, "image", together, taken, masks.keys())
    return [_Group(case, images.get(case, []), masks.get(case, [])) for case in sorted(images.keys() | masks.keys())]


def _by_case(
    files: Sequence[Path], own: str, together: bool, taken: Collection[Path], known: Collection[str] = ()
) -> dict[str, list[Path]]:
    """Files that can play a role, by case: those that say so by a word of their own, else those without any.

    A folder of its own in which all files have words of the other role means what the user says it is. A name that
    is a known case as it stands keeps its closing word.
    """
    roles = [own, ""]
    if not together and not any(_role(stem(_called(path))) in roles for path in files):
        roles = ["image", "mask"]
    groups: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        bare = stem(_called(path))
        if path not in taken:
            groups[bare if bare in known else case_name(_called(path))][_role(bare)].append(path)
    chosen = {case: next((g[role] for role in roles if role in g), []) for case, g in groups.items()}
    return {case: paths for case, paths in chosen.items() if paths}


def _by_stem(files: Iterable[Path]) -> dict[str, dict[str, list[Path]]]:
    cases: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in files:
        cases[case_name(_called(path))][stem(_called(path))].append(path)
    return cases


def _is_other_channel(group: _Group, found: Iterable[Pair], together: bool) -> bool:
    """Whether it is `case_0001` beside a `case_0000` that is the image of `case`; masks have no channels."""
    stems = [stem(_called(path)) for path in (*group.images, *group.masks)]
    if (group.masks and not together) or not all(_OTHER_CHANNEL.search(bare) for bare in stems):
        return False
    first = {bare[:-4] + _NUMBER[1:] for bare in stems}
    return first <= {stem(_called(pair.image)) for pair in found if stem(_called(pair.image)) == pair.name + _NUMBER}


def _unused(scans: Iterable[Path], labels: Iterable[Path], groups: Sequence[_Group]) -> list[tuple[str, str]]:
    """Files with a word of the other role whose case is met nowhere; references beside their images are usual."""
    met = {name for group in groups for name in (group.case, *(case_name(_called(p)) for p in _files_of([group])))}
    lines = []
    for files, role, other in ((scans, "an image", "a mask"), (labels, "a mask", "an image")):
        lines += [
            (case_name(_called(path)), f"{path}: by its name {other}, not {role}, and there is none to it; rename it")
            for path in files
            if case_name(_called(path)) not in met
        ]
    return lines


def _role(bare: str) -> str:
    for role, words in (("image", IMAGE_WORDS), ("mask", MASK_WORDS)):
        if any(bare.lower().endswith(w) and len(bare) > len(w) for w in words):
            return role
    return ""


def _no_pair(images: Path, masks: Path, together: bool, problems: Sequence[str]) -> str:
    places = f"{images}" if together else f"{images} and {masks}"
    for folder in (images, masks):
        what = None if list_files(folder, depth=0).files else describe_foreign(folder)
        if what and "DICOM" in what:
            return f"{folder}: no volumes but {what}"
    if is_structure_folder(masks):
        return f"{masks}: holds the structures of one case, a file each; give its image in place of the folder {images}"
    advice = "files of one case must share their name; a table of paths (image, mask) works for any names"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    first = f"; {problems[0]}{more}" if problems else ""
    return f"{places}: no image with a mask of the same name; {advice}{first}"


def _why_no_pair(image: Sequence[Path], mask: Sequence[Path], images: Path, masks: Path) -> str:
    for files in (image, mask):
        if len(files) > 1:
            return f"{files[0]} and {files[1].name} are of one case by name; remove or rename one"
    if not image or not mask:
        there, lacking, folder = (image, "mask", masks) if image else (mask, "image", images)
        return f"{there[0]}: no {lacking} of this name in {folder}"
    return f"{image[0]}: no mask of this name in {masks}"


def _beside(table: Path, name: str) -> Path:
    """A path relative to a table's folder, which may have been written on Windows."""
    path = table.parent / name
    return path if "\\" not in name or path.exists() else table.parent / name.replace("\\", "/")


def _read_table(path: Path) -> list[tuple[int, Mapping[str, str]]]:
    """Rows with the number of the line on which each begins."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        # a name of another column may hold any of them
        separators = (s for s in ",;\t" if set(_NEEDED) <= set(_header(text, s)))
        separator = next(separators, ",")
        columns, reader = _header(text, separator), csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        next(reader, None)
        rows, begins = [], reader.line_num + 1
        for cells in reader:
            rows.append((begins, dict(zip(columns, (cell.strip() for cell in cells), strict=False))))
            begins = reader.line_num + 1
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not readable as a CSV table ({error}); save it as CSV in UTF-8") from None
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{path}: has two columns {twice!r}; take one out")
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        there = ", ".join(filter(None, columns)) or "none"
        raise InputError(f"{path}: column {missing[0]!r} is missing; there are {there[:200]}")
    return [(number, row) for number, row in rows if any(row.values())]


def _header(text: str, separator: str) -> list[str]:
    first = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    return [name.strip().lower() for name in first]
