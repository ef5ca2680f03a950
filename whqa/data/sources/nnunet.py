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

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from whqa.data.case import Cohort, Modality
from whqa.data.formats.file_names import VOLUME_ENDINGS, stem
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
    files = _Files(folder, _ending(description, path), number, links)
    files.add_folders(parts, described="dataset" in description)
    if parts is None or "Tr" in parts:
        if "dataset" in description:
            files.add_dataset(entry(description, "dataset", dict, path))
        files.problems += count_problems(description, files.n_training, path)
    files.pass_over_other_channels()
    cases = files.cases(kind, partial(patient_of, pattern=patient))
    return files.cohort(cases, name, scheme, spacing_rule, without, among=FOLDERS)


class _Files(CaseFiles):
    """Images and labels of the folders and of the description; `n_training` cases are of Tr."""

    def __init__(self, folder: Path, ending: str, channel: int, links: bool) -> None:
        super().__init__(list_files(folder, depth=1), EXPECTED)
        self.ending, self.channel, self.links = ending, channel, links
        self.n_training = 0

    def add_folders(self, parts: Sequence[str] | None, described: bool) -> None:
        """Add the cases of the images* folders; Tr is left to `add_dataset` where it is described."""
        there = sorted({m[1] for inside in self.listing.files if (m := re.match(r"images(\w+)/", inside))})
        for part in parts or []:
            if part not in there and not (described and part == "Tr"):
                raise InputError(f"{self.folder}: has no images in images{part}; data.parts can be of {there}")
        for part in there:
            if parts is not None and part not in parts:
                for what in ("images", "labels"):
                    self.passed_over.update(self.listing.within(f"{what}{part}").values())
            elif not (described and part == "Tr"):
                self._add_part(part)

    def _add_part(self, part: str) -> None:
        labels = self._by_stem(f"labels{part}")
        channels: dict[str, dict[int, Path]] = {}
        for name, path in self._by_stem(f"images{part}").items():
            match = re.fullmatch(r"(.+)_(\d{4})", name)
            if match:
                channels.setdefault(match[1], {})[int(match[2])] = path
            else:
                self.tell_about(path, f"name does not end in _0000{self.ending} (the channel); rename it")
        for case, images in channels.items():
            label = labels.pop(case, None)
            if self.channel not in images:
                first = next(iter(images.values()))
                self.tell(f"{first}: file {case}_{self.channel:04}{self.ending} of the channel is missing", case)
                self.passed_over.update(images.values(), filter(None, [label]))
                continue
            elsewhere = case in self.images
            self.add("image", case, self._inside(images[self.channel]))
            if elsewhere:
                self.passed_over.update(filter(None, [label]))
                continue
            self.n_training += part == "Tr"
            if label is not None:
                self.add("label", case, self._inside(label))
            elif part == "Tr":
                line = f"{images[self.channel]}: label file labelsTr/{case}{self.ending} is missing"
                self.tell(f"{line}; add it or remove the image", case)
        for case, path in labels.items():
            self.tell_about(path, f"has no image in images{part}; add it or remove the label", case)

    def _by_stem(self, folder: str) -> dict[str, Path]:
        """The volumes of a folder that have the stated ending; the others are problems."""
        found: dict[str, Path] = {}
        for file, path in self.listing.within(folder).items():
            name = stem(file)
            if file[len(name) :].lower() != self.ending.lower():
                line = f"does not end in {self.ending}, which {FILE_NAME} states as 'file_ending'; convert or remove it"
                self.tell_about(path, line, re.sub(r"_\d{4}$", "", name) if folder.startswith("images") else name)
            elif found.setdefault(name, path) != path:
                self.tell_about(path, f"has the name of {found[name].name} in other letters; remove one", name)
        return found

    def tell_about(self, path: Path, line: str, *cases: str) -> None:
        """Add a problem about a volume that becomes no part of a case."""
        self.tell(f"{path}: {line}", *cases)
        self.passed_over.add(path)

    def _inside(self, path: Path) -> Path:
        return stay_inside(self.folder, path, path.relative_to(self.folder).as_posix(), self.links)

    def add_dataset(self, dataset: Mapping[str, Any]) -> None:
        """Add the cases that dataset.json lists itself."""
        path = self.folder / FILE_NAME
        for case, stated in dataset.items():
            where = f"'dataset': {short(case)!r}"
            stated = typed(stated, dict, path, where)
            images = entry(stated, "images", list, path, where)
            if self.channel >= len(images):
                raise InputError(f"{path}: {where}: has {len(images)} image(s), none for channel {self.channel}")
            paths = [described_file(self.folder, text, where, self.links) for text in images]
            label = described_file(self.folder, entry(stated, "label", str, path, where), where, self.links)
            before = len(self.images)
            self.add_described(f"{path}: {where}", case, paths[self.channel], label)
            self.n_training += len(self.images) - before
            self.passed_over.update(paths)


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
