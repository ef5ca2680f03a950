"""Reader of ACDC (short-axis cine MR), as its organisers hand it out or as a flat folder; it sees which of the two.

    database/training/patient001/Info.cfg                          ED: 1, ES: 12, Group: DCM, ...
                                 patient001_4d.nii.gz              the whole cine, not read
                                 patient001_frame01.nii.gz
                                 patient001_frame01_gt.nii.gz
                                 patient001_frame12.nii.gz
                                 patient001_frame12_gt.nii.gz
             testing/patient101/...                                labels in later downloads only

`Info.cfg` says which frame is end diastole (ED) and which end systole (ES): cases patient001_ED and patient001_ES of
one patient. Other frames are passed over. The flat folder holds one frame a patient, whichever it is:

    patient001_image.nii.gz
    patient001_label.nii.gz

Names may be in capitals and end in .nii; other names are passed over. Labels: 1 RV cavity, 2 myocardium, 3 LV cavity.
The headers contradict themselves (affine 1 mm, pixdim right).
Source: Bernard et al., IEEE Trans Med Imaging 2018;37:2514-2525, and the readme of the download.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from whqa.data.case import Case, Cohort, Problem
from whqa.data.formats.file_names import VOLUME_ENDINGS, stem
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.case_files import CaseFiles
from whqa.data.sources.checks import existing_folder
from whqa.data.sources.choice import Names
from whqa.data.sources.listing import Listing, list_files, same_file
from whqa.errors import InputError
from whqa.files import remedy_of
from whqa.structures import ACDC

EXPECTED = (
    "a folder with patient001/Info.cfg, patient001/patient001_frame01.nii.gz and ..._frame01_gt.nii.gz (official), or "
    "with patient001_image.nii.gz and patient001_label.nii.gz (flat)"
)
FRAMES = ("ED", "ES")
_FILE = re.compile(r"(?P<patient>patient\d+)_frame(?P<frame>\d+)(?P<label>_gt)?", re.IGNORECASE)
_FLAT = re.compile(r"(?P<patient>patient\d+)_(?P<what>image|label)", re.IGNORECASE)
_CINE = re.compile(r"patient\d+_4d", re.IGNORECASE)
_LONGEST_INFO = 1 << 16


def read_acdc(
    root: str | Path | None,
    frames: str = "both",
    name: str = "acdc",
    spacing_rule: SpacingRule = "pixdim",
    without: Names | None = None,
) -> Cohort:
    """The ACDC cases below `root`, sorted by name.

    Args:
        root: data folder, searched with all its sub-folders.
        frames: "both", "ED" or "ES", of the official layout.
        name: of the cohort.
        spacing_rule: what holds where a header's pixdim and affine disagree.
        without: case names to leave out, see `whqa.data.sources.choice.leave_out`.

    Raises:
        InputError: no such folder, or nothing of either layout in it. A missing or odd Info.cfg, a frame or a label
            that is missing (outside `testing`) and a file that occurs twice are problems of the cohort; patients
            without a readable Info.cfg are listed by frame numbers.
    """
    if frames not in ("both", *FRAMES):
        raise InputError(f"frames {frames!r}: must be both, ED or ES")
    files = CaseFiles(list_files(existing_folder(root, EXPECTED), endings=(*VOLUME_ENDINGS, "info.cfg")), EXPECTED)
    flat = _flat(files.listing)
    patients = _patients(files)
    if patients and flat.images:
        raise InputError(
            f"{files.folder}: holds both layouts of ACDC, official and flat; state the folder of one of them",
            code="both-layouts",
        )
    if flat.images and frames != "both":
        raise InputError(f"{files.folder}: files of the flat layout do not tell their frame; leave data.frames=both")
    if flat.images:
        flat.tell_unpaired()
        return flat.cohort(flat.cases("mr"), name, ACDC, spacing_rule, without, among="[^/]+$")
    wanted = FRAMES if frames == "both" else (frames,)
    cases = [case for patient in patients for case in _cases(patient, wanted, files.problems)]
    return files.cohort(cases, name, ACDC, spacing_rule, without, what="ACDC images")


@dataclass
class _Patient:
    name: str
    folder: Path
    test: bool
    info: Path | None = None
    images: dict[int, Path] = field(default_factory=dict)
    labels: dict[int, Path] = field(default_factory=dict)
    doubled: list[tuple[int, str]] = field(default_factory=list)


def _flat(listing: Listing) -> CaseFiles:
    """The files of the flat layout."""
    flat = CaseFiles(listing, EXPECTED)
    for path in flat.listing.within("").values():
        match = _FLAT.fullmatch(stem(path.name))
        if match:
            flat.add(match["what"], match["patient"].lower(), path)
    return flat


def _patients(files: CaseFiles) -> list[_Patient]:
    """The patients of the official layout, by name."""
    found: dict[str, _Patient] = {}
    infos: dict[Path, Path] = {}
    for inside, path in files.listing.files.items():
        if path.name.lower() == "info.cfg":
            infos[path.parent] = path
        if _CINE.fullmatch(stem(path.name)):
            files.passed_over.add(path)
        match = _FILE.fullmatch(stem(path.name))
        if match is None:
            continue
        files.passed_over.add(path)
        name = match["patient"].lower()
        above = (files.folder.resolve().name, *inside.split("/"))
        patient = found.setdefault(name, _Patient(name, path.parent, "testing" in map(str.lower, above)))
        first = (patient.labels if match["label"] else patient.images).setdefault(int(match["frame"]), path)
        if not same_file(first, path):
            line = f"{path}: the same frame is also at {first}; remove one of them"
            patient.doubled.append((int(match["frame"]), line))
    for patient in found.values():
        # of a folder of the patient's name elsewhere only where the frames' own has none
        elsewhere = [folder for folder in infos if folder.name.lower() == patient.name]
        place = patient.folder if patient.folder in infos or len(elsewhere) != 1 else elsewhere[0]
        patient.info = infos.pop(place, None)
    files.problems += [
        f"{path}: no frames {folder.name}_frame01.nii.gz lie beside it; download the patient again or remove the folder"
        for folder, path in sorted(infos.items())
        if re.fullmatch(r"patient\d+", folder.name.lower())
    ]
    return [found[name] for name in sorted(found)]


def _cases(patient: _Patient, wanted: tuple[str, ...], problems: list[str]) -> list[Case]:
    numbers, odd = _frame_numbers(patient, wanted)
    names = {number: f"{patient.name}_{suffix}" for suffix, number in numbers.items()}
    if odd:
        problems.append(Problem(odd, *names.values()))
    cases = []
    for suffix, number in numbers.items():
        if number not in patient.images:
            line = f"{patient.info}: frame {number} ({suffix}) has no image {_frame_file(patient, number)}"
            problems.append(Problem(line, names[number]))
            continue
        image, label = patient.images[number], patient.labels.get(number)
        if label is None and not patient.test:
            line = f"{image}: label file {_frame_file(patient, number, '_gt')} is missing; add it or remove the patient"
            problems.append(Problem(line, names[number]))
        cases.append(Case(names[number], patient.name, "mr", image, label))
    problems += _superfluous(patient, names)
    return cases


def _superfluous(patient: _Patient, names: dict[int, str]) -> list[str]:
    """Problems of frames, which those that are no case share with all cases of the patient."""
    alone = sorted(patient.labels.keys() - patient.images.keys() - names.keys())
    lines = [
        *((n, f"{patient.labels[n]}: image {_frame_file(patient, n)} is missing; add it") for n in alone),
        *patient.doubled,
    ]
    return [Problem(line, *([names[n]] if n in names else names.values())) for n, line in lines]


def _frame_file(patient: _Patient, number: int, what: str = "") -> str:
    return f"{patient.name}_frame{number:02}{what}.nii.gz"


def _frame_numbers(patient: _Patient, wanted: tuple[str, ...]) -> tuple[dict[str, int], str]:
    """ED and ES -> frame number; without a readable Info.cfg all frames by number, and what is wrong with it."""
    every = {f"frame{number:02}": number for number in sorted(patient.images)}
    if patient.info is None:
        return every, f"{patient.folder}: Info.cfg is missing; it says which frames of {patient.name} are ED and ES"
    try:
        with open(patient.info, encoding="utf-8-sig", errors="replace") as stream:
            text = stream.read(_LONGEST_INFO)
    except OSError as error:
        return every, f"{patient.info}: not readable ({error.strerror}); {remedy_of(error, patient.info)}"
    stated = dict(re.findall(r"^\s*(ED|ES)\s*:\s*(\d{1,6})\s*$", text, re.MULTILINE))
    if set(stated) != set(FRAMES) or int(stated["ED"]) == int(stated["ES"]):
        return every, f"{patient.info}: must state two frames in lines such as 'ED: 1' and 'ES: 12'; correct it"
    return {key: int(stated[key]) for key in wanted}, ""
