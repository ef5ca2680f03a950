"""A mask on its image's grid: as it lies there, turned, padded or cut; resampled only where that is asked for."""

from __future__ import annotations

from whqa.data.alignment import check_lattice, needs_resampling, on_lattice_of, resampled_onto
from whqa.data.formats.volume_files import Grid, Volume

_REMEDY = "add --resample to the command (an argument of that name in Python) to bring it to the image's grid"


def check_place(image: Volume | Grid, mask: Volume | Grid, resample: bool) -> None:
    """Whether `in_place` can bring the mask to the image's grid, by the headers alone.

    Raises:
        InputError: it cannot; the text names the cause and what helps.
    """
    if not (resample and needs_resampling(image, mask)):
        check_lattice(image, mask, _REMEDY)


def in_place(image: Volume | Grid, mask: Volume, resample: bool) -> Volume:
    """The mask on the image's grid; the notes say what was done.

    Raises:
        InputError: as `check_place`; or nothing of the mask lies in the image.
    """
    if resample and needs_resampling(image, mask):
        return resampled_onto(image, mask)
    return on_lattice_of(image, mask, _REMEDY)
