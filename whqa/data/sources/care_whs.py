"""Reader of CARE-WHS / WHS++: whole hearts of several centres, CT and MR, with the label values of MMWHS.

    CT/CenterA/Case1001_image.nii.gz          modality and centre from the folders
               Case1001_label.nii.gz
    MR/CenterC/Case2001_image.nii.gz
    ...
    ct_train/ct_train_1001_image.nii.gz       or the modality from the name, without centres
             ct_train_1001_label.nii.gz

Known: the label values are those of MMWHS; there are both modalities and several centres. Assumed, because the
download needs registration and was not at hand: a pair is `<case>_image` and `<case>_label`; the modality is a word
(CT, MR, MRI) of the file name or else of the nearest folder that has one; the centre is a folder such as CenterA,
Center_B or site2. Image and label may lie in different folders as long as modality, centre and case are the same.
Scans of different centres are taken for different people: a case is named by modality, centre and file name, and is a
patient of its own.

Source: WHS++ track of the CARE challenge, MICCAI 2024 and 2025 (zmic.org.cn), which extends MMWHS (Zhuang et al. 2019).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from whqa.data.case import Case, Cohort, Modality, SpacingRule
from whqa.data.sources.checks import existing_folder
from whqa.data.sources.choice import Names, leave_out
from whqa.data.sources.listing import list_files, same_file
from whqa.data.sources.names import modality_of
from whqa.errors import InputError
from whqa.structures import CARE_WHS

EXPECTED = (
    "a folder with CT/CenterA/Case1001_image.nii.gz and Case1001_label.nii.gz (MR/... alike), or with "
    "ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz"
)
_FILE = re.compile(r"(?P<case>.+?)[_-](?P<what>image|label)\.nii(\.gz)?", re.IGNORECASE)
_CENTRE = re.compile(r"(?:cent(?:er|re)|site|hospital)[ _-]*(\d+|[a-z])", re.IGNORECASE)


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
        f"{labels[case].path}: has no image {labels[case].stem}_image.nii.gz of its modality and centre; add it or "
        "remove the label"
        for case in sorted(labels.keys() - images.keys())
    ]
    problems += [
        f"{images[case].path}: label file {images[case].stem}_label.nii.gz is missing; add it or remove the image"
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
    listing = list_files(folder, endings=(".nii", ".nii.gz"))
    problems = list(listing.problems)
    for inside, path in listing.files.items():
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        folders = [*reversed(inside.split("/")[:-1]), folder.resolve().name]
        modality = modality_of(match["case"], *folders) or wanted
        if modality is None:
            problems.append(f"{path}: neither name nor folders tell CT or MR; name the folder so, or set data.modality")
            continue
        if wanted not in (None, modality):
            continue
        training = any("train" in text.lower() for text in (match["case"], *folders))
        case = _case_id(match["case"], modality, folders)
        first = found[match["what"].lower()].setdefault(case, _File(path, match["case"], modality, training))
        if not same_file(first.path, path):
            problems.append(f"{path}: the same case is also at {first.path}; remove or rename one of them")
    return found["image"], found["label"], problems


def _case_id(stem: str, modality: Modality, folders: list[str]) -> str:
    """Modality and centre, unless the stem tells them itself, then the stem."""
    centre = next((match[1] for text in folders if (match := _CENTRE.search(text))), None)
    parts: list[str] = [] if modality_of(stem) else [modality]
    if centre is not None and not _CENTRE.search(stem):
        parts.append(f"center{centre.upper()}")
    return "_".join([*parts, stem])
