"""Reader of the MMWHS 2017 layout: names say everything, folders nothing.

    ct_train1/ct_train_1001_image.nii.gz    CT training may come in two folders, MR in one
              ct_train_1001_label.nii.gz
    ct_train2/ct_train_1011_image.nii.gz
              ...
    mr_train/mr_train_1001_image.nii.gz
             ...
    ct_test/ct_test_2001_image.nii.gz       40 CT and 40 MR without open labels
    mr_test/...

Test images are unlabelled cases. Their encrypted labels (`ct_test_2001_label_encrypt_1mm.nii.gz`) are for the
organisers' tool and are passed over, as is every other name. Both modalities may lie together or apart. Names may be in
capitals and end in .nii; a case is called by its name in small letters.

Source: Multi-Modality Whole Heart Segmentation challenge, MICCAI 2017 (Zhuang & Shen 2016; Zhuang et al. 2019): 20 CT
and 20 MR training cases of different people.
"""

from __future__ import annotations

import re
from pathlib import Path

from whqa.data.case import Case, Cohort, Modality, Problem
from whqa.data.formats.file_names import stem
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.checks import existing_folder
from whqa.data.sources.choice import Names, leave_out
from whqa.data.sources.listing import list_files, same_file
from whqa.errors import InputError
from whqa.structures import MMWHS

EXPECTED = (
    "a folder with ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz (mr_... alike, ct_test_... without "
    "labels), in subfolders or not"
)
_FILE = re.compile(r"(?P<case>(?P<modality>ct|mr)_(?P<part>train|test)_\d+)_(?P<what>image|label)", re.IGNORECASE)


def read_mmwhs(
    root: str | Path | None,
    modality: Modality | None = None,
    name: str = "mmwhs",
    spacing_rule: SpacingRule = "pixdim",
    without: Names | None = None,
) -> Cohort:
    """The MMWHS cases below `root`, sorted by name; every case is a patient of its own.

    Args:
        root: data folder, searched with all its sub-folders.
        modality: "ct" or "mr" alone; None takes both.
        name: of the cohort.
        spacing_rule: what holds where a header's pixdim and affine disagree.
        without: case names to leave out, see `whqa.data.sources.choice.leave_out`.

    Raises:
        InputError: no such folder, or nothing of that layout in it. A training image without its label, a label without
            its image and a file that occurs twice are problems of the cohort.
    """
    if modality not in (None, "ct", "mr"):
        raise InputError(f"modality {modality!r}: must be ct, mr or null for both")
    folder = existing_folder(root, EXPECTED)
    images, labels, problems = _files(folder, modality)
    if not images:
        kind = f" of modality {modality}" if modality else ""
        raise InputError(f"{folder}: no MMWHS images{kind} found; it should be {EXPECTED}")
    problems += [
        Problem(
            f"{labels[case]}: image {case}_image.nii.gz is missing anywhere below {folder}; add it or remove the label",
            case,
        )
        for case in sorted(labels.keys() - images.keys())
    ]
    problems += [
        Problem(
            f"{path}: label file {case}_label.nii.gz is missing anywhere below {folder}; add it or remove the image",
            case,
        )
        for case, path in sorted(images.items())
        if case not in labels and "_train_" in case
    ]
    cases = tuple(
        Case(case_id, case_id, "ct" if case_id.startswith("ct") else "mr", images[case_id], labels.get(case_id))
        for case_id in sorted(images)
    )
    return leave_out(Cohort(name, cases, MMWHS, spacing_rule, tuple(problems)), without)


def _files(folder: Path, modality: Modality | None) -> tuple[dict[str, Path], dict[str, Path], list[str]]:
    found: dict[str, dict[str, Path]] = {"image": {}, "label": {}}
    listing = list_files(folder)
    problems = list(listing.problems)
    for path in listing.files.values():
        match = _FILE.fullmatch(stem(path.name))
        if match is None or (modality and match["modality"].lower() != modality):
            continue
        case = match["case"].lower()
        first = found[match["what"].lower()].setdefault(case, path)
        if not same_file(first, path):
            problems.append(Problem(f"{path}: the same case is also at {first}; remove one of them", case))
    return found["image"], found["label"], problems
