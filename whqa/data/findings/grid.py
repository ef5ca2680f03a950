"""What a header says about the place of the voxels, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import nibabel as nib
import numpy as np
import numpy.typing as npt

from whqa.data.findings.finding import Finding
from whqa.data.formats.volume_files import Grid, Volume, voxel_sizes

# Slices this thick, and this much thicker than wide, hide what lies between them.
_THICK_MM, _THICK_RATIO = 4.0, 2.0
_SPACING_MM = (0.1, 25.0)
_LARGEST_MM = 2500.0
# An adult heart with its great vessels is about 130 mm long; a short-axis stack holds the ventricles alone.
_WHOLE_HEART_MM, _VENTRICLES_MM = 100.0, 45.0
_STRAIGHT_DEGREES = 1.0


def orientation(affine: npt.NDArray[np.float64]) -> str:
    """The patient's side that each array axis points to, e.g. "LPS" (towards left, posterior, superior)."""
    return "".join(nib.aff2axcodes(affine))


def oblique_degrees(affine: npt.NDArray[np.float64]) -> float:
    """The largest angle between an array axis and the body axis next to it."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    angle = float(np.degrees(np.arccos(np.clip(np.abs(columns).max(axis=0), 0, 1))).max())
    return 0.0 if angle < _STRAIGHT_DEGREES else angle


def sheared_degrees(affine: npt.NDArray[np.float64]) -> float:
    """How far the array axes are from right angles, as those of a CT whose gantry was tilted."""
    columns = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    cosines = np.abs(np.triu(columns.T @ columns, 1)).max()
    return float(np.degrees(np.arcsin(np.clip(cosines, 0, 1))))


def stack_axis(affine: npt.NDArray[np.float64]) -> int | None:
    """The array axis along which thick slices are stacked, or None for a volume of about cubic voxels."""
    sizes = voxel_sizes(affine)
    axis = int(sizes.argmax())
    others = np.delete(sizes, axis)
    return axis if sizes[axis] > _THICK_MM and sizes[axis] >= _THICK_RATIO * others.max() else None


def place_findings(place: Grid | Volume, called: str, remedy: str) -> Iterator[Finding]:
    """What the header leaves open about the place of the voxels.

    Of short-axis stacks the affine is often the identity; whether that matters, their ventricles say better.

    Args:
        place: header of a file, or a volume in memory.
        called: what the volume is called in messages.
        remedy: what helps where nobody knows the sides.
    """
    for doubt in place.doubts:
        if doubt.code != "identity-affine" or stack_axis(place.affine) is None:
            helps = f"; {remedy}" if doubt.code != "two-places" else ""
            yield Finding("warning", doubt.code, f"{called}: {doubt.text}{helps}")


def grid_findings(shape: Sequence[int], affine: npt.NDArray[np.float64], whole_heart: bool) -> Iterator[Finding]:
    """What is odd about spacing and extent.

    Args:
        shape: of the volume.
        affine: voxel -> RAS mm.
        whole_heart: whether the cohort's structures reach beyond the ventricles.
    """
    sizes = voxel_sizes(affine)
    extent = sizes * shape
    mm = " x ".join(f"{e:.3g}" for e in extent)
    if sizes.min() < _SPACING_MM[0] or sizes.max() > _SPACING_MM[1] or extent.max() > _LARGEST_MM:
        spacing = " x ".join(f"{s:.3g}" for s in sizes)
        message = f"spacing {spacing} mm gives a scan of {mm} mm; is the header in another unit? Correct it"
        yield Finding("warning", "implausible-spacing", message)
        return
    if extent.min() < (_WHOLE_HEART_MM if whole_heart else _VENTRICLES_MM):
        message = f"the scan is {mm} mm small; a heart may not fit into it, look at a preview"
        yield Finding("note", "small-field-of-view", message)
    shear = sheared_degrees(affine)
    if shear > _STRAIGHT_DEGREES:
        message = (
            f"its axes are {shear:.2g} degrees off right angles, as of a tilted gantry, which networks do not see: "
            "convert it again with dcm2niix, which writes a straightened file beside it (Tilt)"
        )
        yield Finding("warning", "sheared-axes", message)
    axis = stack_axis(affine)
    if axis is not None:
        message = (
            f"slices are {sizes[axis]:.3g} mm thick, pixels {np.delete(sizes, axis).max():.3g} mm; what lies "
            "between slices can only be guessed; `whqa cv ... preprocess.spacing=[...]` leaves a null axis as it is"
        )
        yield Finding("note", "thick-slices", message)
