"""Reader of the TotalSegmentator data set, version 1: a file a structure.

    meta.csv                                          image_id;age;gender;institute;study_type;split
    s0000/ct.nii.gz
          segmentations/heart_ventricle_left.nii.gz   104 binary masks, of which these seven are read:
                        heart_ventricle_right.nii.gz
                        heart_atrium_left.nii.gz
                        heart_atrium_right.nii.gz
                        heart_myocardium.nii.gz
                        aorta.nii.gz                  whole, down to the abdomen
                        pulmonary_artery.nii.gz
    s0001/...

All 104 files are there in every subject, empty where the scan does not show the structure; a CT of the leg has no
heart. Reading such a reference says so; leave those subjects out with `without` or choose with `subjects`. Where masks
overlap, the structure that is later in the list above wins. A subject is taken for a patient: meta.csv names no people.
Version 2 of the data set has the heart as one structure and cannot be read.

Source: Wasserthal et al., Radiology: Artificial Intelligence 2023;5(5):e230024; 1204 CT, CC BY 4.0, zenodo 6802614.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from whqa.data.case import Case, Cohort
from whqa.data.formats.file_names import VOLUME_ENDINGS, stem
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.case_files import CaseFiles
from whqa.data.sources.checks import existing_folder
from whqa.data.sources.choice import Names, names_left_out, of_cases, read_text, stated_names, stating
from whqa.data.sources.listing import Listing, list_files
from whqa.errors import InputError
from whqa.structures import TOTALSEGMENTATOR_V1

EXPECTED = "a folder with s0000/ct.nii.gz and s0000/segmentations/heart_ventricle_left.nii.gz and so on"
FILES = {
    "lv": "heart_ventricle_left",
    "rv": "heart_ventricle_right",
    "la": "heart_atrium_left",
    "ra": "heart_atrium_right",
    "myo": "heart_myocardium",
    "ao": "aorta",
    "pa": "pulmonary_artery",
}


def read_totalsegmentator(
    root: str | Path | None,
    subjects: Names | None = None,
    without: Names | None = None,
    split: str | None = None,
    name: str = "totalsegmentator",
    spacing_rule: SpacingRule = "pixdim",
) -> Cohort:
    """The subjects of the data set, sorted by name.

    Args:
        root: data folder; the subjects' folders lie in it or one level below.
        subjects: names to read, as a list or as a text file with one a line; None takes all.
        without: names to leave out, alike; those of a text file need not be there.
        split: "train", "val" or "test" of meta.csv alone; None takes all.
        name: of the cohort.
        spacing_rule: what holds where a header's pixdim and affine disagree.

    Returns:
        A cohort whose references come in parts. A subject without a folder `segmentations` is unlabelled.

    Raises:
        InputError: no such folder, no subjects in it, other volumes in place of segmentations, a name that is not
            there, or a split that meta.csv does not have. A subject with `segmentations` that lack some of the seven
            files is a problem of the cohort.
    """
    files = CaseFiles(
        list_files(existing_folder(root, EXPECTED), depth=3, endings=(*VOLUME_ENDINGS, "meta.csv")), EXPECTED
    )
    volumes = {stem(inside): path for inside, path in files.listing.files.items()}
    places = _places(files, volumes)
    what = "TotalSegmentator subjects"
    if not places:
        return files.cohort((), name, TOTALSEGMENTATOR_V1, spacing_rule, None, what=what)
    others = [inside for inside in volumes if inside.rpartition("/")[2] != "ct"]
    if others and not any("segmentations/" in inside for inside in others):
        raise InputError(
            f"{files.folder}: no subject has a folder segmentations, and other volumes lie beside ct.nii.gz; if one of "
            "them is the label map, take the source folder with 'image=*/ct.nii.gz' 'label=*/label.nii.gz' "
            "'scheme={lv:1,myo:2}'"
        )
    chosen = _chosen(places, subjects, without, files.folder, name)
    if split is not None:
        chosen &= _of_split(files.listing, split)
    if not chosen:
        raise InputError(f"{files.folder}: no subject is left by data.subjects, data.without and data.split")
    files.problems = [problem for problem in files.problems if not of_cases(problem, places.keys() - chosen)]
    cases = [_case(files, volumes, subject, places[subject]) for subject in sorted(chosen)]
    return files.cohort(cases, name, TOTALSEGMENTATOR_V1, spacing_rule, None, what=what)


def _places(files: CaseFiles, volumes: Mapping[str, Path]) -> dict[str, str]:
    """Subject -> its folder relative to the root; `volumes` are by path without ending."""
    places: dict[str, str] = {}
    for inside, path in volumes.items():
        place, _, file = inside.rpartition("/")
        if file == "ct" and place and place.count("/") <= 1:
            files.passed_over.add(path)
            subject = place.rpartition("/")[2]
            if places.setdefault(subject, place) != place:
                line = f"{path}: subject {subject} is also at {files.folder / places[subject]}; remove one of them"
                files.tell(line, subject)
        elif place.endswith("/segmentations"):
            files.passed_over.add(path)
    return places


def _case(files: CaseFiles, volumes: Mapping[str, Path], subject: str, place: str) -> Case:
    image = volumes[f"{place}/ct"]
    folder = image.parent / "segmentations"
    found = {key: volumes.get(f"{place}/segmentations/{file}") for key, file in FILES.items()}
    parts = {key: path for key, path in found.items() if path is not None}
    missing = [FILES[key] for key in FILES if key not in parts]
    if missing and os.path.isdir(folder):
        line = f"{folder}: {missing[0]}.nii.gz is missing ({len(parts)} of {len(FILES)} structure files are there)"
        if not parts.keys() - {"ao"} and f"{place}/segmentations/heart" in volumes:
            line += "; version 2 of the data set has the heart as one structure, take version 1"
        else:
            line += f"; copy it, or leave the subject out with {stating('data.without', subject)}"
        files.tell(line, subject)
    return Case(subject, subject, "ct", image, parts=parts)


def _chosen(
    places: Iterable[str],
    subjects: Names | None,
    without: Names | None,
    folder: Path,
    name: str,
) -> set[str]:
    there = set(places)
    wanted = there if subjects is None else stated_names(subjects, there, "data.subjects")
    unknown = sorted(wanted - there)
    if unknown:
        raise InputError(f"{folder}: has no subject {unknown[0]!r} ({len(unknown)} of data.subjects are not there)")
    return wanted - names_left_out(without, there, name)


def _of_split(listing: Listing, split: str) -> set[str]:
    """Names that meta.csv gives to a part of the data set."""
    path = next((p for p in listing.files.values() if p.name == "meta.csv"), listing.root / "meta.csv")
    text = read_text(path, "data.split needs it; leave data.split at null or add it")
    lines = text.splitlines()
    try:
        table = csv.reader(lines, delimiter=";" if lines and ";" in lines[0] else ",", skipinitialspace=True)
        heads, *values = [[value.strip() for value in row] for row in table if row] or [[]]
    except csv.Error as error:
        raise InputError(f"{path}: not readable as a table ({error}); download it again") from None
    rows = [dict(zip(heads, row, strict=False)) for row in values]
    if not {"image_id", "split"} <= set(heads):
        raise InputError(f"{path}: has no columns image_id and split; leave data.split at null or download it again")
    known = {row["split"] for row in rows if row.get("split")}
    if split not in known:
        raise InputError(f"{path}: has no split {split!r}; there are {', '.join(sorted(known))[:200]}")
    return {row["image_id"] for row in rows if row.get("split") == split}
