"""Names of volume files: which files are volumes, and what a name says without its ending and its closing word."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

VOLUME_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha")
"""Of the files that can be read, in lower case; the case of a name's letters does not matter."""
IMAGE_WORDS = ("_image", "_img", "_0000")
"""Closing words of an image's name; `_0000` is nnU-Net's first channel."""
MASK_WORDS = ("_labels", "_label", "_mask", "_segmentation", "_seg", "_prediction", "_pred", "_gt", ".seg", "-label")
"""Closing words of a mask's or reference's name; the last two are 3D Slicer's: case.seg.nrrd, case-label.nrrd."""


def is_volume(name: str) -> bool:
    """Whether a file of this name is a volume that can be read."""
    return name.lower().endswith(VOLUME_ENDINGS)


def stem(name: str) -> str:
    """A file's name without a volume's ending: `SCAN_0000.NII.GZ` is `SCAN_0000`; other names stay as they are.

    Accents are composed (NFC): macOS writes them as characters of their own, other systems do not.
    """
    name = unicodedata.normalize("NFC", name)
    endings = sorted(VOLUME_ENDINGS, key=len, reverse=True)
    return next((name[: -len(e)] for e in endings if name.lower().endswith(e) and len(name) > len(e)), name)


def case_name(name: str, words: Sequence[str] = (*IMAGE_WORDS, *MASK_WORDS)) -> str:
    """What a volume is of: its stem without one closing word that says what the file is.

    Args:
        name: of the file, without folders.
        words: the closing words, in lower case; the first that fits is taken off, unless it is the whole stem.
    """
    bare = stem(name)
    return next((bare[: -len(w)] for w in words if bare.lower().endswith(w) and len(bare) > len(w)), bare)
