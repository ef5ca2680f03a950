"""A mask as a folder with one binary file a structure, as TotalSegmentator writes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whqa.assessment.placing import check_place, in_place
from whqa.data.formats.file_names import stem
from whqa.data.formats.volume_files import (
    Grid,
    Volume,
    describe_foreign,
    label_values,
)
from whqa.data.reading import BINARY_MASK
from whqa.data.sources.listing import list_files
from whqa.data.sources.names import APPENDAGE, HEART
from whqa.errors import InputError
from whqa.structures import GREAT_VESSELS, STRUCTURES, LabelScheme, structure_key

_READ = (HEART, APPENDAGE, *STRUCTURES)
PARTS = "segmentations"
"""Name of TotalSegmentator's folder of structure files."""


def structure_files(folder: Path) -> dict[str, Path]:
    """Structure key -> its file in the folder, in the order of `STRUCTURES`; other files are left out.

    Where there are no chambers, the heart as one structure, its appendage and the vessels.

    Raises:
        InputError: the folder holds no structure of the heart, or two files of one.
    """
    files = list(list_files(folder, depth=0).files.values())
    parts: dict[str, Path] = {}
    for path in files:
        key = structure_key(stem(path.name))
        if key in _READ and parts.setdefault(key, path) != path:
            raise InputError(f"{folder}: {parts[key].name} and {path.name} are both {key}; remove one of them")
    if parts.keys() & STRUCTURES.keys() - GREAT_VESSELS:
        return {key: parts[key] for key in STRUCTURES if key in parts}
    if not files:
        raise InputError(f"{folder}: not a mask but {describe_foreign(folder)}")
    if HEART in parts:
        return {key: parts[key] for key in _READ if key in parts}
    raise InputError(
        f"{folder}: holds no file of a structure of the heart, such as heart_ventricle_left.nii.gz; if it holds masks "
        f"of whole hearts, give one, such as {files[0]}"
    )


def is_structure_folder(folder: Path) -> bool:
    """Whether a folder holds files that are named as structures of a heart, or as the heart itself."""
    names = (structure_key(stem(path.name)) for path in list_files(folder, depth=0).files.values())
    return any(name == HEART or name in STRUCTURES.keys() - GREAT_VESSELS for name in names)


def structure_folders(folder: Path) -> list[Path]:
    """The folders of structure files of the cases in a folder: `<case>/` or `<case>/segmentations/`."""
    cases = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    return [inner for case in cases for inner in (case / PARTS, case) if inner.is_dir() and is_structure_folder(inner)]


def scheme_of_parts(keys: Iterable[str], run_scheme: LabelScheme) -> LabelScheme:
    """The scheme that a folder of these files is read by: the run's, or the heart as one structure with vessels."""
    kept = [key for key in keys if key != APPENDAGE]
    if HEART not in kept:
        return run_scheme
    return LabelScheme("structure files", {key: value for value, key in enumerate(kept, start=1)})


def read_structure_files(
    folder: Path, places: Mapping[str, Grid | Volume], image: Volume | Grid, scheme: LabelScheme, resample: bool
) -> Volume:
    """The files of a folder as one map of indices of the scheme, on the image's grid.

    Args:
        folder: of the files.
        places: headers of the files that are wanted, by structure.
        image: whose grid is wanted.
        scheme: with these structures; the appendage belongs to the heart.
        resample: bring files of another grid to the image's.

    Where files overlap, the structure that is later in `STRUCTURES` wins; the notes say so.

    Raises:
        InputError: a file is bad, or does not lie on the image's grid.
    """
    files = {key: place.path for key, place in places.items()}
    for place in places.values():
        check_place(image, place, resample)
    indices: npt.NDArray[np.uint8] = np.zeros(image.shape, np.uint8, order="F")
    twice, notes = 0, [_summary(files, scheme)]
    for key, place in places.items():
        part = in_place(image, label_values(place, BINARY_MASK), resample)
        inside = BINARY_MASK.to_indices(part.array, str(place.path)) != 0
        notes += [note for note in part.notes[len(place.notes) :] if note not in notes]
        twice += int(np.count_nonzero(indices[inside]))
        indices[inside] = scheme.keys.index(HEART if key == APPENDAGE else key) + 1
    if twice:
        order = ", ".join(files)
        notes.append(f"{twice:,} voxel(s) lie in more than one of its files; of {order} the later one wins")
    return Volume(indices, image.affine, folder, image.header, tuple(notes))


def _summary(files: dict[str, Path], scheme: LabelScheme) -> str:
    values = ", ".join(f"{key} {scheme.values[key]}" for key in scheme.keys)
    return (
        f"a folder of structure files, of which {', '.join(path.name for path in files.values())} were read; "
        f"corrected_mask.nii.gz is one label map: {values}"
    )
