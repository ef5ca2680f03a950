"""NRRD (.nrrd) and MetaImage (.mha) through SimpleITK, which is an optional extra: `pip install "whqa[itk]"`.

SimpleITK says where in the world the voxels lie, and what they are: a second opinion on `itk_header`. Their bytes are
read by `stream`, because ITK checks neither checksums nor lengths before it asks for memory.
ITK places voxels in LPS, whqa in RAS: the first two axes of the world change sign. An array is turned so that
`array[x, y, z]` is the voxel that nibabel gives for the same scan as NIfTI.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from whqa.data.formats.advice import python_line
from whqa.data.formats.itk_header import Declared, declared_voxels
from whqa.data.formats.nifti_placement import doubts
from whqa.data.formats.stream import voxel_blocks
from whqa.data.formats.volume import Grid, check_placement, check_spacing, voxel_sizes
from whqa.errors import InputError

_READERS = {".nrrd": "NrrdImageIO", ".mha": "MetaImageIO"}
_DETACHED = {".nhdr": ".nrrd", ".mhd": ".mha"}
_PIXELS = {
    **{f"{sign}int{bits}": f"sitk{sign.upper()}Int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"sitkFloat{bits}" for bits in (32, 64)},
}
_IN_ONE = "s.WriteImage(s.ReadImage(sys.argv[1]), sys.argv[2])"
_UNIT_TOLERANCE = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


def is_itk(path: Path) -> bool:
    """Whether the file's name is that of an ITK format, detached headers included, which `read_grid` refuses."""
    return path.suffix.lower() in _READERS | _DETACHED


def read_grid(path: Path, layered: bool = False) -> Grid:
    """What the header says; its own `header` is a NIfTI header that says the same.

    Segments in layers pass where `layered`; the grid is that of one layer.

    Raises:
        InputError: no such file, a detached header, a header that is not sound, more voxels declared than the file can
            hold, or SimpleITK is not installed.
    """
    suffix = path.suffix.lower()
    if suffix in _DETACHED:
        raise InputError(
            f"{path}: a detached header may point to any file, so it is not followed; save header and voxels in one: "
            f"{python_line(_IN_ONE, path, path.with_suffix(_DETACHED[suffix]), library='SimpleITK as s')}"
        )
    declared = declared_voxels(path, layered)
    sitk = _simpleitk(path)
    with _quiet(path, sitk):
        reader = _reader(path, sitk)
        reader.ReadImageInformation()
        found = tuple(reader.GetSize()), reader.GetPixelID(), reader.GetNumberOfComponents()
        spacing = np.array(reader.GetSpacing())
        origin, direction = np.array(reader.GetOrigin()), np.array(reader.GetDirection())
    kind = _PIXELS[declared.dtype.name]
    kind = kind.replace("sitk", "sitkVector") if declared.layers > 1 else kind
    if found != (declared.shape, getattr(sitk, kind), declared.layers):
        raise InputError(f"{path}: the header is read in two ways; convert it to NIfTI")
    affine = np.eye(4)
    affine[:3, :3] = _LPS_TO_RAS @ direction.reshape(3, 3) * spacing
    affine[:3, 3] = _LPS_TO_RAS @ origin
    check_spacing(path, "the header", spacing, declared.shape)
    check_placement(path, affine)
    if not np.allclose(voxel_sizes(affine), spacing, rtol=_UNIT_TOLERANCE, atol=0):
        raise InputError(f"{path}: the axes of its transform matrix are not of length 1; convert it to NIfTI")
    header = _nifti_header(declared, affine)
    return Grid(path, declared.shape, affine, header, doubts=doubts(header, declared.shape, affine))


def blocks_of(path: Path) -> Iterator[npt.NDArray[Any]]:
    """The voxels in the file's order as flat blocks in native byte order; see `whqa.data.formats.stream.voxel_blocks`.

    Raises:
        InputError: the file is truncated, damaged or goes on behind the voxels.
    """
    declared = declared_voxels(path)
    return voxel_blocks(path, declared.payload, 0, declared.shape, declared.dtype)


def layers_of(path: Path) -> npt.NDArray[Any]:
    """All layers of segments, (layer, X, Y, Z).

    Raises:
        InputError: as `blocks_of`.
    """
    declared = declared_voxels(path, layered=True)
    shape = (declared.layers, *declared.shape)
    stack, done = np.empty(math.prod(shape), declared.dtype.newbyteorder("=")), 0
    for block in voxel_blocks(path, declared.payload, 0, shape, declared.dtype):
        stack[done : done + block.size] = block
        done += block.size
    return stack.reshape(shape, order="F")


def _reader(path: Path, sitk: ModuleType) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS[path.suffix.lower()])
    reader.SetFileName(str(path))
    return reader


def _simpleitk(path: Path) -> ModuleType:
    try:
        import SimpleITK
    except ImportError:
        raise InputError(
            f'{path}: {path.suffix} files are read through SimpleITK, which is not installed; pip install "whqa[itk]"'
        ) from None
    return SimpleITK


@contextmanager
def _quiet(path: Path, sitk: ModuleType) -> Iterator[None]:
    """ITK's warnings stay off standard error, its errors become one line."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        said = re.search(r"ERROR: (?:\w+\(0x\w+\): )?(.*)", str(error))
        why = (said[1] if said else type(error).__name__)[:150]
        raise InputError(f"{path}: SimpleITK cannot read it ({why}); convert it to NIfTI") from None
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _nifti_header(declared: Declared, affine: npt.NDArray[np.float64]) -> nib.Nifti1Header:
    header = nib.Nifti1Header()
    header.set_data_dtype(declared.dtype.newbyteorder("="))
    header.set_data_shape(declared.shape)
    header.set_zooms(voxel_sizes(affine))
    header.set_sform(affine, "scanner")
    header.set_qform(affine, "scanner")
    header.set_xyzt_units("mm")
    return header
