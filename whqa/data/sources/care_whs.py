"""Reader of CARE-WHS / WHS++: whole hearts of several centres, CT and MR, with the label values of MMWHS.

    CenterA/Case1001_image.nii.gz             CT of centres A, B and G
            Case1001_label.nii.gz
    CenterCD/Case3001_image.nii.gz            MR of centres C, D, E and F
    ...
    CT/site2/Case7_image.nii.gz               or the modality from a folder
    ct_train/ct_train_1001_image.nii.gz       or from the name, without centres

Known from the organisers' pages: the label values of MMWHS, the file names `<case>_image` and `<case>_label`, and which
centre has which modality (CT: A, B, G; MR: C and D, which come as one, E, F). Assumed, because the download needs
registration and was not at hand: the centre is a folder such as CenterA, Center_B or site2. A word in the file name
or the nearest folder (CT, MR, MRI) has more weight than the centre. Image and label may lie in different folders as
long as modality, centre and case are the same. Scans of different centres are taken for different people: a case is
named by modality, centre and file name, and is a patient of its own. MMWHS 2017 is part of it (A; C and D): do not mix
the two.

Source: WHS++ track of the CARE challenge, MICCAI 2024 and 2025 (zmic.org.cn/care_2024/track5), which extends MMWHS
(Zhuang et al. 2019).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from whqa.data.case import Case, Cohort, Modality, Problem
from whqa.data.formats.file_names import stem
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.checks import existing_folder
from whqa.data.sources.choice import Names, leave_out
from whqa.data.sources.listing import list_files, same_file
from whqa.data.sources.names import modality_of
from whqa.errors import InputError
from whqa.structures import CARE_WHS

EXPECTED = (
    "a folder with CenterA/Case1001_image.nii.gz and Case1001_label.nii.gz (CenterCD/... alike), or with "
    "ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz"
)
_FILE = re.compile(r"(?P<case>.+?)[_-](?P<what>image|label)", re.IGNORECASE)
_CENTRE = re.compile(r"(?:cent(?:er|re)|site|hospital)[ _-]*(\d+|[a-z](?:(?: ?& ?)?[a-z])?(?![a-z]))", re.IGNORECASE)
_OF_CENTRE: dict[str, Modality] = {
    **dict.fromkeys(("A", "B", "G"), "ct"),
    **dict.fromkeys(("C", "D", "CD", "E", "F"), "mr"),
}


def read_care_whs(
    root: str | Path | None,
    modality: Modality | None = None,
    name: str = "care_whs",
    spacing_rule: SpacingRule = "pixdim",
    without: Names | None = None,
) -> Cohort:
    """The cases below `root`, sorted by name.

    Args:
        root: data folder, searched with all its sub-folders.
        modality: "ct" or "mr" alone, which is then also that of files whose names and folders tell none; None takes
            both.
        name: of the cohort.
        spacing_rule: what holds where a header's pixdim and affine disagree.
        without: case names to leave out, see `whqa.data.sources.choice.leave_out`.

    Raises:
        InputError: no such folder, or no image in it whose modality is known. An image of a training folder without
            its label, a label without its image, a file that occurs twice, and a file of unknown modality are problems
            of the cohort.
    """
    if modality not in (None, "ct", "mr"):
        raise InputError(f"modality {modality!r}: must be ct, mr or null for both")
    folder = existing_folder(root, EXPECTED)
    images, labels, problems = _files(folder, modality)
    if not images:
        kind = f" of modality {modality}" if modality else ""
        raise InputError(problems[0] if problems else f"{folder}: no images{kind} found; it should be {EXPECTED}")
    problems += [
        Problem(
            f"{labels[case].path}: has no image {labels[case].stem}_image.nii.gz of its modality and centre; add it or "
            "remove the label",
            case,
        )
        for case in sorted(labels.keys() - images.keys())
    ]
    problems += [
        Problem(
            f"{images[case].path}: label file {images[case].stem}_label.nii.gz is missing; add it or remove the image",
            case,
        )
        for case in sorted(images.keys() - labels.keys())
        if images[case].training
    ]
    cases = tuple(
        Case(case, case, image.modality, image.path, labels[case].path if case in labels else None)
        for case, image in sorted(images.items())
    )
    return leave_out(Cohort(name, cases, CARE_WHS, spacing_rule, tuple(problems)), without)


@dataclass(frozen=True)
class _File:
    path: Path
    stem: str
    modality: Modality
    training: bool


def _files(folder: Path, wanted: Modality | None) -> tuple[dict[str, _File], dict[str, _File], list[str]]:
    """Images and labels by case, and problems."""
    found: dict[str, dict[str, _File]] = {"image": {}, "label": {}}
    listing = list_files(folder)
    problems = list(listing.problems)
    for inside, path in listing.files.items():
        match = _FILE.fullmatch(stem(path.name))
        if match is None:
            continue
        folders = [*reversed(inside.split("/")[:-1]), folder.resolve().name]
        modality = modality_of(match["case"], *folders) or _OF_CENTRE.get(_centre(match["case"], *folders)) or wanted
        if modality is None:
            problems.append(
                f"{path}: neither name, folders nor centre tell CT or MR; name the folder so, or set modality"
            )
            continue
        if wanted not in (None, modality):
            continue
        training = any("train" in text.lower() for text in (match["case"], *folders))
        case = _case_id(match["case"], modality, folders)
        first = found[match["what"].lower()].setdefault(case, _File(path, match["case"], modality, training))
        if not same_file(first.path, path):
            line = f"{path}: the same case is also at {first.path}; remove or rename one of them"
            problems.append(Problem(line, case))
    return found["image"], found["label"], problems


def _case_id(stem: str, modality: Modality, folders: list[str]) -> str:
    """Modality and centre, unless the stem tells them itself, then the stem."""
    centre = "" if _centre(stem) else _centre(*folders)
    parts: list[str] = [] if modality_of(stem) else [modality]
    return "_".join([*parts, *([f"center{centre}"] if centre else []), stem])


def _centre(*texts: str) -> str:
    """As A, CD or 2, of the first text that names one; "" where none does."""
    found = next((match[1] for text in texts if (match := _CENTRE.search(text))), "")
    return re.sub(r"[ &]", "", found).upper()
