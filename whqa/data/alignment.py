"""A mask on its image's grid, where both have the same voxels: turned, padded or cut, never resampled.

Programs store masks in another order of the axes, crop them to what they hold, or write down another of the places
that the image's header states. As long as every voxel of the mask is one of the image's lattice, nothing is lost by
bringing it there, and it is told. Everything else is refused with its cause and a command that mends it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import NamedTuple

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import apply_orientation
from scipy import ndimage

from whqa.data.formats.volume_files import (
    Grid,
    Volume,
    corner_distance,
    is_identity,
    python_line,
    readings,
    times,
    voxel_sizes,
    written_beside,
)
from whqa.errors import InputError

_Affine = npt.NDArray[np.float64]

_TOLERANCE_VOXELS = 0.1
_SAME_SPACING = 1e-2
_SAME_DIRECTION_DEGREES = 1.0
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_COPY = "i, m = map(n.load, sys.argv[1:3]); n.save(n.Nifti1Image(m.dataobj, i.affine, m.header), sys.argv[3])"
_RESAMPLE = (
    "from nibabel.processing import resample_from_to as r; i, m = map(n.load, sys.argv[1:3]); "
    "n.save(r(m, i, order=0), sys.argv[3])"
)
_COPY_ITK = "i, m = map(s.ReadImage, sys.argv[1:3]); m.CopyInformation(i); s.WriteImage(m, sys.argv[3])"
_RESAMPLE_ITK = (
    "i, m = map(s.ReadImage, sys.argv[1:3]); "
    "s.WriteImage(s.Resample(m, i, s.Transform(), s.sitkNearestNeighbor), sys.argv[3])"
)


class Remedies(NamedTuple):
    """What helps, in the words of whoever brings a mask to its image's grid.

    Attributes:
        resample: where the voxels lie elsewhere.
        sides: where one of both has lost its place; {} stands for the axes of the other.
    """

    resample: str
    sides: str


@dataclass(frozen=True)
class _Fit:
    """Where a mask's voxels are on the image's lattice.

    Attributes:
        turn: nibabel's orientation (3, 2): mask axis -> image axis and direction.
        start: voxel of the image that the turned mask begins at.
        shape: of the turned mask.
        whole: whether that is all of the image.
        notes: for people.
    """

    turn: npt.NDArray[np.int_]
    start: tuple[int, ...]
    shape: tuple[int, ...]
    whole: bool
    notes: tuple[str, ...] = ()

    @property
    def turned(self) -> bool:
        return self.turn.tolist() != [[0, 1], [1, 1], [2, 1]]


def on_lattice_of(image: Volume | Grid, mask: Volume, remedies: Remedies | None = None) -> Volume:
    """The mask on the image's grid: its axes turned, what it lacks filled with 0, what reaches beyond cut off.

    Either header may be read as its writer may have read it (sform, qform, pixdim), where exactly one way makes both
    the same grid. What was done is added to the notes.

    Args:
        image: whose grid is wanted.
        mask: label values or indices, 0 outside.
        remedies: what helps, in place of commands that write another file.

    Raises:
        InputError: the voxels are not the image's, code "grid-mismatch"; the text names both files, the cause and a
            command that helps.
    """
    fit = _fit(image, mask, remedies)
    if fit.whole and not fit.turned and not fit.notes:
        return mask
    array = np.asarray(apply_orientation(mask.array, fit.turn))
    notes = fit.notes
    if not fit.whole:
        array, cut = _extended(array, fit.start, image.shape)
        if cut and not array.any():
            raise _outside(image, mask)
        notes += _told(fit, image.shape, cut)
    return Volume(np.asfortranarray(array), image.affine, mask.path, image.header, (*mask.notes, *notes))


def check_lattice(image: Volume | Grid, mask: Volume | Grid, remedies: Remedies | None = None) -> None:
    """Whether `on_lattice_of` can bring the mask to the image's grid, by the headers alone.

    Raises:
        InputError: it cannot, as there.
    """
    _fit(image, mask, remedies)


def needs_resampling(image: Volume | Grid, mask: Volume | Grid) -> bool:
    """Whether the two state different places, and both a believable one, so that resampling brings them together."""
    try:
        _fit(image, mask)
    except InputError:
        return not (is_lost(image) or is_lost(mask) or _without_signs(image, mask))
    return False


def is_one_grid(image: Volume | Grid, mask: Volume | Grid) -> bool:
    """Whether both have the same voxels, in whatever order of the axes."""
    fit = _on_lattice(image.affine, mask.affine, image.shape, mask.shape)
    return fit is not None and fit.whole


def resampled_onto(image: Volume | Grid, mask: Volume) -> Volume:
    """The mask on the image's grid, each voxel with the nearest label; what was done is added to the notes.

    Args:
        image: whose grid is wanted.
        mask: whole numbers, 0 outside.

    Raises:
        InputError: nothing of the mask lies in the image, code "grid-mismatch".
    """
    between = np.linalg.inv(mask.affine) @ image.affine
    array = ndimage.affine_transform(
        mask.array, between[:3, :3], between[:3, 3], image.shape, order=0, mode="grid-constant", cval=0, prefilter=False
    )
    if mask.array.any() and not array.any():
        raise _outside(image, mask)
    note = f"it was resampled onto the image's grid, each voxel with the nearest label: {_difference(image, mask)}"
    return Volume(np.asfortranarray(array), image.affine, mask.path, image.header, (*mask.notes, note))


def _outside(image: Volume | Grid, mask: Volume) -> InputError:
    return InputError(
        f"{mask.path}: all that it marks lies outside of the image {image.path}; give the mask of this scan",
        "grid-mismatch",
    )


def _fit(image: Volume | Grid, mask: Volume | Grid, remedies: Remedies | None = None) -> _Fit:
    used = _on_lattice(image.affine, mask.affine, image.shape, mask.shape)
    if used is not None and used.whole:
        return used
    others = _other_readings(image, mask)
    parts = [fit for fit in (used, *others) if fit is not None and _may_be_part(image, mask, fit)]
    for found in ([fit for fit in others if fit.whole], [fit for fit in parts if fit is used], parts):
        if found and all(_is_same(fit, found[0]) for fit in found):
            return found[0]
    raise InputError(
        f"{mask.path}: its grid differs from that of {image.path}: {_cause(image, mask, remedies)}", "grid-mismatch"
    )


def _on_lattice(
    image: _Affine, mask: _Affine, image_shape: tuple[int, ...], mask_shape: tuple[int, ...]
) -> _Fit | None:
    """Whether every voxel of the mask is one of the image's lattice, within a tenth of a voxel."""
    between = np.linalg.inv(image) @ mask
    axes = np.rint(between[:3, :3])
    if not (np.abs(axes).sum(axis=0) == 1).all() or not (np.abs(axes).sum(axis=1) == 1).all():
        return None
    centre = (np.array(mask_shape) - 1) / 2
    lattice = np.eye(4)
    lattice[:3, :3] = axes
    lattice[:3, 3] = np.rint(between[:3, :3] @ centre + between[:3, 3] - axes @ centre)
    if corner_distance(image @ lattice, mask, mask_shape) > _TOLERANCE_VOXELS * voxel_sizes(image).min():
        return None
    target = np.abs(axes).argmax(axis=0)
    turn = np.stack([target, axes[target, range(3)]], axis=1).astype(int)
    shape, start = np.zeros(3, int), lattice[:3, 3].astype(int)
    shape[target] = mask_shape
    start -= np.where(axes.sum(axis=1) < 0, shape - 1, 0)
    whole = tuple(shape) == tuple(image_shape) and not start.any()
    fit = _Fit(turn, tuple(start.tolist()), tuple(shape.tolist()), whole)
    if not fit.turned:
        return fit
    before, after = ("".join(nib.aff2axcodes(affine)) for affine in (mask, image))
    return replace(fit, notes=(f"its axes were turned from {before} to the image's {after}",))


