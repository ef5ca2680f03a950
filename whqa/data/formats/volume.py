"""A volume and its place in the world, whatever file it comes from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt

from whqa.errors import InputError

SpacingRule = Literal["pixdim", "affine", "refuse"]
"""Which of a header's two spacings holds where they disagree."""

# No scanner is finer or larger, and what is resampled by such numbers fits into no memory.
_SMALLEST_SPACING_MM = 1e-3
_LARGEST_EXTENT_MM = 1e4
_LARGEST_POSITION_MM = 1e6
# Of axes of length 1: a shear of more than 89.9 degrees.
_SMALLEST_DETERMINANT = 1e-3


class HeaderConflictWarning(UserWarning):
    """A header's pixdim and affine state different spacings; the text says which one is used."""


class Doubt(NamedTuple):
    """What a header leaves open about the place of its voxels, or states twice and differently.

    Attributes:
        code: "unstated-orientation", nothing is stated and something is assumed; "identity-affine", what is stated is
            what programs write that have lost the place; "two-places", qform and sform differ.
        text: for people, to stand behind the file's name.
    """

    code: Literal["unstated-orientation", "identity-affine", "two-places"]
    text: str


@dataclass(frozen=True)
class Grid:
    """What a header says about the voxels of its file, after the spacing rule.

    Attributes:
        path: of the file.
        shape: of the volume, 3-D.
        affine: (4, 4) float64, voxel -> RAS mm.
        header: as it stands in the file; of NRRD and MHA a NIfTI header that says the same.
        conflict: how pixdim and affine disagree, or None.
        doubts: what else is open or contradictory about the place.
        spacing_rule: which of the two spacings `affine` has.
    """

    path: Path
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    header: nib.Nifti1Header
    conflict: str | None = None
    doubts: tuple[Doubt, ...] = ()
    spacing_rule: SpacingRule = "pixdim"

    @property
    def notes(self) -> tuple[str, ...]:
        """All that is doubtful, for people, each to stand behind the file's name."""
        conflict = (f"its header contradicts itself, {self.conflict}; {self.spacing_rule} is used",)
        return (*(conflict if self.conflict else ()), *(doubt.text for doubt in self.doubts))


@dataclass(frozen=True)
class Volume:
    """A 3-D array with its place in the world.

    Attributes:
        array: (X, Y, Z) in the file's own order; float32 for images (small integers where read so), uint8 indices
            for labels.
        affine: (4, 4) float64, voxel -> RAS mm, corrected by the spacing rule.
        path: where it comes from, for messages.
        header: as of `Grid`, or None for a volume that was never a file.
        notes: what reading had to assume or mend, for people, each to stand behind the file's name.
        doubts: as of `Grid`, of a volume in memory.
        in_memory: whether it was never a file; `path` then is a word for it.
        conflict, spacing_rule: as of `Grid`, of a volume in memory.
    """

    array: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    path: Path
    header: nib.Nifti1Header | None = None
    notes: tuple[str, ...] = ()
    doubts: tuple[Doubt, ...] = ()
    in_memory: bool = False
    conflict: str | None = None
    spacing_rule: SpacingRule = "pixdim"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.array.shape


def voxel_sizes(affine: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Column lengths of an affine: (3,) mm along the array's axes."""
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def check_spacing(
    path: Path, what: str, sizes: npt.NDArray[np.float64], shape: tuple[int, int, int], remedy: str = ""
) -> None:
    """Whether a scan can have voxels of these sizes.

    Raises:
        InputError: one is zero, negative, not finite, or far from any scanner's; `what` of the file states it.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        possible = (sizes >= _SMALLEST_SPACING_MM) & (sizes * shape <= _LARGEST_EXTENT_MM)
    if not possible.all():
        raise InputError(f"{path}: {what} gives a spacing of {times(sizes)} mm; {remedy or 'correct the header'}")


def check_placement(path: Path, affine: npt.NDArray[np.float64]) -> None:
    """Whether the axes of an affine span space, and its origin lies somewhere near the scanner.

    Raises:
        InputError: they do not, or a number is not finite.
    """
    with np.errstate(all="ignore"):
        determinant = abs(np.linalg.det(affine[:3, :3] / voxel_sizes(affine)))
    if not np.isfinite(affine[:3, :3]).all() or not determinant > _SMALLEST_DETERMINANT:
        raise InputError(f"{path}: singular affine, its axes do not span space; correct the header")
    if not (np.abs(affine[:3, 3]) <= _LARGEST_POSITION_MM).all():
        raise InputError(
            f"{path}: the first voxel lies at ({', '.join(f'{p:.4g}' for p in affine[:3, 3])}) mm; correct the header"
        )


def is_identity(affine: npt.NDArray[np.float64]) -> bool:
    """Whether an affine is what a lost one is replaced by: axes along the world's from its origin on.

    That is `np.eye(4)` of nibabel's users, or the same in LPS, SimpleITK's default; the spacing may have survived.
    """
    axes = affine[:3, :3] / voxel_sizes(affine)
    if affine[:3, 3].any():
        return False
    return any(np.allclose(axes, np.diag(signs), rtol=0, atol=1e-6) for signs in ((1, 1, 1), (-1, -1, 1)))


def corner_distance(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """How far apart two affines put the corners of a volume of this shape, at most: mm."""
    corners = np.array([[*c, 1] for c in itertools.product(*((-0.5, n - 0.5) for n in shape))])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())


def refuse_infinite(path: Path, count: int) -> None:
    """Refuse a file of which `count` voxels are NaN or infinite.

    Raises:
        InputError: there are any.
    """
    if count:
        raise InputError(f"{path}: {count:,} voxel(s) are NaN or infinite; replace them or export the file again")


def times(numbers: Iterable[Any]) -> str:
    """Sizes as people write them: "512 x 512 x 300"."""
    return " x ".join(f"{float(n):.4g}" for n in numbers) or "()"
