"""Reader of a raw nnU-Net v2 data set.

    Dataset001_Heart/dataset.json
                     imagesTr/case1_0000.nii.gz      _0000 is channel 0
                              case1_0001.nii.gz
                     labelsTr/case1.nii.gz
                     imagesTs/case9_0000.nii.gz      no labels, unless there is a labelsTs

    {"channel_names": {"0": "CT"}, "labels": {"background": 0, "LV": 1, "MYO": 2}, "numTraining": 1,
     "file_ending": ".nii.gz"}

Training files may be named there instead, one image a channel:

    "dataset": {"case1": {"images": ["imagesTr/case1_0000.nii.gz"], "label": "labelsTr/case1.nii.gz"}}

All files must lie in the folder, also those that links lead to. Labels that are regions (lists of values) and the
ignore label are refused: an error map needs one true structure a voxel.

Source: documentation/dataset_format.md of MIC-DKFZ/nnUNet (Isensee et al. 2021).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from whqa.data.case import Case, Cohort, Modality, Problem
from whqa.data.formats.file_names import VOLUME_ENDINGS, stem
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.checks import existing_folder
from whqa.data.sources.choice import Names, leave_out
from whqa.data.sources.dataset_json import (
    FILE_NAME,
    channel_of,
    count_problems,
    described_file,
    entry,
    modality_of_channel,
    read_description,
    short,
    stay_inside,
    typed,
)
from whqa.data.sources.folder import patient_of
from whqa.data.sources.listing import list_files
from whqa.data.sources.names import scheme_of_names
from whqa.errors import InputError

EXPECTED = "an nnU-Net v2 data set: dataset.json beside imagesTr/case_0000.nii.gz and labelsTr/case.nii.gz"


def read_nnunet(
    root: str | Path | None,
    *,
    structures: Mapping[str, str | None] | None = None,
    channel: int | str | None = None,
    modality: Modality | None = None,
    parts: Sequence[str] | None = None,
    patient: str | None = None,
    links: bool = False,
    without: Names | None = None,
    name: str = "nnunet",
    spacing_rule: SpacingRule = "pixdim",
) -> Cohort:
    """The cases of an nnU-Net v2 data set, sorted by name.

    Args:
        root: folder with dataset.json.
        structures: their label name -> our structure key, None for background; see
            `whqa.data.sources.names.scheme_of_names`. None goes by the usual names.
        channel: number or name of the channel to read; None where there is only one.
        modality: "ct" or "mr"; None goes by the channel's name.
        parts: which of the images* folders, such as ["Tr"]; None takes all. Cases of Tr must have labels.
        patient: regular expression for the patient in a case's name, see `whqa.data.sources.folder.read_folder`.
        links: whether links may lead out of the folder.
        without: case names to leave out, see `whqa.data.sources.choice.leave_out`.
        name: of the cohort.
        spacing_rule: what holds where a header's pixdim and affine disagree.

    Raises:
        InputError: no such folder, a description that is malformed, has regions or an ignore label, or leads out of
            the folder, or no images. A missing channel, image or label, and another number of cases than stated, are
            problems of the cohort.
    """
    folder = existing_folder(root, EXPECTED)
    path = folder / FILE_NAME
    parts = [parts] if isinstance(parts, str) else parts
    description = read_description(folder, EXPECTED, links)
    if "channel_names" not in description and "modality" in description:
        raise InputError(
            f"{path}: is of the Medical Decathlon or nnU-Net v1; read it with --source decathlon", code="other-source"
        )
    number, channel_name = channel_of(description, "channel_names", channel, path)
    kind = modality_of_channel(modality, channel_name, path)
    scheme = scheme_of_names(name, _labels(description, path), structures, str(path))
    reader = _Files(folder, _ending(description, path), number, links)
    found = reader.listed(parts, described="dataset" in description)
    if "dataset" in description and (parts is None or "Tr" in parts):
        reader.described(entry(description, "dataset", dict, path), found)
    if parts is None or "Tr" in parts:
        reader.problems += count_problems(description, sum(part == "Tr" for part, _, _ in found.values()), path)
    if not found:
        raise InputError(
            reader.problems[0] if reader.problems else f"{folder}: no images found; it should be {EXPECTED}"
        )
    cases = tuple(
        Case(case, patient_of(case, patient), kind, image, label) for case, (_, image, label) in sorted(found.items())
    )
    return leave_out(Cohort(name, cases, scheme, spacing_rule, tuple(reader.problems)), without)


_Found = dict[str, tuple[str, Path, Path | None]]


class _Files:
    """Finds images and labels; `problems` collects what is missing."""

    def __init__(self, folder: Path, ending: str, channel: int, links: bool) -> None:
        self.folder, self.ending, self.channel, self.links = folder, ending, channel, links
        self.listing = list_files(folder, depth=1, endings=(ending.lower(),))
        self.problems = list(self.listing.problems)

    def listed(self, parts: Sequence[str] | None, described: bool) -> _Found:
        """Case -> part, image and label, of the images* folders; Tr is left to `described` where there is that."""
        there = sorted({m[1] for inside in self.listing.files if (m := re.match(r"images(\w+)/", inside))})
        for part in parts or []:
            if part not in there and not (described and part == "Tr"):
                raise InputError(f"{self.folder}: has no images in images{part}; data.parts can be of {there}")
        found: _Found = {}
        for part in there:
            if (parts is None or part in parts) and not (described and part == "Tr"):
                self._part(part, found)
        return found

    def _part(self, part: str, found: _Found) -> None:
        labels = self.listing.within(f"labels{part}")
        channels: dict[str, dict[int, Path]] = {}
        for file, path in self.listing.within(f"images{part}").items():
            match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(self.ending)}", file)
            if match:
                channels.setdefault(match[1], {})[int(match[2])] = path
            else:
                self.problems.append(f"{path}: name does not end in _0000{self.ending} (the channel); rename it")
        for case, images in channels.items():
            label = labels.pop(case + self.ending, None)
            if self.channel not in images:
                first = next(iter(images.values()))
                self._tell(f"{first}: file {case}_{self.channel:04}{self.ending} of the channel is missing", case)
            elif case in found:
                self._tell(f"{images[self.channel]}: the same case is also at {found[case][1]}; rename one", case)
            else:
                found[case] = (part, self._inside(images[self.channel]), label and self._inside(label))
                if label is None and part == "Tr":
                    line = f"{images[self.channel]}: label file labelsTr/{case}{self.ending} is missing"
                    self._tell(f"{line}; add it or remove the image", case)
        for name, path in labels.items():
            line = f"{path}: has no image in images{part}; add it or remove the label"
            self._tell(line, stem(name))

    def _tell(self, line: str, case: str) -> None:
        self.problems.append(Problem(line, case))

    def _inside(self, path: Path) -> Path:
        return stay_inside(self.folder, path, path.relative_to(self.folder).as_posix(), self.links)

    def described(self, dataset: Mapping[str, Any], found: _Found) -> None:
        """Add the cases that dataset.json lists itself."""
        path = self.folder / FILE_NAME
        for case, files in dataset.items():
            where = f"'dataset': {short(case)!r}"
            files = typed(files, dict, path, where)
            images = entry(files, "images", list, path, where)
            if self.channel >= len(images):
                raise InputError(f"{path}: {where}: has {len(images)} image(s), none for channel {self.channel}")
            image = [described_file(self.folder, text, where, self.links) for text in images][self.channel]
            label = described_file(self.folder, entry(files, "label", str, path, where), where, self.links)
            missing = [p for p in (image, label) if not os.path.isfile(p)]
            for p in missing:
                self._tell(f"{path}: {where}: {p} is missing; add it or remove the entry", case)
            if case in found:
                self._tell(f"{image}: the same case is also at {found[case][1]}; rename one", case)
            elif image not in missing:
                found[case] = ("Tr", image, None if label in missing else label)


def _labels(description: Mapping[str, Any], path: Path) -> dict[str, int]:
    stated = entry(description, "labels", dict, path)
    labels: dict[str, int] = {}
    for theirs, value in stated.items():
        where = f"'labels': {short(theirs)!r}"
        if isinstance(value, list):
            raise InputError(f"{path}: {where} is a region of several values; whqa needs one value a structure")
        if theirs.strip().lower() == "ignore":
            raise InputError(f"{path}: has an ignore label; whqa needs the true structure of every voxel")
        if isinstance(value, str) and re.fullmatch(r"\d+", theirs):
            raise InputError(f"{path}: 'labels' are value: name, as in the Medical Decathlon; use --source decathlon")
        labels[theirs] = typed(value, int, path, where)
    return labels


def _ending(description: Mapping[str, Any], path: Path) -> str:
    ending = entry(description, "file_ending", str, path)
    if ending.lower() not in VOLUME_ENDINGS:
        raise InputError(f"{path}: 'file_ending' {short(ending)!r} is not one of {', '.join(VOLUME_ENDINGS)}")
    return ending
