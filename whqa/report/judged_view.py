"""Pictures of one judged mask: the slices with the most predicted error, and what a correction changed.

Arrays are turned so that they lie along (R, A, S) as closely as their grid allows, and cut to what there is to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib as mpl
import nibabel as nib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from whqa.contract.quality_json import Assessment
from whqa.data.formats.volume_files import voxel_sizes
from whqa.quality import box_around
from whqa.report import slices
from whqa.structures import LabelScheme

MARGIN_MM = 15.0
# Probabilities below this are not worth widening the view for.
_SEEN_FROM = 0.05
_WINDOW_VOXELS = 4_000_000
CHANGED = "#56B4E9"
# Of a picture of one slice, in inches.
_PANEL_WIDTH, _PANEL_EDGE, _PANEL_TITLE = 3.9, 0.04, 0.25
_COUNTED_FROM = {2: "feet", 1: "back", 0: "left"}


@dataclass(frozen=True, eq=False)
class JudgedView:
    """The part of an assessed scan that holds mask and predicted errors, all arrays (D, H, W) along (R, A, S).

    Attributes:
        image: float32 intensities.
        mask: indices 0..C, uint8.
        corrected: the same after correction.
        probability: of an error, float32 in [0, 1].
        error_map: bool.
        affine: (4, 4), voxel of this part -> RAS mm.
        start: first voxel of this part in the whole scan.
        whole: shape of the whole scan.
        scheme: names and colours.
        opinion: most probable labels of the second opinion, like the mask; None without.
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    corrected: npt.NDArray[np.uint8]
    probability: npt.NDArray[np.float32]
    error_map: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    start: tuple[int, ...]
    whole: tuple[int, ...]
    scheme: LabelScheme
    opinion: npt.NDArray[np.uint8] | None = None

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along (R, A, S)."""
        return tuple(float(s) for s in voxel_sizes(self.affine))

    @cached_property
    def window(self) -> tuple[float, float]:
        """Intensities shown as black and as white."""
        # a part of the voxels says it: percentiles of 10^8 take seconds
        step = max(1, round((self.image.size / _WINDOW_VOXELS) ** (1 / 3)))
        return slices.grey_window(self.image[::step, ::step, ::step])

    @cached_property
    def changed(self) -> npt.NDArray[np.bool_]:
        """Where the correction gave another label."""
        return self.mask != self.corrected

    def slice_words(self, axis_index: int, at: Sequence[int]) -> str:
        """Which slice of the whole scan that is, for people: "slice 37 of 84, counted from the feet"."""
        number = self.start[axis_index] + at[axis_index] + 1
        return f"slice {number} of {self.whole[axis_index]}, counted from the {_COUNTED_FROM[axis_index]}"


def judged_view(assessment: Assessment, margin_mm: float = MARGIN_MM) -> JudgedView:
    """Turn and cut an assessed scan; what lies farther than `margin_mm` from mask and errors is left out."""
    turn = nib.io_orientation(assessment.affine)
    image, mask, corrected, probability, error_map = (
        nib.apply_orientation(array, turn)
        for array in (
            assessment.image,
            assessment.mask,
            assessment.corrected,
            assessment.error_probability,
            assessment.error_map,
        )
    )
    opinion = None if assessment.opinion is None else nib.apply_orientation(assessment.opinion, turn)
    affine = assessment.affine @ nib.orientations.inv_ornt_aff(turn, assessment.image.shape)
    seen = (mask != 0) | (corrected != 0) | error_map | (probability >= _SEEN_FROM)
    if opinion is not None:
        seen |= opinion != 0
    box = box_around(seen, [round(margin_mm / s) for s in voxel_sizes(affine)])
    start = tuple(s.start for s in box)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.array(start)
    return JudgedView(
        np.nan_to_num(image[box]),
        mask[box],
        corrected[box],
        probability[box],
        error_map[box],
        moved,
        start,
        image.shape,
        assessment.scheme,
        None if opinion is None else opinion[box],
    )


def mask_panel(axis: Axes, view: JudgedView, axis_index: int, at: Sequence[int], corrected: bool = False) -> None:
    """Image with the outlines of the mask, or of the corrected one with what changed tinted."""
    _image(axis, view, axis_index, at)
    if corrected:
        slices.draw_tint(axis, view.changed, axis_index, at, CHANGED)
    labels = view.corrected if corrected else view.mask
    slices.draw_contours(axis, labels, axis_index, at, view.scheme.colours, tags_of(view.scheme))


def error_panel(axis: Axes, view: JudgedView, axis_index: int, at: Sequence[int]) -> None:
    """Image with the probability of an error as tint and the predicted error map outlined."""
    _image(axis, view, axis_index, at)
    slices.draw_tint(axis, view.probability, axis_index, at, slices.PREDICTED_ERROR)
    slices.draw_outline(axis, view.error_map, axis_index, at, "#FFFFFF")


def tags_of(scheme: LabelScheme) -> tuple[str, ...]:
    """Short names that fit into a structure: LV, RV, ..., Myo."""
    return tuple(key.upper() if len(key) <= 2 else key.capitalize() for key in scheme.keys)


def plane_figure(view: JudgedView, axis_index: int, at: Sequence[int]) -> Figure:
    """One slice twice: the mask above, the predicted error below."""
    figure, axes = _panels(view, axis_index, 2)
    mask_panel(axes[0], view, axis_index, at)
    error_panel(axes[1], view, axis_index, at)
    _titled(axes, ("mask", "predicted error"))
    return figure


def change_figure(view: JudgedView, axis_index: int, at: Sequence[int]) -> Figure:
    """One slice twice: the mask as it came above, the corrected one below."""
    figure, axes = _panels(view, axis_index, 2)
    mask_panel(axes[0], view, axis_index, at)
    mask_panel(axes[1], view, axis_index, at, corrected=True)
    _titled(axes, ("mask as it came", "corrected mask, changes tinted"))
    return figure


def preview_figure(view: JudgedView, title: str, lines: Sequence[str]) -> Figure:
    """One picture for a glance: verdict on top, three planes with the mask above and the predicted error below."""
    at = slices.worst_voxel(view.error_map, view.mask)
    across = {i: view.spacing[_across(i)] * view.mask.shape[_across(i)] for i, _ in slices.PLANES}
    up = max(view.spacing[_up(i)] * view.mask.shape[_up(i)] for i, _ in slices.PLANES)
    width = 10.0
    height = 2 * up * width / sum(across.values())
    figure = slices.new_figure(width, min(height, 12.0) + 1.1 + 0.17 * len(lines))
    axes = figure.subplots(2, 3, squeeze=False, width_ratios=[across[i] for i, _ in slices.PLANES])
    for column, (axis_index, plane) in enumerate(slices.PLANES):
        mask_panel(axes[0, column], view, axis_index, at)
        error_panel(axes[1, column], view, axis_index, at)
        axes[0, column].set_title(f"{plane}, {view.slice_words(axis_index, at)}", fontsize=8)
    axes[0, 0].set_ylabel("mask", fontsize=9)
    axes[1, 0].set_ylabel("predicted error", fontsize=9)
    figure.suptitle("\n".join((title, *lines)), fontsize=10, parse_math=False)
    _legend(figure, view)
    return figure


def _legend(figure: Figure, view: JudgedView) -> None:
    there = np.union1d(np.unique(view.mask), np.unique(view.corrected))
    rows = zip(view.scheme.colours, tags_of(view.scheme), view.scheme.titles, strict=True)
    handles: list[Any] = [
        Line2D([], [], color=colour, label=f"{tag}  {title}")
        for index, (colour, tag, title) in enumerate(rows, start=1)
        if index in there
    ]
    handles.append(Patch(color=slices.PREDICTED_ERROR, alpha=0.85, label="probability of an error"))
    handles.append(Line2D([], [], color="#999999", label="white line: predicted error map"))
    with mpl.rc_context({"text.parse_math": False}):
        figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=7.5, frameon=False)


def _image(axis: Axes, view: JudgedView, axis_index: int, at: Sequence[int]) -> None:
    slices.show_plane(axis, view.image, axis_index, at, view.spacing, view.window)


def _panels(view: JudgedView, axis_index: int, n: int) -> tuple[Figure, list[Axes]]:
    """Panels below one another, as tall as the slice is, each with room for a title.

    Their places are known beforehand: a layout that is found from what is drawn takes as long as the drawing.
    """
    ratio = view.spacing[_up(axis_index)] * view.mask.shape[_up(axis_index)]
    ratio /= view.spacing[_across(axis_index)] * view.mask.shape[_across(axis_index)]
    inner = _PANEL_WIDTH - 2 * _PANEL_EDGE
    tall = inner * min(max(ratio, 0.1), 3.0)
    row = tall + _PANEL_TITLE
    height = n * row + _PANEL_EDGE
    figure = slices.new_figure(_PANEL_WIDTH, height, layout=None)
    places = [(_PANEL_EDGE + (n - 1 - k) * row) / height for k in range(n)]
    width = inner / _PANEL_WIDTH
    return figure, [figure.add_axes((_PANEL_EDGE / _PANEL_WIDTH, y, width, tall / height)) for y in places]


def _titled(axes: Iterable[Axes], titles: Sequence[str]) -> None:
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=9)


def _across(axis_index: int) -> int:
    return 1 if axis_index == 0 else 0


def _up(axis_index: int) -> int:
    return 1 if axis_index == 2 else 2
