"""Drawings of planes of one judged mask and its volume, turned as `whqa.report.shown` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.colors
import matplotlib.lines
import numpy as np
import numpy.typing as npt
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy import ndimage

from whqa.report.shown import PLANES, PREDICTED_ERROR, TRUE_ERROR, grey_window, plane_of, worst_voxel

# What lies at the left, right, upper and lower edge of each plane.
DIRECTIONS = {2: "RLAP", 1: "RLSI", 0: "PASI"}
_EDGES = (
    (0.02, 0.5, "left", "center"),
    (0.98, 0.5, "right", "center"),
    (0.5, 0.985, "center", "top"),
    (0.5, 0.015, "center", "bottom"),
)
# White with a dark rim can be read on every grey.
ON_IMAGE: Mapping[str, Any] = {
    "fontsize": 7,
    "color": "white",
    "path_effects": [withStroke(linewidth=1.6, foreground="black")],
}


@dataclass(frozen=True, eq=False)
class JudgedVolume:
    """What a row of pictures shows.

    Attributes:
        image: (D, H, W) intensities.
        mask: (D, H, W) indices 0..C.
        true_error: (D, H, W) bool, or None where nobody knows the truth.
        probability: (D, H, W) in [0, 1].
        error_map: (D, H, W) bool.
        spacing: mm along D, H, W.
    """

    image: npt.NDArray
    mask: npt.NDArray
    true_error: npt.NDArray | None
    probability: npt.NDArray
    error_map: npt.NDArray
    spacing: Sequence[float]

    @property
    def columns(self) -> list[str]:
        """What stands above them."""
        return ["image and mask", *(["true error"] if self.true_error is not None else []), "predicted error"]

    @property
    def at(self) -> tuple[int, ...]:
        """The voxel where errors are densest, the true ones where there are any."""
        unknown = self.true_error is None or not self.true_error.any()
        return worst_voxel(self.error_map if unknown else np.asarray(self.true_error), self.mask)


def overlay_figure(
    image: npt.NDArray,
    mask: npt.NDArray,
    reference: npt.NDArray | None,
    error_probability: npt.NDArray | None,
    error_map: npt.NDArray,
    spacing: Sequence[float],
    scheme_colours: Sequence[str],
    scheme_titles: Sequence[str],
    title: str,
) -> Figure:
    """Three planes through the voxel where errors are densest: mask | true error (with a reference) | predicted error.

    Args:
        image: (D, H, W) intensities.
        mask: (D, H, W) indices 0..C.
        reference: (D, H, W) indices, or None: then there is no column of the true error.
        error_probability: (D, H, W) in [0, 1], or None: then only the map is drawn.
        error_map: (D, H, W) bool.
        spacing: mm along D, H, W.
        scheme_colours: one colour a structure, in index order.
        scheme_titles: one name a structure, in index order.
        title: printed above, never interpreted as markup.
    """
    probability = np.asarray(error_map if error_probability is None else error_probability, dtype=float)
    true_error = None if reference is None else np.asarray(mask) != np.asarray(reference)
    shown = JudgedVolume(image, mask, true_error, probability, error_map, spacing)
    at = shown.at
    figure = new_figure(2.9 * len(shown.columns), 8.6)
    axes = figure.subplots(3, len(shown.columns), squeeze=False)
    for row, (axis_index, plane) in zip(axes, PLANES, strict=True):
        draw_row(row, shown, axis_index, at, scheme_colours)
        row[0].set_ylabel(f"{plane} {at[axis_index] + 1}/{image.shape[axis_index]}", fontsize=9)
    for axis, column in zip(axes[0], shown.columns, strict=True):
        axis.set_title(column, fontsize=9)
    figure.suptitle(title, fontsize=10, parse_math=False)
    structure_legend(figure, scheme_colours, scheme_titles)
    return figure


def draw_row(
    row: Sequence[Axes], shown: JudgedVolume, axis_index: int, at: Sequence[int], scheme_colours: Sequence[str]
) -> None:
    """One plane of a judged mask, in as many panels as it has columns."""
    window = grey_window(shown.image)
    for axis in row:
        show_plane(axis, shown.image, axis_index, at, shown.spacing, window)
    draw_contours(row[0], shown.mask, axis_index, at, scheme_colours)
    if shown.true_error is not None:
        draw_tint(row[1], shown.true_error.astype(float), axis_index, at, TRUE_ERROR)
    draw_tint(row[-1], shown.probability, axis_index, at, PREDICTED_ERROR)
    draw_outline(row[-1], np.asarray(shown.error_map, dtype=bool), axis_index, at, "#FFFFFF")


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure in inches with its own Agg canvas; without a layout, axes are placed by hand."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


# Of a contour between 0 and 1: a quarter of a pixel inside of the border, so that neighbours' lines lie side by side.
_INSIDE = 0.75


def _extent(volume: npt.NDArray, axis_index: int, spacing: Sequence[float]) -> tuple[float, float, float, float]:
    across, up = (i for i in range(3) if i != axis_index)
    return (0.0, volume.shape[across] * spacing[across], 0.0, volume.shape[up] * spacing[up])


def show_plane(
    axis: Axes,
    image: npt.NDArray,
    axis_index: int,
    at: Sequence[int],
    spacing: Sequence[float],
    window: tuple[float, float],
) -> None:
    """One slice in grey, true to scale, with a letter for the direction at each edge."""
    plane = plane_of(image, axis_index, at).astype(np.float32)
    extent = _extent(image, axis_index, spacing)
    axis.imshow(plane, cmap="gray", vmin=window[0], vmax=window[1], origin="lower", extent=extent)
    axis.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
    if axis_index != 0:
        axis.invert_xaxis()
    for letter, (x, y, ha, va) in zip(DIRECTIONS[axis_index], _EDGES, strict=True):
        axis.text(x, y, letter, transform=axis.transAxes, ha=ha, va=va, **ON_IMAGE)


def _grid(axis: Axes, shape: tuple[int, ...]) -> dict[str, Any]:
    extent = axis.images[0].get_extent()
    x = (np.arange(shape[1]) + 0.5) * extent[1] / shape[1]
    y = (np.arange(shape[0]) + 0.5) * extent[3] / shape[0]
    return {"x": x, "y": y, "extent": extent}


def draw_contours(
    axis: Axes,
    mask: npt.NDArray,
    axis_index: int,
    at: Sequence[int],
    colours: Sequence[str],
    tags: Sequence[str] = (),
) -> None:
    """Outline every structure of a slice; with `tags`, one a structure, name each inside its largest part."""
    plane = plane_of(mask, axis_index, at)
    for index, colour in enumerate(colours, start=1):
        inside = plane == index
        _outline_plane(axis, inside, colour, _INSIDE)
        if tags and inside.any():
            row, column = deepest(inside)
            grid = _grid(axis, plane.shape)
            axis.text(grid["x"][column], grid["y"][row], tags[index - 1], ha="center", va="center", **ON_IMAGE)


def deepest(inside: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """The pixel that is farthest from the edge of what it lies in."""
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(row), int(column)


def draw_outline(axis: Axes, volume: npt.NDArray, axis_index: int, at: Sequence[int], colour: str) -> None:
    """Outline of what is not 0 in a slice."""
    _outline_plane(axis, plane_of(volume, axis_index, at), colour)


def _outline_plane(axis: Axes, plane: npt.NDArray, colour: str, level: float = 0.5) -> None:
    if not plane.any() or min(plane.shape) < 2:
        return
    grid = _grid(axis, plane.shape)
    outline(axis, grid["x"], grid["y"], plane, colour, level)


def outline(
    axis: Axes, x: npt.NDArray, y: npt.NDArray, plane: npt.NDArray, colour: str, level: float = 0.5, width: float = 1.0
) -> None:
    """What `axis.contour` draws, without its colour map and norm, which take ten times as long.

    Args:
        axis: of an image that has its limits.
        x: of the columns.
        y: of the rows.
        plane: (rows, columns).
        colour: of the lines.
        level: of the values along the lines.
        width: of the lines, in points.
    """
    lines: Any = contour_generator(x, y, plane.astype(float), line_type="Separate").lines(level)
    axis.add_collection(LineCollection(lines, colors=[colour], linewidths=width), autolim=False)


def draw_tint(axis: Axes, volume: npt.NDArray, axis_index: int, at: Sequence[int], colour: str) -> None:
    """Colour over a slice, its opacity being the volume's value in [0, 1]."""
    plane = plane_of(volume, axis_index, at)
    rgba = np.empty((*plane.shape, 4))
    rgba[..., :3] = matplotlib.colors.to_rgb(colour)
    rgba[..., 3] = 0.85 * np.clip(plane.astype(np.float32), 0, 1)
    axis.imshow(rgba, origin="lower", extent=axis.images[0].get_extent())
    extent = axis.images[0].get_extent()
    axis.set(ylim=extent[2:], xlim=extent[:2] if axis_index == 0 else (extent[1], extent[0]))


def structure_legend(
    figure: Figure, colours: Sequence[str], titles: Sequence[str], place: str = "outside lower center"
) -> None:
    """One line and name a structure, below the panels."""
    handles = [matplotlib.lines.Line2D([], [], color=c, label=t) for c, t in zip(colours, titles, strict=True)]
    figure.legend(handles=handles, loc=place, ncols=4, fontsize=8, frameon=False, borderaxespad=0.2)
