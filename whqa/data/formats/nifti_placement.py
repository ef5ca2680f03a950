"""Where a NIfTI header puts its voxels: the place that is used, the others that it states, and what it leaves open.

A header may state a place three times, as sform, as qform and as spacing (pixdim), and real files contradict
themselves. Where none is stated (qform_code and sform_code are 0, ANALYZE's way) the standard attaches no orientation
to the axes; readers differ in what they assume then, and here it is what nibabel does: LAS, centred on 0.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nibabel.spatialimages import HeaderDataError

from whqa.data.formats.advice import python_line, written_beside
from whqa.data.formats.stream import cause
from whqa.data.formats.volume import (
    Doubt,
    SpacingRule,
    check_placement,
    check_spacing,
    corner_distance,
    is_identity,
    times,
    voxel_sizes,
)
from whqa.errors import InputError

_LAST_TRANSFORM_CODE = 5
_ANEW = (
    "i = n.load(sys.argv[1]); "
    "n.save(n.Nifti1Image(i.dataobj, {affine}, None, None, None, i.get_data_dtype()), sys.argv[2])"
)
_MM = {1: 1000, 3: 0.001}
# How long a scan of a person is, from a small animal's to a whole body.
_SCAN_MM = (10.0, 2500.0)
_SPACING_TOLERANCE = 1e-3
_FOREIGN_UNITS = {1: "metres", 3: "micrometres"}
# Of a voxel: two readings that are nearer to each other than this are one.
_SAME_PLACE = 0.1


def placed(
    path: Path, header: nib.Nifti1Header, shape: tuple[int, int, int], rule: SpacingRule
) -> tuple[npt.NDArray[np.float64], str | None]:
    """Affine (4, 4), voxel -> RAS mm, by the spacing rule; and how pixdim and affine disagree, or None.

    Raises:
        InputError: a spacing that no scan has, a singular affine, an unknown transform code, lengths not in mm, or rule
            "refuse" and pixdim and affine disagree.
    """
    if unit := _FOREIGN_UNITS.get(int(header["xyzt_units"]) & 7):
        raise InputError(f"{path}: lengths are in {unit}; {_in_mm(path, header, shape)}")
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    affine = _best_affine(path, header)
    sizes = voxel_sizes(affine)
    if rule != "affine":
        sound = _is_possible(affine, shape)
        check_spacing(path, "pixdim", pixdim, shape, f"write it by its affine: {by_affine(path)}" if sound else "")
    if rule == "affine" or not (np.isfinite(sizes).all() and (sizes > 0).all()):
        check_spacing(path, "affine", sizes, shape)
    check_placement(path, affine)
    if np.allclose(sizes, pixdim, rtol=_SPACING_TOLERANCE, atol=0):
        return affine, None
    conflict = f"pixdim says {times(pixdim)} mm, the affine {times(sizes)} mm"
    if rule == "refuse":
        remedy = "set data.spacing_rule=pixdim or data.spacing_rule=affine, whichever is right"
        raise InputError(f"{path}: {conflict}; {remedy}", "header-conflict")
    if rule == "pixdim":
        affine = _with_sizes(affine, pixdim)
    return affine, conflict


def by_affine(path: Path) -> str:
    """A line for the shell that writes a file anew whose affine is right where its pixdim is not."""
    return python_line(_ANEW.format(affine="i.affine"), path, written_beside(path, "by_affine"))


def _in_mm(path: Path, header: nib.Nifti1Header, shape: tuple[int, ...]) -> str:
    """How to bring the header to mm; the numbers may be mm already, beside a wrong unit."""
    factor = _MM[int(header["xyzt_units"]) & 7]
    largest = float((factor * voxel_sizes(_best_affine(path, header)) * shape).max())
    if not _SCAN_MM[0] <= largest <= _SCAN_MM[1]:
        factor = 1
    affine = f"__import__('numpy').diag([{factor}, {factor}, {factor}, 1]) @ i.affine"
    line = python_line(_ANEW.format(affine=affine), path, written_beside(path, "mm"))
    return f"convert it to mm: {line}"


def _best_affine(path: Path, header: nib.Nifti1Header) -> npt.NDArray[np.float64]:
    """sform where its code is set, else qform, else spacing alone: the order of the standard's "method 3, 2, 1"."""
    for name in ("sform_code", "qform_code"):
        if not 0 <= int(header[name]) <= _LAST_TRANSFORM_CODE:
            raise InputError(f"{path}: {name} {int(header[name])} is not one of 0 to 5; correct the header")
        if header[name] != 0:
            break
    sound, handedness = header.copy(), float(header["pixdim"][0])
    if handedness < 0 and handedness != -1 and name == "qform_code":
        raise InputError(f"{path}: pixdim[0] is {handedness:g}, must be -1 or 1; correct the header")
    # 0 should not occur and means 1, as in nifti1_io.c
    sound["pixdim"][0] = -1 if handedness == -1 else 1
    try:
        return np.array(sound.get_best_affine(), dtype=np.float64)
    except (HeaderDataError, ValueError) as error:
        raise InputError(f"{path}: orientation in the header is not valid ({cause(error)})") from None


