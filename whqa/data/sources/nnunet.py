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

from whqa.data.case import Cohort, Modality
from whqa.data.formats.file_names import VOLUME_ENDINGS, stem
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.case_files import CaseFiles
from whqa.data.sources.choice import Names
from whqa.data.sources.dataset_json import FILE_NAME, FOLDERS, STATE_STRUCTURES, Description, read_by, short
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
    description = Description(root, EXPECTED, links)
    if "channel_names" not in description.content and "modality" in description.content:
        line = f"is of the Medical Decathlon or nnU-Net v1; {read_by('decathlon')}"
        raise InputError(f"{description.path}: {line}", code="other-source")
    number, kind = description.channel("channel_names", channel, modality)
    scheme = scheme_of_names(name, _labels(description), structures, str(description.path), STATE_STRUCTURES)
    files = _Files(description, number)
    files.add_stated_parts([parts] if isinstance(parts, str) else parts)
    cases = files.cases(kind, partial(patient_of, pattern=patient))
    return files.cohort(cases, name, scheme, spacing_rule, without, among=FOLDERS)


class _Files(CaseFiles):
    """Images and labels of the folders and of the description."""

    def __init__(self, description: Description, channel: int) -> None:
        super().__init__(list_files(description.folder, depth=1), EXPECTED)
        self.description, self.channel, self.ending = description, channel, _ending(description)

    def add_stated_parts(self, parts: Sequence[str] | None) -> None:
        """Add the cases of the parts, None for all; those of Tr as the description lists them, where it does."""
        there = sorted({m[1] for inside in self.listing.files if (m := re.match(r"images(\w+)/", inside))})
        described = "dataset" in self.description.content
        for part in parts or []:
            if part not in there and not (described and part == "Tr"):
                raise InputError(f"{self.folder}: has no images in images{part}; data.parts can be of {there}")
        training = 0
        # the description comes last: what it lists twice is its own fault
        for part in sorted({*there, "Tr"}, key=lambda part: (described and part == "Tr", part)):
            before = len(self.images)
            if parts is not None and part not in parts:
                for what in ("images", "labels"):
                    self.passed_over.update(self.listing.within(f"{what}{part}").values())
            elif described and part == "Tr":
                self._add_dataset()
            else:
                self._add_part(part)
            training += (len(self.images) - before) * (part == "Tr")
        if parts is None or "Tr" in parts:
            self.problems += self.description.count_problems(training)
        self.pass_over_other_channels()

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
        return self.description.inside(path, path.relative_to(self.folder).as_posix())

    def _add_dataset(self) -> None:
        description = self.description
        for case, stated in description.entry("dataset", dict).items():
            where = f"'dataset': {short(case)!r}"
            stated = description.typed(stated, dict, where)
            images = description.entry("images", list, stated, where)
            if self.channel >= len(images):
                line = f"has {len(images)} image(s), none for channel {self.channel}"
                raise InputError(f"{description.path}: {where}: {line}")
            paths = [description.file(text, where) for text in images]
            label = description.file(description.entry("label", str, stated, where), where)
            self.add_described(f"{description.path}: {where}", case, paths[self.channel], label)
            self.passed_over.update(paths)


def _labels(description: Description) -> dict[str, int]:
    labels: dict[str, int] = {}
    for theirs, value in description.entry("labels", dict).items():
        where = f"'labels': {short(theirs)!r}"
        if isinstance(value, list):
            raise InputError(f"{description.path}: {where} is a region of several values; whqa needs one a structure")
        if theirs.strip().lower() == "ignore":
            raise InputError(f"{description.path}: has an ignore label; whqa needs the true structure of every voxel")
        if isinstance(value, str) and re.fullmatch(r"\d+", theirs):
            line = f"'labels' are value: name, as in the Medical Decathlon; {read_by('decathlon')}"
            raise InputError(f"{description.path}: {line}")
        labels[theirs] = description.typed(value, int, where)
    return labels


def _ending(description: Description) -> str:
    ending = description.entry("file_ending", str)
    if ending.lower() not in VOLUME_ENDINGS:
        there = ", ".join(VOLUME_ENDINGS)
        raise InputError(f"{description.path}: 'file_ending' {short(ending)!r} is not one of {there}")
    return ending
