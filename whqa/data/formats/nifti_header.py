"""What a NIfTI header says, field by field: sound, or refused with one line.

The header is read raw, because nibabel mends a bad one in silence (a zero spacing becomes 1 mm). Where the standard and
its reference implementation (nifti1_io.c) settle a broken field, they are followed; what would be a guess is refused.
Format: NIfTI-1 and NIfTI-2, https://nifti.nimh.nih.gov.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from whqa.data.formats.foreign import describe_foreign
from whqa.data.formats.stacks import describe_stack
from whqa.data.formats.stream import first_bytes
from whqa.data.formats.volume import times
from whqa.errors import InputError

_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_COLOURS = (128, 2304)
# DICOM headers and the like before the voxels; CIFTI's are larger, but CIFTI holds no volume.
_MAX_EXTENSION = 1 << 28
# Of a quaternion's vector part: a thousand times what rounding to float32 adds, far below what damage does.
_MOST_SQUARED_LENGTH = 1.01


def read_header(path: Path) -> nib.Nifti1Header:
    """The header as it stands in the file, NIfTI-1 or -2, of either byte order.

    Only a quaternion just longer than 1 (b² + c² + d² up to 1.01) is brought to length 1, as nifti1_io.c does: nibabel
    refuses it, and so would those who open what is written with this header.

    Raises:
        InputError: no such file, not readable, or not a NIfTI file of header and voxels in one.
    """
    block = first_bytes(path, nib.Nifti2Header.sizeof_hdr)
    for kind, place, magic in ((nib.Nifti1Header, 344, b"n+1\0"), (nib.Nifti2Header, 4, b"n+2\0\r\n\x1a\n")):
        for mark in "<>":
            size = struct.pack(f"{mark}i", kind.sizeof_hdr)
            if len(block) >= kind.sizeof_hdr and block[:4] == size and block[place : place + len(magic)] == magic:
                header = kind(block[: kind.sizeof_hdr], endianness=mark, check=False)
                _normalise_quaternion(header)
                return header
    found = describe_foreign(path)
    raise InputError(
        f"{path}: not a NIfTI file {f'but {found}' if found else '(.nii or .nii.gz), or cut off within its header'}"
    )


def volume_shape(path: Path, header: nib.Nifti1Header) -> tuple[int, int, int]:
    """Shape of the one volume; trailing axes of one frame are dropped.

    Raises:
        InputError: not 3-D, or empty.
    """
    dimensions = int(header["dim"][0])
    if not 1 <= dimensions <= 7:
        raise InputError(f"{path}: the header declares {dimensions} dimensions; it is damaged")
    shape = tuple(int(n) for n in header["dim"][1 : dimensions + 1])
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) < 3:
        raise InputError(f"{path}: {len(shape)}-D of shape {times(shape)}, must be 3-D; give the whole volume")
    if len(shape) > 3 and min(shape) < 1:
        raise InputError(f"{path}: empty image of shape {times(shape)}; export the scan again")
    if len(shape) != 3:
        raise InputError(
            f"{path}: {len(shape)}-D of shape {times(shape)}, must be 3-D; {describe_stack(path, header, shape)}",
            "several-volumes",
        )
    if min(shape) < 1:
        raise InputError(f"{path}: empty image of shape {times(shape)}; export the scan again")
    return shape[0], shape[1], shape[2]


def stored_type(path: Path, header: nib.Nifti1Header) -> np.dtype[Any]:
    """Type of the voxels in the file, with its byte order.

    Raises:
        InputError: complex, colours, an unknown code, or a code that contradicts the bits per voxel.
    """
    code, bits = int(header["datatype"]), int(header["bitpix"])
    if code in _COLOURS:
        raise InputError(
            f"{path}: voxels are colours, not real numbers (NIfTI data type {code}); export the scan or the labels "
            "themselves, not their picture"
        )
    if code not in _TYPES:
        raise InputError(f"{path}: voxels are not real numbers (NIfTI data type {code})")
    dtype = np.dtype(_TYPES[code]).newbyteorder(header.endianness)
    if bits not in (0, 8 * dtype.itemsize):
        raise InputError(f"{path}: the header states voxels of type {dtype.name} and of {bits} bits; it is damaged")
    return dtype


def voxel_offset(path: Path, header: nib.Nifti1Header) -> int:
    """Byte at which the voxels begin. Readers differ on what 0 means, so that is refused as well.

    Raises:
        InputError: within the header, not a whole number, or far behind it.
    """
    offset, smallest = float(header["vox_offset"]), int(header.sizeof_hdr) + 4
    if not smallest <= offset <= _MAX_EXTENSION or offset != int(offset):
        raise InputError(f"{path}: the header puts the voxels at byte {offset:g}, must be {smallest} or a little more")
    return int(offset)


def scaling(path: Path, header: nib.Nifti1Header) -> tuple[float, float] | None:
    """Slope and intercept, or None where stored values are meant as they are (slope 0, or NaN as nibabel writes it).

    Raises:
        InputError: either is not finite.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return None
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError(f"{path}: scaling in the header is not valid, slope {slope:g} and intercept {intercept:g}")
    return None if (slope, intercept) == (1, 0) else (slope, intercept)


def _normalise_quaternion(header: nib.Nifti1Header) -> None:
    names = ("quatern_b", "quatern_c", "quatern_d")
    vector = np.array([float(header[name]) for name in names])
    with np.errstate(all="ignore"):
        squared = float(vector @ vector)
    if 1 < squared <= _MOST_SQUARED_LENGTH:
        for name, value in zip(names, vector / math.sqrt(squared), strict=True):
            header[name] = value