def readings_of(header: nib.Nifti1Header, shape: tuple[int, ...]) -> dict[str, npt.NDArray[np.float64]]:
    """Every place that a program may have read from a header: its name in plain words -> affine, voxel -> RAS mm.

    Readings that no scan can have, and those within a tenth of a voxel of an earlier one, are left out.
    """
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    found: dict[str, npt.NDArray[np.float64]] = {}
    with np.errstate(all="ignore"):
        for name, affine in _stated(header, pixdim):
            rescaled = _with_sizes(affine, pixdim)
            for words, place in ((name, affine), (f"{name} with the spacing of pixdim", rescaled)):
                known = (corner_distance(place, one, shape) for one in found.values())
                near = _SAME_PLACE * voxel_sizes(place).min()
                if _is_possible(place, shape) and not any(far <= near for far in known):
                    found[words] = place
    return found


def doubts(
    header: nib.Nifti1Header | None, shape: tuple[int, int, int], affine: npt.NDArray[np.float64]
) -> tuple[Doubt, ...]:
    """What a header leaves open, or states twice and differently, about the place `affine` that is used.

    The contradiction between pixdim and affine is told by `placed`. None is for an affine that never stood in a header.
    """
    if header is not None and not int(header["sform_code"]) and not int(header["qform_code"]):
        text = (
            "its header does not say how the patient lies (qform_code and sform_code are 0): left and right, front and "
            f"back are unknown; {''.join(nib.aff2axcodes(affine))} is assumed, as nibabel does"
        )
        return (Doubt("unstated-orientation", text),)
    found = []
    if is_identity(affine):
        text = (
            "its affine is the identity, the mark of a program that has lost the place of the scan: left and right, "
            f"front and back may be wrong; {''.join(nib.aff2axcodes(affine))} is used as it stands there"
        )
        found.append(Doubt("identity-affine", text))
    if header is None:
        return tuple(found)
    pixdim = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    places = [_with_sizes(place, pixdim) for _, place in _stated(header, pixdim)]
    if len(places) == 2 and all(_is_possible(place, shape) for place in places):
        apart = corner_distance(places[0], places[1], shape)
        if apart > _SAME_PLACE * pixdim.min():
            text = f"its qform and its sform put the voxels up to {apart:.3g} mm apart; the sform is used"
            found.append(Doubt("two-places", text))
    return tuple(found)


def affine_of_axes(
    axes: str, sizes: npt.NDArray[np.float64], shape: tuple[int, ...], on: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float64]:
    """Affine, voxel -> RAS mm, of a volume of which only the sides are known that its axes point to, such as "LPS".

    Args:
        axes: three letters.
        sizes: (3,) mm.
        shape: of the volume.
        on: affine of a volume that covers the same space from its first voxel on; None puts the centre at 0.
    """
    turn = axcodes2ornt(axes)
    if on is not None:
        return np.asarray(on @ np.linalg.inv(inv_ornt_aff(ornt_transform(turn, io_orientation(on)), shape)))
    affine = np.diag([0.0, 0.0, 0.0, 1.0])
    affine[turn[:, 0].astype(int), range(3)] = turn[:, 1] * sizes
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _stated(header: nib.Nifti1Header, pixdim: npt.NDArray[np.float64]) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """What stands in the header, unchecked; where nothing does, what programs are known to assume."""
    found = []
    if 0 < int(header["sform_code"]) <= _LAST_TRANSFORM_CODE:
        found.append(("sform", np.array(header.get_sform(), dtype=np.float64)))
    if 0 < int(header["qform_code"]) <= _LAST_TRANSFORM_CODE:
        sound = header.copy()
        sound["pixdim"][0] = -1 if float(header["pixdim"][0]) == -1 else 1
        with contextlib.suppress(HeaderDataError, ValueError):
            found.append(("qform", np.array(sound.get_qform(), dtype=np.float64)))
    if not found:
        x, y, z = pixdim
        found.append(("spacing as nibabel reads it", np.array(header.get_base_affine(), dtype=np.float64)))
        found.append(("spacing as ITK reads it", np.diag([-x, -y, z, 1])))
        found.append(("spacing as the reference implementation reads it", np.diag([x, y, z, 1])))
    return found


def _with_sizes(affine: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    rescaled = affine.copy()
    rescaled[:3, :3] *= sizes / voxel_sizes(affine)
    return rescaled


def _is_possible(affine: npt.NDArray[np.float64], shape: tuple[int, ...]) -> bool:
    x, y, z = shape
    try:
        check_spacing(Path(), "", voxel_sizes(affine), (x, y, z))
        check_placement(Path(), affine)
    except InputError:
        return False
    return True