def _other_readings(image: Volume | Grid, mask: Volume | Grid) -> list[_Fit]:
    """Fits under every pair of readings of the two headers, those first that leave more as it is used."""
    found = []
    of_mask = readings(mask)
    for image_name, image_place in readings(image).items():
        for mask_name, mask_place in of_mask.items():
            fit = _on_lattice(image_place, mask_place, image.shape, mask.shape)
            read = (("image", image_name, image_place, image), ("mask", mask_name, mask_place, mask))
            named = [
                f"the {whose}'s {name}, not by the place that is used"
                for whose, name, place, volume in read
                if not np.allclose(place, volume.affine, atol=1e-3)
            ]
            if fit is not None and named:
                note = f"mask and image agree by {' and by '.join(named)}"
                found.append((len(named), replace(fit, notes=(note, *fit.notes))))
    return [fit for _, fit in sorted(found, key=lambda pair: pair[0])]


def _may_be_part(image: Volume | Grid, mask: Volume | Grid, fit: _Fit) -> bool:
    """Whether a part of the lattice can be believed: a lost place may lie on it by chance."""
    if is_lost(mask) or _states_nothing(image):
        return False
    return not (is_identity(image.affine) and fit.shape == tuple(image.shape))


def is_lost(volume: Volume | Grid) -> bool:
    """Whether a header does not know where its voxels lie: it states nothing, or what is written in its stead."""
    return is_identity(volume.affine) or _states_nothing(volume)


