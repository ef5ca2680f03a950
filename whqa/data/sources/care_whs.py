"""Reader of CARE-WHS / WHS++: whole hearts of several centres, CT and MR, with the label values of MMWHS.

    CenterA/Case1001_image.nii.gz             CT of centres A, B and G
            Case1001_label.nii.gz
    CenterCD/Case3001_image.nii.gz            MR of centres C, D, E and F
    ...
    CT/site2/Case7_image.nii.gz               or the modality from a folder
    ct_train/ct_train_1001_image.nii.gz       or from the name, without centres

Known from the organisers' pages: the label values of MMWHS, the file names `<case>_image` and `<case>_label`, and which
centre has which modality (CT: A, B, G; MR: C and D, which come as one, E, F). Assumed, because the download needs
registration and was not at hand: the centre is a folder such as CenterA, Center_B or site2. A word in the file name
or the nearest folder (CT, MR, MRI) has more weight than the centre. Image and label may lie in different folders as
long as modality, centre and case are the same. Scans of different centres are taken for different people: a case is
named by modality, centre and file name, and is a patient of its own. MMWHS 2017 is part of it (A; C and D): do not mix
the two.

Source: WHS++ track of the CARE challenge, MICCAI 2024 and 2025 (zmic.org.cn/care_2024/track5), which extends MMWHS
(Zhuang et al. 2019).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from whqa.data.case import Cohort, Modality
from whqa.data.formats.file_names import stem
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.case_files import CaseFiles
from whqa.data.sources.checks import check_modality, existing_folder
from whqa.data.sources.choice import Names
from whqa.data.sources.listing import list_files
from whqa.data.sources.names import modality_of
from whqa.structures import CARE_WHS

EXPECTED = (
    "a folder with CenterA/Case1001_image.nii.gz and Case1001_label.nii.gz (CenterCD/... alike), or with "
    "ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz"
)
_FILE = re.compile(r"(?P<case>.+?)[_-](?P<what>image|label)", re.IGNORECASE)
_CENTRE = re.compile(r"(?:cent(?:er|re)|site|hospital)[ _-]*(\d+|[a-z](?:(?: ?& ?)?[a-z])?(?![a-z]))", re.IGNORECASE)
_OF_CENTRE: dict[str, Modality] = {
    **dict.fromkeys(("A", "B", "G"), "ct"),
    **dict.fromkeys(("C", "D", "CD", "E", "F"), "mr"),
}


def read_care_whs(
    root: str | Path | None,
    modality: Modality | None = None,
    name: str = "care_whs",
    spacing_rule: SpacingRule = "pixdim",
    without: Names | None = None,
) -> Cohort:
    """The cases below `root`, sorted by name.

    Args:
        root: data folder, searched with all its sub-folders.
        modality: "ct" or "mr" alone, which is then also that of files whose names and folders tell none; None takes
            both.
        name: of the cohort.
        spacing_rule: what holds where a header's pixdim and affine disagree.
        without: case names to leave out, see `whqa.data.sources.choice.leave_out`.

    Raises:
        InputError: no such folder, or no image in it whose modality is known. An image of a training folder without
            its label, a label without its image, a file that occurs twice, and a file of unknown modality are problems
            of the cohort.
    """
    check_modality(modality, or_both=True)
    files = CaseFiles(list_files(existing_folder(root, EXPECTED)), EXPECTED)
    scans: dict[str, _Scan] = {}
    for inside, path in files.listing.files.items():
        match = _FILE.fullmatch(stem(path.name))
        if match is None:
            continue
        folders = [*reversed(inside.split("/")[:-1]), files.folder.resolve().name]
        told = modality_of(match["case"], *folders) or _OF_CENTRE.get(_centre(match["case"], *folders)) or modality
        if told is None:
            line = "neither name, folders nor centre tell CT or MR; name the folder so, or set data.modality=ct or mr"
            files.problems.append(f"{path}: {line}")
        if told is None or modality not in (None, told):
            files.passed_over.add(path)
            continue
        case = _case_id(match["case"], told, folders)
        files.add(match["what"], case, path)
        training = match["what"].lower() == "image" and any("train" in t.lower() for t in (match["case"], *folders))
        scans.setdefault(case, _Scan(match["case"], told)).training |= training
    where, names = " among those of its modality and centre", {case: scan.stem for case, scan in scans.items()}
    files.tell_unpaired(lambda case: scans[case].training, where, names)
    of_kind = f" of modality {modality}" if modality else ""
    cases = files.cases(lambda case: scans[case].modality)
    return files.cohort(cases, name, CARE_WHS, spacing_rule, without, what=f"images{of_kind}")


@dataclass
class _Scan:
    """What names and folders tell of a case."""

    stem: str
    modality: Modality
    training: bool = False


def _case_id(stem: str, modality: str, folders: list[str]) -> str:
    """Modality and centre, unless the stem tells them itself, then the stem."""
    centre = "" if _centre(stem) else _centre(*folders)
    parts: list[str] = [] if modality_of(stem) else [modality]
    return "_".join([*parts, *([f"center{centre}"] if centre else []), stem])


def _centre(*texts: str) -> str:
    """As A, CD or 2, of the first text that names one; "" where none does."""
    found = next((match[1] for text in texts if (match := _CENTRE.search(text))), "")
    return re.sub(r"[ &]", "", found).upper()
