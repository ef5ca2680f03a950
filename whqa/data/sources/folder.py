"""Reader of a plain folder of image/label pairs with a stated label scheme.

Two patterns pair the files: what `*` stands for in the image pattern names the case and replaces `*` in the label
pattern.

    *_image.nii.gz           *_label.nii.gz           side by side
    images/*.nrrd            labels/*.seg.nrrd        in two folders
    */ct.nii.gz              */label.nii.gz           one folder a case
    **/*_image.mha           **/*_label.mha           in any sub-folders, image and label in the same one

With `**/` the sub-folders become part of the case's name (`siteA/p1_image.mha` is case siteA_p1). Files that a program
wrote with label values of its own are read by a scheme that maps them, see `whqa.structures.label_scheme`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from whqa.data.case import Cohort, Modality
from whqa.data.formats.file_names import VOLUME_ENDINGS
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.case_files import CaseFiles
from whqa.data.sources.checks import check_modality, existing_folder
from whqa.data.sources.choice import Names
from whqa.data.sources.listing import Listing, list_files
from whqa.errors import InputError
from whqa.structures import LabelScheme, label_scheme


def read_folder(
    root: str | Path | None,
    image: str = "*_image.nii.gz",
    label: str | None = "*_label.nii.gz",
    *,
    scheme: str | Mapping[str, Any] | LabelScheme,
    modality: Modality = "ct",
    name: str = "folder",
    patient: str | None = None,
    spacing_rule: SpacingRule = "pixdim",
    without: Names | None = None,
) -> Cohort:
    """The cases of a folder, sorted by name.

    Args:
        root: data folder.
        image: pattern of the images relative to `root`, with one `*` and at most one `**/`.
        label: pattern of the label maps, alike; None for unlabelled cases.
        scheme: a scheme's name (one of `whqa.structures.SCHEMES`), or structure -> file value or values.
        modality: "ct" or "mr", of all cases.
        name: of the cohort.
        patient: regular expression searched in the case name; its first group (or the whole match) is the patient,
            for several scans of one person. None: every case is a patient of its own.
        spacing_rule: what holds where a header's pixdim and affine disagree.
        without: case names to leave out, see `whqa.data.sources.choice.leave_out`.

    Raises:
        InputError: no such folder, no images, or a bad pattern. An image without its label is a problem of the cohort.
    """
    expected = f"a folder with images {image}" + (f" and label maps {label}" if label else "")
    check_modality(modality)
    images = _Pattern.of(image)
    labels = None if label is None else _Pattern.of(label)
    if labels and labels.nested != images.nested:
        raise InputError(f"file patterns {image!r} and {label!r}: either both or none of them begin with **/")
    depth = max(p.text.count("/") for p in (images, labels) if p)
    listing = list_files(existing_folder(root, expected), None if images.nested else depth, endings=None)
    files = CaseFiles(listing, expected)
    labelled = {} if labels is None else {labels.key(inside): path for inside, path in listing.files.items()}
    for case, (key, path) in _images(listing, images, labels).items():
        files.images[case] = path
        if labels and key in labelled:
            files.labels[case] = labelled[key]
        elif labels:
            line = f"label file {files.folder / labels.path(key)} is missing; add it, remove the image or correct the "
            line += "pattern" + (" (image and label of **/ lie in one folder)" if labels.nested else "")
            files.tell(f"{path}: {line}", case)
    cases = files.cases(modality, partial(patient_of, pattern=patient))
    return files.cohort(cases, name, label_scheme(scheme), spacing_rule, without, what=f"images {image}")


def patient_of(case: str, pattern: str | None) -> str:
    """The patient that a case's name tells: the pattern's first group that took part; without groups the whole match.

    Without a pattern it is the name itself.

    Raises:
        InputError: not a regular expression, or it finds nothing in the name.
    """
    if pattern is None:
        return case
    try:
        match = re.search(pattern, case)
    except (re.error, TypeError) as error:
        raise InputError(f"patient pattern {pattern!r}: not a regular expression ({error})") from None
    told = match and (next(filter(None, match.groups()), "") if match.groups() else match[0])
    if not told:
        raise InputError(f"case {case}: the patient pattern {pattern!r} finds nothing in its name")
    return told


@dataclass(frozen=True)
class _Pattern:
    """Where files of one kind lie; a key is the pair of what `**/` and `*` stand for."""

    text: str

    @classmethod
    def of(cls, text: str) -> _Pattern:
        """Checked."""
        stars = text.replace("**/", "", 1) if isinstance(text, str) and text.startswith("**/") else text
        if not isinstance(text, str) or stars.count("*") != 1 or Path(text).is_absolute() or ".." in Path(text).parts:
            raise InputError(
                f"file pattern {text!r}: must be relative to the data folder and hold one * (the case); "
                "it may begin with **/ (any sub-folders)"
            )
        return cls(Path(text).as_posix())

    @property
    def nested(self) -> bool:
        """Whether files may lie in any sub-folders."""
        return self.text.startswith("**/")

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        before, after = (re.escape(part) for part in self.text.removeprefix("**/").split("*"))
        ending = next((end for end in VOLUME_ENDINGS if self.text.lower().endswith(end)), "")
        if ending:
            # programs of other systems write .NII.GZ
            after = after.removesuffix(re.escape(self.text[-len(ending) :])) + f"(?i:{re.escape(ending)})"
        return re.compile(f"(?P<folders>{'(?:[^/]+/)*' if self.nested else ''}){before}(?P<name>[^/]+){after}")

    def key(self, inside: str) -> tuple[str, str] | None:
        """Of a file, or None where it is of another kind."""
        match = self._regex.fullmatch(inside)
        return (match["folders"], match["name"]) if match else None

    def path(self, key: tuple[str, str]) -> str:
        """Relative to the data folder, of the file with this key."""
        return key[0] + self.text.removeprefix("**/").replace("*", key[1])


def _images(listing: Listing, images: _Pattern, labels: _Pattern | None) -> dict[str, tuple[tuple[str, str], Path]]:
    """Case name -> key and path. A wide image pattern such as `*.nii.gz` does not take the label maps for images."""
    found: dict[str, tuple[tuple[str, str], Path]] = {}
    owners = {images.key(inside) for inside in listing.files}
    for inside, path in listing.files.items():
        key = images.key(inside)
        owner = labels.key(inside) if labels else None
        if key is None or (owner and owner in owners):
            continue
        case = "".join(key).replace("/", "_")
        if case in found:
            raise InputError(f"{path}: case {case!r} is also the name of {found[case][1]}; rename one of them")
        found[case] = key, path
    return found