def _states_nothing(volume: Volume | Grid) -> bool:
    header = volume.header
    return header is not None and not int(header["qform_code"]) and not int(header["sform_code"])


def _is_same(one: _Fit, other: _Fit) -> bool:
    return one.turn.tolist() == other.turn.tolist() and one.start == other.start


def _extended(
    array: npt.NDArray[np.generic], start: tuple[int, ...], shape: tuple[int, ...]
) -> tuple[npt.NDArray[np.generic], int]:
    """The array within zeros of the image's shape, and how many voxels that are not 0 found no room."""
    whole = np.zeros(shape, array.dtype, order="F")
    target, source = [], []
    for first, size, room in zip(start, array.shape, shape, strict=True):
        low, high = max(0, first), max(0, first, min(room, first + size))
        target.append(slice(low, high))
        source.append(slice(low - first, high - first))
    part = array[tuple(source)]
    whole[tuple(target)] = part
    return whole, int(np.count_nonzero(array)) - int(np.count_nonzero(part))


def _told(fit: _Fit, shape: tuple[int, ...], cut: int) -> tuple[str, ...]:
    size, room = times(fit.shape), times(shape)
    beyond = any(first < 0 or first + n > most for first, n, most in zip(fit.start, fit.shape, shape, strict=True))
    if not beyond:
        return (f"its {size} voxels are a part of the image's {room}, the rest was filled with background",)
    lost = f"{cut:,} voxel(s) that it marks lie outside and were cut off" if cut else "it marks nothing outside"
    return (f"its {size} voxels reach beyond the image's {room}: {lost}",)


