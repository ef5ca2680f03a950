"""The pictures of report.html, which other processes may draw while the rest of the page is made.

What is to be drawn is little data; this module and those that draw import neither torch nor nibabel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from whqa.report.shown import PLANES, JudgedView, Standing, worst_voxel

_DPI, _BYTES = 140, 600_000


class ShownSlice(NamedTuple):
    """One slice across an axis, where it is cut, and whether the correction is shown in place of the errors."""

    view: JudgedView
    axis_index: int
    at: tuple[int, ...]
    corrected: bool
    alt: str
    caption: str


class Asked(NamedTuple):
    """What is to be drawn.

    Attributes:
        planes: the slices with most predicted errors.
        changes: those in which the correction changed most; none where it changed nothing.
        standings: this case among the run's own.
    """

    planes: Sequence[ShownSlice]
    changes: Sequence[ShownSlice]
    standings: Sequence[Standing]


class DrawnPicture(NamedTuple):
    """A PNG file with its words."""

    png: bytes
    alt: str
    caption: str


def error_slices(view: JudgedView) -> list[ShownSlice]:
    """Per plane the slice with most predicted errors."""
    shown = "the mask's outlines, and below it the predicted error"
    return _slices(view, worst_voxel(view.error_map, view.mask), False, shown)


def changed_slices(view: JudgedView) -> list[ShownSlice]:
    """Per plane the slice in which the correction changed most."""
    shown = "the mask before, and below it after the correction"
    return _slices(view, worst_voxel(view.changed, view.mask), True, shown)


def _slices(view: JudgedView, at: Sequence[int], corrected: bool, shown: str) -> list[ShownSlice]:
    return [
        ShownSlice(
            view.single_slice(axis_index, at[axis_index]),
            axis_index,
            (*at[:axis_index], 0, *at[axis_index + 1 :]),
            corrected,
            f"{plane.capitalize()} slice: {shown}",
            f"{plane.capitalize()}, {view.slice_words(axis_index, at)}",
        )
        for axis_index, plane in PLANES
    ]


def prepare() -> None:
    """Import what draws, see `whqa.report.style.warm_up`."""
    import whqa.report.judged_pictures  # noqa: F401
    from whqa.report.style import warm_up

    warm_up()


def draw(shown: ShownSlice | Standing) -> DrawnPicture:
    """Draw one of them; imports matplotlib."""
    from whqa.report.judged_pictures import change_figure, plane_figure, standing_figure
    from whqa.report.style import png

    if isinstance(shown, Standing):
        figure = standing_figure(shown)
    else:
        figure = (change_figure if shown.corrected else plane_figure)(*shown[:3])
    data = png(figure, _DPI)
    if len(data) > _BYTES:
        # noise does not compress
        data = png(figure, _DPI / 2)
    return DrawnPicture(data, shown.alt, shown.caption)
