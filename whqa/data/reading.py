"""The files of a case as volumes on one grid."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from whqa.data.alignment import check_lattice, on_lattice_of
from whqa.data.case import Case, Cohort
from whqa.data.formats.volume_files import Grid, Volume, read_grid, read_image, read_label
from whqa.errors import InputError
from whqa.structures import GREAT_VESSELS, LabelScheme

BINARY_MASK = LabelScheme("binary mask", {"structure": 1}, aliases={255: "structure"})
"""Of a file that holds one structure: 1 or 255 is inside."""


def read_case(cohort: Cohort, case: Case, compact: bool = False) -> tuple[Volume, Volume | None]:
    """Image and reference of a case, the latter None for an unlabelled case; `compact` as in `read_image`.

    Contradicting headers follow the cohort's spacing rule in silence: `checked` has spoken of them.

    Raises:
        InputError: a file is bad, or reference and image do not lie on one grid.
    """
    image = read_image(case.image, cohort.spacing_rule, announce=False, compact=compact)
    return image, read_reference(cohort, case, image)


def read_reference(cohort: Cohort, case: Case, image: Volume | Grid) -> Volume | None:
    """The reference of a case as indices of the cohort's scheme on the image's grid, or None for an unlabelled case.

    One that lies on the image's lattice is turned, padded or cut; the notes say so. Parts that overlap: the structure
    that comes later in `Case.parts` wins.

    Raises:
        InputError: a file is bad or does not lie on the image's grid, or parts mark no voxel of a chamber or of the
            myocardium (code "no-heart"): files of whole-body data sets are empty where the scan shows other regions.
    """
    whole: Volume | None = None
    if case.label is not None:
        whole = on_lattice_of(image, read_label(case.label, cohort.scheme, cohort.spacing_rule, announce=False))
    heart = False
    for key, path in case.parts.items():
        if key not in cohort.scheme.keys:
            raise InputError(f"{path}: structure {key!r} is not of the scheme {cohort.scheme.name!r}")
        part = on_lattice_of(image, read_label(path, BINARY_MASK, cohort.spacing_rule, announce=False))
        inside = part.array != 0
        heart |= key not in GREAT_VESSELS and bool(inside.any())
        if whole is None:
            whole = Volume(np.zeros_like(part.array), part.affine, path, part.header, part.notes)
        whole.array[inside] = cohort.scheme.keys.index(key) + 1
    if case.parts and not heart:
        raise InputError(
            f"{case.image}: no voxel of the heart in its {len(case.parts)} structure files, the scan shows another "
            f"region; leave the subject {case.id} out (data.without)",
            code="no-heart",
        )
    return whole


def grids(cohort: Cohort, case: Case) -> Iterator[Grid]:
    """Headers of the image and of the reference's files, in this order, voxels unread.

    Raises:
        InputError: a header is bad, or a file of the reference does not lie on the image's grid.
    """
    image = read_grid(case.image, cohort.spacing_rule)
    yield image
    for path in case.label_files:
        grid = read_grid(path, cohort.spacing_rule)
        check_lattice(image, grid)
        yield grid