def _cause(image: Volume | Grid, mask: Volume | Grid, remedies: Remedies | None) -> str:
    """Why there is no fit, and the one command that helps."""
    shapes = f"its shape {times(mask.shape)} is not the image's {times(image.shape)}"
    if is_lost(image) and is_lost(mask):
        return f"neither states where the scan lies, and {shapes}; export both again, with their place"
    for volume, other, what in ((mask, image, "mask"), (image, mask, "image")):
        if is_lost(volume):
            why = "states no orientation" if _states_nothing(volume) else "has the identity as its affine, a lost place"
            if volume.shape != other.shape:
                return f"the {what} {why}, and {shapes}; export it again, with its place"
            axes = "".join(nib.aff2axcodes(other.affine))
            return f"the {what} {why}; {remedies.sides.format(axes) if remedies else _copy(other, volume)}"
    if _without_signs(image, mask):
        why = "the mask's place is the image's with left and right, front and back exchanged, as by taking LPS for RAS"
        return f"{why}; {_copy(image, mask)}"
    if _is_apart(image, mask):
        return f"it lies {_difference(image, mask)}; give the mask of this scan"
    places = [
        f"the {what}'s {' and '.join(readings(volume))} contradict each other and none fits, "
        for what, volume in (("image", image), ("mask", mask))
        if len(readings(volume)) > 1
    ]
    if remedies is not None:
        remedy = remedies.resample
    else:
        files = not _in_memory(image) and not _in_memory(mask)
        remedy = f"resample it{f': {_command(_RESAMPLE, _RESAMPLE_ITK, image, mask)}' if files else ''}"
    return f"{''.join(places)}{_difference(image, mask)}; {remedy}"


def _without_signs(image: Volume | Grid, mask: Volume | Grid) -> bool:
    """Whether both are one grid once the first two axes of the mask's world are turned, as between LPS and RAS."""
    return is_one_grid(image, replace(mask, affine=_LPS_TO_RAS @ mask.affine))


def _is_apart(image: Volume | Grid, mask: Volume | Grid) -> bool:
    """Whether the boxes of both have nothing in common."""
    low, high = zip(*(_box(volume) for volume in (image, mask)), strict=True)
    return bool((np.max(low, axis=0) > np.min(high, axis=0)).any())


def _box(volume: Volume | Grid) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    ends = np.array([*itertools.product(*((-0.5, n - 0.5) for n in volume.shape))])
    corners = ends @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    return corners.min(axis=0), corners.max(axis=0)


def _difference(image: Volume | Grid, mask: Volume | Grid) -> str:
    if _is_apart(image, mask):
        centres = [np.mean(_box(volume), axis=0) for volume in (image, mask)]
        return (
            f"altogether outside of the image, {np.linalg.norm(centres[0] - centres[1]):.0f} mm from centre to centre"
        )
    sizes, own = voxel_sizes(image.affine), voxel_sizes(mask.affine)
    cosines = np.abs((image.affine[:3, :3] / sizes).T @ (mask.affine[:3, :3] / own))
    degrees = float(np.degrees(np.arccos(np.clip(cosines.max(axis=0), 0, 1))).max())
    if degrees > _SAME_DIRECTION_DEGREES:
        return f"its axes are turned by {degrees:.3g} degrees"
    matched = sizes[cosines.argmax(axis=0)]
    if np.abs(own / matched - 1).max() > _SAME_SPACING:
        return f"its spacing is {times(own)} mm, the image's {times(matched)} mm"
    first = np.linalg.inv(image.affine) @ mask.affine[:, 3]
    shift = " x ".join(f"{abs(s - round(s)):.2g}" for s in first[:3])
    return f"its voxels lie between the image's, {shift} of a voxel away"


def _copy(first: Volume | Grid, changed: Volume | Grid) -> str:
    """How `changed` gets the place of `first`."""
    if _in_memory(first) or _in_memory(changed):
        return "if its array is in the other's order, give it the other's affine: (array, affine)"
    command = _command(_COPY, _COPY_ITK, first, changed)
    return f"if its voxels are in the other's order, give it the other's place: {command}"


def _in_memory(volume: Volume | Grid) -> bool:
    return isinstance(volume, Volume) and volume.in_memory


def _command(of_nibabel: str, of_itk: str, first: Volume | Grid, changed: Volume | Grid) -> str:
    """A line for the shell that writes `changed` anew, made from `first` and itself."""
    nifti = all(volume.path.name.lower().endswith((".nii", ".nii.gz")) for volume in (first, changed))
    code, library = (of_nibabel, "nibabel as n") if nifti else (of_itk, "SimpleITK as s")
    paths = first.path, changed.path, written_beside(changed.path, "on_grid")
    return python_line(code, *paths, library=library)
