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
from whqa.data.sources.checks import existing_folder
from whqa.data.sources.choice import Names
from whqa.data.sources.dataset_json import (
    FILE_NAME,
    FOLDERS,
    channel_of,
    count_problems,
    described_file,
    entry,
    modality_of_channel,
    numbered,
    read_description,
    short,
    typed,
)
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
        structures: their label name -> our structure key, None for background; see
            `whqa.data.sources.names.scheme_of_names`. None goes by the usual names.
        channel: number or name of the channel to read, where each has a file of its own (nnU-Net v1).
        modality: "ct" or "mr"; None goes by the channel's name.
        patient: regular expression for the patient in a case's name, see `whqa.data.sources.folder.read_folder`.
        links: whether links may lead out of the folder.
        without: case names to leave out, see `whqa.data.sources.choice.leave_out`.
        name: of the cohort.
        spacing_rule: what holds where a header's pixdim and affine disagree.

    Raises:
        InputError: no such folder, a description that is malformed or leads out of the folder, or no images. A listed
            file that is missing, a case that is listed twice, and another number of cases than stated, are problems of
            the cohort.
    """
    folder = existing_folder(root, EXPECTED)
    path = folder / FILE_NAME
    description = read_description(folder, EXPECTED, links)
    if "modality" not in description and "channel_names" in description:
        raise InputError(f"{path}: is of nnU-Net v2; read it with --source nnunet", code="other-source")
    number, channel_name = channel_of(description, "modality", channel, path)
    kind = modality_of_channel(modality, channel_name, path)
    scheme = scheme_of_names(name, _labels(description, path), structures, str(path))
    several = len(description["modality"]) > 1
    files = CaseFiles(list_files(folder, depth=1), EXPECTED)
    listed = list(_entries(description, path))
    if not listed:
        raise InputError(f"{path}: lists no cases; it should be of {EXPECTED}")
    files.problems += count_problems(description, sum(where.startswith("'training'") for where, _ in listed), path)
    for where, entry_files in listed:
        image = _image(folder, entry_files, where, number, several, links)
        label = described_file(folder, entry_files["label"], where, links) if "label" in entry_files else None
        files.add_described(f"{path}: {where}", stem(image.name).removesuffix(f"_{number:04}"), image, label)
    cases = files.cases(kind, partial(patient_of, pattern=patient))
    files.pass_over_other_channels()
    return files.cohort(cases, name, scheme, spacing_rule, without, among=FOLDERS)


def _labels(description: Mapping[str, Any], path: Path) -> dict[str, int]:
    labels: dict[str, int] = {}
    for number, text in entry(description, "labels", dict, path).items():
        if isinstance(text, int | list) and not re.fullmatch(r"\d+", number):
            raise InputError(f"{path}: 'labels' are name: value, as in nnU-Net v2; use --source nnunet")
        value = numbered(number, path, "'labels'")
        theirs = typed(text, str, path, f"'labels': {number!r}")
        if labels.setdefault(theirs, value) != value:
            raise InputError(f"{path}: 'labels': {short(theirs)!r} has two values; give each its own name")
    return labels


def _entries(description: Mapping[str, Any], path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each listed case: where it stands, and its files by "image" and "label"."""
    for key in ("training", "validation", "test"):
        if key not in description and key != "training":
            continue
        for index, files in enumerate(entry(description, key, list, path)):
            where = f"{key!r}, entry {index}"
            if key == "test" and isinstance(files, str):
                files = {"image": files}
            files = typed(files, dict, path, where)
            wanted = ("image",) if key == "test" else ("image", "label")
            for what in wanted:
                entry(files, what, str, path, where)
            yield where, files


def _image(folder: Path, files: Mapping[str, Any], where: str, channel: int, several: bool, links: bool) -> Path:
    stated = described_file(folder, files["image"], where, links)
    if not is_volume(stated.name):
        raise InputError(
            f"{folder / FILE_NAME}: {where}: {short(stated.name)!r} does not end in {', '.join(VOLUME_ENDINGS)}"
        )
    if not several and os.path.isfile(stated):
        return stated
    bare = stem(stated.name)
    split = f"{bare}_{channel:04}{stated.name[len(bare) :]}"
    own = described_file(folder, (stated.parent.relative_to(folder) / split).as_posix(), where, links)
    if os.path.isfile(own):
        return own
    if several and os.path.isfile(stated):
        raise InputError(
            f"{folder / FILE_NAME}: {where}: several channels lie in one 4-D file; split it into files of one channel, "
            "such as _0000.nii.gz"
        )
    return stated
