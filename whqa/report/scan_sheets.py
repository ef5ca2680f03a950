"""Pictures of scans as they are in their files: a contact sheet of a cohort, a sheet of slices of one case.

Planes are cut along the file's own axes, brought to the closest R, A, S; an oblique scan stays as it was acquired. They
are shown in radiological convention, as in `whqa.report.shown`, to scale in mm. A labelled scan is cut to its heart.
Short-axis stacks whose header does not know the patient (see `whqa.data.findings.sides`) get planes without a name.

A sheet is one matplotlib axes in inches: hundreds of axes would take minutes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from nibabel.orientations import apply_orientation, io_orientation

from whqa.data.case import Case, Cohort
from whqa.data.findings.grid import oblique_degrees, orientation, stack_axis
from whqa.data.findings.sides import says_nothing
from whqa.data.formats.volume_files import Volume, voxel_sizes
from whqa.data.reading import read_case
from whqa.quality import box_around
from whqa.report.shown import PLANES, grey_window, middle
from whqa.report.slices import DIRECTIONS, deepest, new_figure, outline, structure_legend
from whqa.structures import LabelScheme

_MARGIN_MM = 20.0
_POSITIONS = (0.15, 0.38, 0.62, 0.85)
_GAP, _TITLE = 0.04, 0.22
# Smaller outlines have no room for a name.
_NAMED_SHARE = 0.01
# Panels in inches: of a sheet with more than three cases, with fewer, of a case of its own.
_MANY, _FEW, _CASE = 1.35, 2.0, 2.3
_LEGEND, _HEADING = 0.5, 0.4
_DARK: dict[str, Any] = {"bbox": {"facecolor": "black", "alpha": 0.5, "pad": 0.8, "linewidth": 0}}
_CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}
# Left, right, above, below, in panel widths.
_EDGES = ((0.04, 0.5), (0.96, 0.5), (0.5, 0.96), (0.5, 0.04))


@dataclass(frozen=True)
class Plane:
    """One slice, rows from below, columns from the left of the picture.

    Attributes:
        name: shown in its corner.
        grey: (H, W) uint8.
        label: (H, W) indices, or None.
        mm: width and height.
        directions: what lies left, right, above and below, or "" where the header does not know.
        frame: left, bottom, width, height in mm of a box to draw, or None.
    """

    name: str
    grey: npt.NDArray[np.uint8]
    label: npt.NDArray[np.uint8] | None
    mm: tuple[float, float]
    directions: str = ""
    frame: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class SheetTile:
    """A case on a sheet: its title and planes, or the reason why there are none."""

    title: str
    planes: tuple[Plane, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Slices:
    """A case on a sheet of its own.

    Attributes:
        title: of the sheet.
        whole: the axial, coronal and sagittal plane of the whole scan, with a frame round the part shown in `rows`.
        rows: for each of these planes slices from one end of the heart to the other.
        volumes_ml: of the structures that are present.
    """

    title: str
    whole: tuple[Plane, ...]
    rows: tuple[tuple[Plane, ...], ...]
    volumes_ml: dict[str, float]


@dataclass(frozen=True)
class _Scan:
    """A scan in R, A, S order with the box that is shown of it."""

    image: npt.NDArray[np.float32]
    label: npt.NDArray[np.uint8] | None
    spacing: npt.NDArray[np.float64]
    box: tuple[slice, slice, slice]
    names: tuple[str, str, str]
    window: tuple[float, float]

    @property
    def middle(self) -> tuple[int, ...]:
        """The voxel that planes go through: the middle of the heart, or of a scan without labels."""
        return tuple(n // 2 for n in self.image.shape) if self.label is None else middle(self.label)


def sheet_tile(cohort: Cohort) -> SheetTile:
    """Three planes through the middle of the heart of a cohort's only case.

    Raises:
        InputError: a file of the case is bad.
    """
    scan, at, title = _only_case(cohort)
    planes = tuple(_plane(scan, axis, at[axis], scan.box) for axis, _ in PLANES)
    return SheetTile(title, planes)


def slices_of(cohort: Cohort) -> Slices:
    """Slices through a cohort's only case, and the volumes of its structures.

    Raises:
        InputError: a file of the case is bad.
    """
    scan, at, title = _only_case(cohort)
    everything = tuple(slice(0, n) for n in scan.image.shape)
    whole, rows = [], []
    for axis, _ in PLANES:
        whole.append(_plane(scan, axis, at[axis], everything, frame=scan.box != everything))
        first, last = _drawn(scan, axis)
        rows.append(tuple(_plane(scan, axis, round(first + p * (last - first)), scan.box) for p in _POSITIONS))
    volumes = {}
    if scan.label is not None:
        found = np.bincount(scan.label.ravel(), minlength=cohort.scheme.n_classes) * float(scan.spacing.prod()) / 1000
        volumes = {key: float(found[i]) for i, key in enumerate(cohort.scheme.keys, start=1) if found[i]}
    return Slices(title, tuple(whole), tuple(rows), volumes)


def contact_sheet(tiles: Sequence[SheetTile], scheme: LabelScheme, heading: str = "") -> Figure:
    """All tiles with label contours and one legend.

    Args:
        tiles: in reading order.
        scheme: of their label maps.
        heading: printed above.
    """
    columns = next(c for most, c in ((3, 1), (12, 2), (30, 3), (len(tiles) + 1, 4)) if len(tiles) <= most)
    rows = -(-len(tiles) // columns)
    side = _FEW if columns == 1 else _MANY
    tile_width, tile_height = 3 * (side + _GAP) + 3 * _GAP, side + _TITLE + _GAP
    figure, axis, top = _canvas(columns * tile_width, rows * tile_height, heading)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        left, bottom = column * tile_width + 2 * _GAP, top - (row + 1) * tile_height + _GAP
        _draw_tile(axis, tile, left, bottom, side, scheme)
    structure_legend(figure, scheme.colours, scheme.titles, "lower center")
    return figure


def case_sheet(case: Slices, scheme: LabelScheme) -> Figure:
    """Whole scan and slices through the heart, with label contours, and a legend with volumes.

    Args:
        case: what is shown.
        scheme: of its label map.
    """
    step = _CASE + _GAP
    figure, axis, top = _canvas((1 + len(_POSITIONS)) * step, 3 * step, case.title)
    scale_whole = _inches_per_mm(case.whole, _CASE)
    scale = _inches_per_mm([plane for row in case.rows for plane in row], _CASE)
    for i, (whole, row) in enumerate(zip(case.whole, case.rows, strict=True)):
        bottom = top - (i + 1) * step
        _draw_plane(axis, whole, 0.0, bottom, _CASE, scale_whole, scheme)
        for j, plane in enumerate(row, start=1):
            _draw_plane(axis, plane, j * step, bottom, _CASE, scale, scheme)
    if any(plane.label is not None for plane in case.whole):
        volumes = [f"{case.volumes_ml[key]:.3g} ml" if key in case.volumes_ml else "absent" for key in scheme.keys]
        titles = [f"{title}, {volume}" for title, volume in zip(scheme.titles, volumes, strict=True)]
        structure_legend(figure, scheme.colours, titles, "lower center")
    return figure


def _only_case(cohort: Cohort) -> tuple[_Scan, tuple[int, ...], str]:
    """The scan, the voxel that its planes go through, and its title."""
    (case,) = cohort.cases
    volume, reference = read_case(cohort, case)
    scan = _scan(volume, reference, cohort)
    return scan, scan.middle, _title(case, volume)


def _scan(volume: Volume, reference: Volume | None, cohort: Cohort) -> _Scan:
    order = io_orientation(volume.affine).astype(int)
    image = apply_orientation(volume.array, order)
    label = None if reference is None else np.asarray(apply_orientation(reference.array, order))
    sizes = np.empty(3)
    sizes[order[:, 0]] = voxel_sizes(volume.affine)
    drawn = np.zeros(image.shape, bool) if label is None else label != 0
    box = box_around(drawn, [int(np.ceil(_MARGIN_MM / size)) for size in sizes])
    window = grey_window(image[box][::2, ::2])
    stack = stack_axis(volume.affine)
    names = tuple(name for _, name in sorted(PLANES))
    if stack is not None and says_nothing(volume.affine, stack, _present(label, cohort.scheme)):
        names = tuple("in plane" if axis == order[stack, 0] else "across the stack" for axis in range(3))
    return _Scan(image, label, sizes, (box[0], box[1], box[2]), (names[0], names[1], names[2]), window)


def _present(label: npt.NDArray[np.uint8] | None, scheme: LabelScheme) -> list[str]:
    """The structures that are drawn; of an unlabelled scan all that could be."""
    drawn = [] if label is None else [key for i, key in enumerate(scheme.keys, start=1) if (label == i).any()]
    return drawn or list(scheme.keys)


def _drawn(scan: _Scan, axis: int) -> tuple[int, int]:
    """First and last slice with a label; of the whole scan without one."""
    others = tuple(k for k in range(3) if k != axis)
    drawn = np.array([]) if scan.label is None else np.flatnonzero(scan.label.any(axis=others))
    return (int(drawn[0]), int(drawn[-1])) if drawn.size else (0, scan.image.shape[axis] - 1)


def _plane(scan: _Scan, axis: int, at: int, box: Sequence[slice], frame: bool = False) -> Plane:
    across, up = (k for k in range(3) if k != axis)
    cut: list[slice | int] = list(box)
    cut[axis] = at
    low, high = scan.window
    grey = np.clip((scan.image[tuple(cut)].T - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    label = None if scan.label is None else scan.label[tuple(cut)].T
    width, height = (float(scan.spacing[k] * (box[k].stop - box[k].start)) for k in (across, up))
    left, below, wide, tall = (
        float(scan.spacing[k] * n)
        for k, n in (
            (across, scan.box[across].start),
            (up, scan.box[up].start),
            (across, scan.box[across].stop - scan.box[across].start),
            (up, scan.box[up].stop - scan.box[up].start),
        )
    )
    if axis != 0:
        # the patient's right on the left
        grey, label = grey[:, ::-1], None if label is None else label[:, ::-1]
        left = width - left - wide
    name = f"{scan.names[axis]} {at + 1}/{scan.image.shape[axis]}"
    directions = DIRECTIONS[axis] if scan.names[axis] == dict(PLANES)[axis] else ""
    return Plane(name, grey, label, (width, height), directions, (left, below, wide, tall) if frame else None)


def _title(case: Case, volume: Volume) -> str:
    shape = " x ".join(str(n) for n in volume.shape)
    spacing = " x ".join(f"{s:.3g}" for s in voxel_sizes(volume.affine))
    tilt = oblique_degrees(volume.affine)
    direction = f"{orientation(volume.affine)}{f' {tilt:.0f}° oblique' if tilt else ''}"
    words = [case.id, case.modality.upper(), shape, f"{spacing} mm", direction, "" if case.has_label else "no label"]
    return "  ".join(word for word in words if word)


def _canvas(width: float, height: float, heading: str) -> tuple[Figure, Axes, float]:
    """A figure with one axes in inches, and the upper edge of what is to be drawn."""
    above = _HEADING if heading else 0.1
    figure = new_figure(width, height + _LEGEND + above)
    figure.set_layout_engine("none")
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(-_LEGEND, height + above), autoscale_on=False)
    axis.set_axis_off()
    if heading:
        axis.text(2 * _GAP, height + 0.12, heading, fontsize=10, weight="bold", parse_math=False)
    return figure, axis, height


def _inches_per_mm(planes: Sequence[Plane], side: float) -> float:
    """The scale at which the largest of the planes fits into a square of `side` inches."""
    return side / max(mm for plane in planes for mm in plane.mm)


def _draw_tile(axis: Axes, tile: SheetTile, left: float, bottom: float, side: float, scheme: LabelScheme) -> None:
    axis.text(left, bottom + side + 0.05, tile.title, fontsize=6.5, parse_math=False, clip_on=True)
    if not tile.planes:
        width = 3 * side + 2 * _GAP
        axis.fill([left, left + width, left + width, left], np.repeat([bottom, bottom + side], 2), "#f0e0e0")
        text = "\n".join(textwrap.wrap(tile.reason, 62)[:6])
        axis.text(left + 0.08, bottom + side / 2, text, fontsize=7, va="center", parse_math=False)
        return
    scale = _inches_per_mm(tile.planes, side)
    for i, plane in enumerate(tile.planes):
        _draw_plane(axis, plane, left + i * (side + _GAP), bottom, side, scale, scheme)


def _draw_plane(
    axis: Axes, plane: Plane, left: float, bottom: float, side: float, inches_per_mm: float, scheme: LabelScheme
) -> None:
    """A plane in the middle of a black square of `side` inches."""
    axis.fill([left, left + side, left + side, left], np.repeat([bottom, bottom + side], 2), "black", zorder=-1)
    width, height = (mm * inches_per_mm for mm in plane.mm)
    x, y = left + (side - width) / 2, bottom + (side - height) / 2
    extent = (x, x + width, y, y + height)
    axis.imshow(
        plane.grey,
        cmap="gray",
        vmin=0,
        vmax=255,
        origin="lower",
        extent=extent,
        aspect="auto",
        # without it a thick slice is a block of grey
        interpolation="bilinear",
    )
    if plane.label is not None:
        _draw_contours(axis, plane.label, extent, scheme, named=side >= _CASE)
    if plane.frame is not None:
        at_x, at_y, wide, tall = (mm * inches_per_mm for mm in plane.frame)
        corners_x, corners_y = np.array([0, wide, wide, 0, 0]), np.array([0, 0, tall, tall, 0])
        axis.plot(x + at_x + corners_x, y + at_y + corners_y, color="white", linewidth=0.6, linestyle=":")
    axis.text(left + 0.04, bottom + 0.04, plane.name, fontsize=5 + side, color="white", parse_math=False, **_DARK)
    for letter, (across, up) in zip(plane.directions, _EDGES, strict=False):
        axis.text(left + across * side, bottom + up * side, letter, fontsize=4 + side, color="#FFD700", **_CENTRED)


def _draw_contours(
    axis: Axes,
    label: npt.NDArray[np.uint8],
    extent: tuple[float, float, float, float],
    scheme: LabelScheme,
    named: bool,
) -> None:
    if min(label.shape) < 2:
        return
    rows, columns = label.shape
    x = extent[0] + (np.arange(columns) + 0.5) * (extent[1] - extent[0]) / columns
    y = extent[2] + (np.arange(rows) + 0.5) * (extent[3] - extent[2]) / rows
    # the wall first, so that what it surrounds keeps its own colour along their common border
    order = sorted(range(len(scheme.keys)), key=lambda i: scheme.keys[i] != "myo")
    for i in order:
        inside = label == i + 1
        if inside.any() and not inside.all():
            outline(axis, x, y, inside, scheme.colours[i], width=0.8)
            if named and inside.sum() > _NAMED_SHARE * inside.size:
                row, column = deepest(inside)
                axis.text(x[column], y[row], scheme.keys[i], color=scheme.colours[i], fontsize=6.5, **_CENTRED, **_DARK)
