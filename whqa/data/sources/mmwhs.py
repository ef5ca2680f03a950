"""Reader of the MMWHS layout: `ct_train_1001_image.nii.gz` beside `ct_train_1001_label.nii.gz`, in any subfolders.

Source: Multi-Modality Whole Heart Segmentation challenge, MICCAI 2017 (Zhuang & Shen 2016; Zhuang et al. 2019): 20 CT
and 20 MR training cases of different people with labels, 40 + 40 test images without. The download may split CT
training over two folders, so folders mean nothing here and names everything.
"""

from __future__ import annotations

import re
from pathlib import Path

from whqa.data.case import Case, Cohort, Modality, SpacingRule
from whqa.data.sources.checks import checked, existing_folder
from whqa.errors import InputError
from whqa.structures import MMWHS

EXPECTED = (
    "a folder with ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz (mr_... alike, ct_test_... without "
    "labels), in subfolders or not"
)
_FILE = re.compile(r"(?P<case>(?P<modality>ct|mr)_(?P<part>train|test)_\d+)_(?P<what>image|label)\.nii(\.gz)?")


def read_mmwhs(
    root: str | Path | None,
    modality: Modality | None = None,
    name: str = "mmwhs",
    spacing_rule: SpacingRule = "pixdim",
) -> Cohort:
    """The MMWHS cases below `root`, sorted by name; every case is a patient of its own.

    Args:
        root: data folder, searched recursively.
        modality: "ct" or "mr" alone; None takes both.
        name: of the cohort.
        spacing_rule: what holds where a header's pixdim and affine disagree.

    Raises:
        InputError: no such folder, nothing of that layout in it, a training image without its label, a label without
            its image, a file that occurs twice, or a bad header.
    """
    if modality not in (None, "ct", "mr"):
        raise InputError(f"modality {modality!r}: must be ct, mr or null for both")
    folder = existing_folder(root, EXPECTED)
    images, labels = _files(folder, modality)
    if not images:
        kind = f" of modality {modality}" if modality else ""
        raise InputError(f"{folder}: no MMWHS images{kind} found; it should be {EXPECTED}")
    for case in labels.keys() - images.keys():
        raise InputError(f"{labels[case]}: image {case}_image.nii.gz is missing anywhere below {folder}")
    cases = tuple(_case(case_id, images[case_id], labels.get(case_id), folder) for case_id in sorted(images))
    return checked(Cohort(name, cases, MMWHS, spacing_rule))


def _files(folder: Path, modality: Modality | None) -> tuple[dict[str, Path], dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {"image": {}, "label": {}}
    for path in sorted(folder.rglob("*.nii*")):
        match = _FILE.fullmatch(path.name)
        if match is None or (modality and match["modality"] != modality):
            continue
        first = found[match["what"]].setdefault(match["case"], path)
        if first != path:
            raise InputError(f"{path}: the same case is also at {first}; remove one of them")
    return found["image"], found["label"]


def _case(case_id: str, image: Path, label: Path | None, folder: Path) -> Case:
    if label is None and "_train_" in case_id:
        raise InputError(
            f"{image}: label file {case_id}_label.nii.gz is missing anywhere below {folder}; add it or remove the image"
        )
    return Case(case_id, case_id, "ct" if case_id.startswith("ct") else "mr", image, label)
