"""A mask on its image's grid: as it lies there, turned, padded or cut; resampled only where that is asked for."""

from __future__ import annotations

from typing import TypeVar

from whqa.data.alignment import (
    Remedies,
    check_lattice,
    is_lost,
    is_one_grid,
    needs_resampling,
    on_lattice_of,
    resampled_onto,
)
from whqa.data.findings.grid import orientation
from whqa.data.formats.volume_files import Grid, Volume, with_axes
from whqa.errors import InputError

SIDES_UNKNOWN = "where you know them, state them: --orientation LPS, or the like (an argument of that name in Python)"
"""What helps where a header does not know the patient's sides."""
_REMEDIES = Remedies(
    "add --resample to the command (an argument of that name in Python) to bring it to the image's grid",
    "if the voxels of both are in one order, add --orientation {} to the command (an argument of that name in Python)",
)
_SIDES = ("LR", "AP", "SI")
_Placed = TypeVar("_Placed", bound=Grid | Volume)


def stated_axes(text: str | None) -> str | None:
    """Three letters for the sides that the axes of an array point to, in capitals; None stays None.

    Raises:
        InputError: not one letter of each of left and right, front and back, up and down.
    """
    axes = None if text is None else text.strip().upper()
    if axes is not None and (len(axes) != 3 or any(len(set(side) & set(axes)) != 1 for side in _SIDES)):
        raise InputError(
            f"--orientation {text}: must be three letters for the sides that the array's axes point to, one of L and "
            "R, one of A and P, one of S and I, such as LPS"
        )
    return axes


def with_stated_axes(
    place: _Placed, axes: str | None, other: Volume | Grid | None = None
) -> tuple[_Placed, tuple[str, ...]]:
    """The same volume with the sides that the user states, where its header does not know them; and notes.

    Args:
        place: an image or a mask.
        axes: as `stated_axes`.
        other: the mask's image, or the image's mask: where it knows its place, and the shapes are those of one grid,
            both cover the same space.
    """
    if axes is None:
        return place, ()
    if not is_lost(place):
        own = orientation(place.affine)
        note = f"its header states {own}, so --orientation {axes}, for those that state none, was not used"
        return place, (() if own == axes else (note,))
    if other is not None and not is_lost(other):
        moved = with_axes(place, axes, other.affine)
        if is_one_grid(other, moved):
            return moved, ()
    return with_axes(place, axes), ()


def check_place(image: Volume | Grid, mask: Volume | Grid, resample: bool) -> None:
    """Whether `in_place` can bring the mask to the image's grid, by the headers alone.

    Raises:
        InputError: it cannot; the text names the cause and what helps.
    """
    if not (resample and needs_resampling(image, mask)):
        check_lattice(image, mask, _REMEDIES)


def in_place(image: Volume | Grid, mask: Volume, resample: bool) -> Volume:
    """The mask on the image's grid; the notes say what was done.

    Raises:
        InputError: as `check_place`; or nothing of the mask lies in the image.
    """
    if resample and needs_resampling(image, mask):
        return resampled_onto(image, mask)
    return on_lattice_of(image, mask, _REMEDIES)
