"""Drawings of one judged mask: slices with predicted errors, what a correction changed, where the case stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from whqa.report import slices
from whqa.report.shown import CHANGED, PLANES, PREDICTED_ERROR, JudgedView, Standing, tags_of, worst_voxel
from whqa.report.style import PALETTE, STYLE, kind_markers

THIS_CASE = "#D55E00"
# Of a picture of one slice, in inches.
_PANEL_WIDTH, _PANEL_EDGE, _PANEL_TITLE = 3.9, 0.04, 0.25
# Of a standing, in inches: the square, what is left and above of it, the label below it and a row of the legend.
_STANDING_EDGE, _STANDING_LEFT, _STANDING_TOP, _STANDING_LABEL, _STANDING_ROW = 3.2, 0.78, 0.16, 0.62, 0.17
_COLUMNS = 3


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
    slices.draw_tint(axis, view.probability, axis_index, at, PREDICTED_ERROR)
    slices.draw_outline(axis, view.error_map, axis_index, at, "#FFFFFF")


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
    at = worst_voxel(view.error_map, view.mask)
    across = {i: view.spacing[_across(i)] * view.mask.shape[_across(i)] for i, _ in PLANES}
    up = max(view.spacing[_up(i)] * view.mask.shape[_up(i)] for i, _ in PLANES)
    width = 10.0
    height = 2 * up * width / sum(across.values())
    figure = slices.new_figure(width, min(height, 12.0) + 1.1 + 0.17 * len(lines))
    axes = figure.subplots(2, 3, squeeze=False, width_ratios=[across[i] for i, _ in PLANES])
    for column, (axis_index, plane) in enumerate(PLANES):
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
    handles.append(Patch(color=PREDICTED_ERROR, alpha=0.85, label="probability of an error"))
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


def standing_figure(shown: Standing) -> Figure:
    """What was predicted against the truth, with the identity line and this case."""
    markers = kind_markers(list(shown.points))
    with mpl.rc_context(STYLE):
        below = _STANDING_LABEL + _STANDING_ROW * -(-(len(shown.points) + (shown.value is not None)) // _COLUMNS)
        height = _STANDING_EDGE + below + _STANDING_TOP
        figure = slices.new_figure(_STANDING_LEFT + _STANDING_EDGE + _STANDING_TOP, height, layout=None)
        place = (_STANDING_LEFT, below, _STANDING_EDGE, _STANDING_EDGE)
        axis = figure.add_axes(tuple(p / s for p, s in zip(place, 2 * tuple(figure.get_size_inches()), strict=True)))
        for kind, points in shown.points.items():
            axis.plot(
                *zip(*points, strict=True),
                linestyle="none",
                marker=markers[kind],
                markersize=4.5,
                color=PALETTE[0],
                markerfacecolor=PALETTE[0] if kind == "final" else "none",
                alpha=0.75,
                label=kind,
            )
        _draw_case(axis, shown)
        everything = [value for points in shown.points.values() for point in points for value in point]
        everything += [v for v in (shown.value, *(shown.interval or ())) if v is not None]
        _square(axis, everything)
        axis.set(xlabel=shown.x, ylabel=shown.y)
        with mpl.rc_context({"text.parse_math": False}):
            figure.legend(loc="lower center", ncols=_COLUMNS, fontsize=7.5)
    return figure


def _draw_case(axis: Axes, shown: Standing) -> None:
    value, interval = shown.value, shown.interval
    if value is None:
        return
    axis.axhline(value, color=THIS_CASE, linewidth=0.9, linestyle=":")
    if interval:
        axis.plot(
            interval, [value, value], color=THIS_CASE, linewidth=2.4, marker="|", markersize=11, markeredgewidth=2
        )
    label = f"this case, with its {shown.interval_words}" if interval else "this case"
    # plotted without line: the line above belongs to it
    axis.plot([], [], color=THIS_CASE, linewidth=2.4, label=label)
    axis.plot([value], [value], linestyle="none", marker="*", markersize=13, color=THIS_CASE, markeredgecolor="black")


def _square(axis: Axes, values: Sequence[float]) -> None:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    pad = 0.05 * max(high - low, 0.01)
    axis.axline((low, low), slope=1, color="#444444", linewidth=0.8, linestyle="--")
    axis.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
    axis.locator_params(nbins=5)
