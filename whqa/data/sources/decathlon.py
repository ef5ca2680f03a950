"""Reader of a task of the Medical Segmentation Decathlon, and of nnU-Net v1, which took its description over.

    Task02_Heart/dataset.json
                 imagesTr/la_003.nii.gz        nnU-Net v1 adds the channel: la_003_0000.nii.gz
                 labelsTr/la_003.nii.gz
                 imagesTs/la_001.nii.gz        no labels

    {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "left atrium"}, "numTraining": 1,
     "training": [{"image": "./imagesTr/la_003.nii.gz", "label": "./labelsTr/la_003.nii.gz"}],
     "test": ["./imagesTs/la_001.nii.gz"]}

A list "validation" like "training" is read too (MONAI writes one). The listed files are the data set: others in the
folder are passed over, and all must lie in the folder, also those that links lead to.

Source: Antonelli et al., Nature Communications 2022;13:4128, and the dataset.json of its tasks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from whqa.data.case import Cohort, Modality
from whqa.data.formats.file_names import VOLUME_ENDINGS, is_volume, stem
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.case_files import CaseFiles
from whqa.data.sources.choice import Names
from whqa.data.sources.dataset_json import FOLDERS, STATE_STRUCTURES, Description, read_by, short
from whqa.data.sources.folder import patient_of
from whqa.data.sources.listing import list_files
from whqa.data.sources.names import scheme_of_names
from whqa.errors import InputError

EXPECTED = "a task of the Medical Decathlon: dataset.json beside imagesTr/ and labelsTr/"


def read_decathlon(
    root: str | Path | None,
    *,
    structures: Mapping[str, str | None] | None = None,
    channel: int | str | None = None,
    modality: Modality | None = None,
    patient: str | None = None,
    links: bool = False,
    without: Names | None = None,
    name: str = "decathlon",
    spacing_rule: SpacingRule = "pixdim",
) -> Cohort:
    """The cases of a Decathlon task, sorted by name.

    Args:
        root: folder with dataset.json.
        channel: number or name of the channel to read, where each has a file of its own (nnU-Net v1).
        structures, modality, patient, links, without, name, spacing_rule: as of
            `whqa.data.sources.nnunet.read_nnunet`.

    Raises:
        InputError: no such folder, a description that is malformed or leads out of the folder, or no images. A listed
            file that is missing, a case that is listed twice, and another number of cases than stated, are problems of
            the cohort.
    """
    description = Description(root, EXPECTED, links)
    if "modality" not in description.content and "channel_names" in description.content:
        raise InputError(f"{description.path}: is of nnU-Net v2; {read_by('nnunet')}", code="other-source")
    number, kind = description.channel("modality", channel, modality)
    scheme = scheme_of_names(name, _labels(description), structures, str(description.path), STATE_STRUCTURES)
    files = CaseFiles(list_files(description.folder, depth=1), EXPECTED)
    listed = list(_entries(description))
    if not listed:
        raise InputError(f"{description.path}: lists no cases; it should be of {EXPECTED}")
    files.problems += description.count_problems(sum(where.startswith("'training'") for where, _ in listed))
    for where, stated in listed:
        image = _image(description, stated["image"], where, number)
        # all channels in one file, which those of one channel are taken for
        files.passed_over.add(description.file(stated["image"], where))
        label = description.file(stated["label"], where) if "label" in stated else None
        case = stem(image.name).removesuffix(f"_{number:04}")
        files.add_described(f"{description.path}: {where}", case, image, label)
    files.pass_over_other_channels()
    cases = files.cases(kind, partial(patient_of, pattern=patient))
    return files.cohort(cases, name, scheme, spacing_rule, without, among=FOLDERS)


def _labels(description: Description) -> dict[str, int]:
    labels: dict[str, int] = {}
    for number, text in description.entry("labels", dict).items():
        if isinstance(text, int | list) and not re.fullmatch(r"\d+", number):
            line = f"'labels' are name: value, as in nnU-Net v2; {read_by('nnunet')}"
            raise InputError(f"{description.path}: {line}")
        value = description.number(number, "'labels'")
        theirs = description.typed(text, str, f"'labels': {number!r}")
        if labels.setdefault(theirs, value) != value:
            line = f"'labels': {short(theirs)!r} has two values; give each its own name"
            raise InputError(f"{description.path}: {line}")
    return labels


def _entries(description: Description) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each listed case: where it stands, and its files by "image" and "label"."""
    for key in ("training", "validation", "test"):
        if key not in description.content and key != "training":
            continue
        for index, files in enumerate(description.entry(key, list)):
            where = f"{key!r}, entry {index}"
            if key == "test" and isinstance(files, str):
                files = {"image": files}
            files = description.typed(files, dict, where)
            wanted = ("image",) if key == "test" else ("image", "label")
            for what in wanted:
                description.entry(what, str, files, where)
            yield where, files


def _image(description: Description, text: str, where: str, channel: int) -> Path:
    stated = description.file(text, where)
    if not is_volume(stated.name):
        line = f"{short(stated.name)!r} does not end in {', '.join(VOLUME_ENDINGS)}"
        raise InputError(f"{description.path}: {where}: {line}")
    several = len(description.content["modality"]) > 1
    if not several and os.path.isfile(stated):
        return stated
    bare = stem(stated.name)
    split = f"{bare}_{channel:04}{stated.name[len(bare) :]}"
    own = description.file((stated.parent.relative_to(description.folder) / split).as_posix(), where)
    if os.path.isfile(own):
        return own
    if several and os.path.isfile(stated):
        raise InputError(
            f"{description.path}: {where}: several channels lie in one 4-D file; split it into files of one channel, "
            "such as _0000.nii.gz"
        )
    return stated
