"""Reader of the MMWHS 2017 layout: names say everything, folders nothing.

    ct_train1/ct_train_1001_image.nii.gz    CT training may come in two folders, MR in one
              ct_train_1001_label.nii.gz
    ct_train2/ct_train_1011_image.nii.gz
              ...
    mr_train/mr_train_1001_image.nii.gz
             ...
    ct_test/ct_test_2001_image.nii.gz       40 CT and 40 MR without open labels
    mr_test/...

Test images are unlabelled cases. Their encrypted labels (`ct_test_2001_label_encrypt_1mm.nii.gz`) are for the
organisers' tool and are passed over, as is every other name. Both modalities may lie together or apart. Names may be in
capitals and end in .nii; a case is called by its name in small letters.

Source: Multi-Modality Whole Heart Segmentation challenge, MICCAI 2017 (Zhuang & Shen 2016; Zhuang et al. 2019): 20 CT
and 20 MR training cases of different people.
"""

from __future__ import annotations

import re
from pathlib import Path

from whqa.data.case import Cohort, Modality
from whqa.data.formats.file_names import stem
from whqa.data.formats.volume_files import SpacingRule
from whqa.data.sources.case_files import CaseFiles
from whqa.data.sources.checks import check_modality, existing_folder
from whqa.data.sources.choice import Names
from whqa.data.sources.listing import list_files
from whqa.structures import MMWHS

EXPECTED = (
    "a folder with ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz (mr_... alike, ct_test_... without "
    "labels), in subfolders or not"
)
_ENCRYPTED = re.compile(r"_label_encrypt", re.IGNORECASE)
_FILE = re.compile(r"(?P<case>(?P<modality>ct|mr)_(?P<part>train|test)_\d+)_(?P<what>image|label)", re.IGNORECASE)


def read_mmwhs(
    root: str | Path | None,
    modality: Modality | None = None,
    name: str = "mmwhs",
    spacing_rule: SpacingRule = "pixdim",
    without: Names | None = None,
) -> Cohort:
    """The MMWHS cases below `root`, sorted by name; every case is a patient of its own.

    Args:
        root: data folder, searched with all its sub-folders.
        modality: "ct" or "mr" alone; None takes both.
        name: of the cohort.
        spacing_rule: what holds where a header's pixdim and affine disagree.
        without: case names to leave out, see `whqa.data.sources.choice.leave_out`.

    Raises:
        InputError: no such folder, or nothing of that layout in it. A training image without its label, a label without
            its image and a file that occurs twice are problems of the cohort.
    """
    check_modality(modality, or_both=True)
    files = CaseFiles(list_files(existing_folder(root, EXPECTED)), EXPECTED)
    for path in files.listing.files.values():
        match = _FILE.fullmatch(stem(path.name))
        if (match and modality not in (None, match["modality"].lower())) or _ENCRYPTED.search(path.name):
            files.passed_over.add(path)
        elif match:
            files.add(match["what"], match["case"].lower(), path)
    files.tell_unpaired(lambda case: "_train_" in case, where=f" anywhere below {files.folder}")
    cases = files.cases(lambda case: "ct" if case.startswith("ct") else "mr")
    of_kind = f" of modality {modality}" if modality else ""
    return files.cohort(cases, name, MMWHS, spacing_rule, without, what=f"MMWHS images{of_kind}")
