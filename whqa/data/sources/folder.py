"""Reader of a plain folder of image/label pairs with a stated label scheme.

Two patterns pair the files: what `*` stands for in the image pattern names the case and replaces `*` in the label
pattern. `*_image.nii.gz` / `*_label.nii.gz` lie side by side; `imagesTr/*_0000.nii.gz` / `labelsTr/*.nii.gz` is
nnU-Net's layout; `*/ct.nii.gz` / `*/label.nii.gz` is one folder a case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from whqa.data.case import Case, Cohort, Modality, SpacingRule
from whqa.data.sources.checks import existing_folder
from whqa.errors import InputError
from whqa.structures import LabelScheme, label_scheme


def read_folder(
    root: str | Path | None,
    image: str = "*_image.nii.gz",
    label: str | None = "*_label.nii.gz",
    *,
    scheme: str | Mapping[str, int] | LabelScheme,
    modality: Modality = "mr",
    name: str = "folder",
    patient: str | None = None,
    spacing_rule: SpacingRule = "pixdim",
) -> Cohort:
    """The cases of a folder, sorted by name.

    Args:
        root: data folder.
        image: pattern of the images relative to `root`, with one `*`.
        label: pattern of the label maps, with one `*`; None for unlabelled cases.
        scheme: a scheme's name ("mmwhs", "acdc") or structure -> file value.
        modality: "ct" or "mr", of all cases.
        name: of the cohort.
        patient: regular expression searched in the case name; its first group (or the whole match) is the patient,
            for several scans of one person. None: every case is a patient of its own.
        spacing_rule: what holds where a header's pixdim and affine disagree.

    Raises:
        InputError: no such folder, no images, or a bad pattern. An image without its label is a problem of the cohort.
    """
    expected = f"a folder with images {image}" + (f" and label maps {label}" if label else "")
    if modality not in ("ct", "mr"):
        raise InputError(f"modality {modality!r}: must be ct or mr")
    for pattern in (image, label):
        if pattern is not None and (pattern.count("*") != 1 or Path(pattern).is_absolute()):
            raise InputError(f"file pattern {pattern!r}: must be relative to the data folder and hold one * (the case)")
    folder = existing_folder(root, expected)
    images = _matches(folder, image, label)
    if not images:
        raise InputError(f"{folder}: no images {image} found; it should be {expected}")
    problems: list[str] = []
    cases = tuple(
        Case(key, _patient(key, patient), modality, path, _label(folder, key, path, label, problems))
        for key, path in sorted(images.items())
    )
    return Cohort(name, cases, label_scheme(scheme), spacing_rule, tuple(problems))


def _matches(folder: Path, pattern: str, other: str | None) -> dict[str, Path]:
    """Case name -> path. A wide image pattern such as `*.nii.gz` does not take the label maps for images."""
    found = {}
    for path in folder.glob(pattern):
        inside = path.relative_to(folder).as_posix()
        key = _key(inside, pattern)
        owner = _key(inside, other) if other else None
        is_label = owner is not None and (folder / pattern.replace("*", owner)).is_file()
        if key and not key.startswith(".") and not is_label:
            found[key] = path
    return found


def _key(inside: str, pattern: str) -> str | None:
    before, after = (re.escape(part) for part in Path(pattern).as_posix().split("*"))
    match = re.fullmatch(f"{before}([^/]+){after}", inside)
    return match[1] if match else None


def _label(folder: Path, key: str, image: Path, pattern: str | None, problems: list[str]) -> Path | None:
    if pattern is None:
        return None
    path = folder / pattern.replace("*", key)
    if not path.is_file():
        problems.append(f"{image}: label file {path} is missing; add it, remove the image or correct the pattern")
        return None
    return path


def _patient(key: str, pattern: str | None) -> str:
    if pattern is None:
        return key
    try:
        match = re.search(pattern, key)
    except re.error as error:
        raise InputError(f"patient pattern {pattern!r}: not a regular expression ({error})") from None
    if match is None:
        raise InputError(f"case {key}: the patient pattern {pattern!r} finds nothing in its name")
    return match[1] if match.groups() else match[0]
