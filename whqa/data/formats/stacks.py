"""What a NIfTI file of several volumes holds, told by one slice of it, and the command that makes one volume of it."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy

from whqa.data.formats.advice import python_line, written_beside

_SUM_TOLERANCE = 0.02
_MOST_LAYERS = 512
_MOST_VOXELS = 1 << 31
_ONE_MAP = "import numpy as p; i = n.load(sys.argv[1]); a = {array}; n.save(n.Nifti1Image(a, i.affine), sys.argv[2])"
_FIRST = "i = n.load(sys.argv[1]); n.save(i.slicer[..., {index}], sys.argv[2])"


def describe_stack(path: Path, header: nib.Nifti1Header, shape: tuple[int, ...]) -> str:
    """What several volumes in one file are, to stand behind "must be 3-D; ".

    Args:
        path: of a NIfTI file.
        header: of the file; where it is broken besides, less is said.
        shape: of its voxels.
    """
    if len(shape) == 5 and shape[3] == 1:
        return "it is a field of vectors, not a scan or a label map; give the volume that it belongs to"
    axis = 0 if shape[0] < min(shape[1:]) else len(shape) - 1
    try:
        dtype = header.get_data_dtype()
        if math.prod(shape) > _MOST_VOXELS:
            raise ValueError("too large to look into")
        voxels = ArrayProxy(path, (shape, dtype, int(header["vox_offset"])))
        plane = np.asarray(voxels[:, :, shape[2] // 2], dtype=np.float32)
    except Exception:
        # the words are a help: a file that cannot be looked into is called what its header says
        plane = np.full(1, np.nan, np.float32)
    layers = np.moveaxis(plane, 0 if axis == 0 else -1, -1)
    total = layers.sum(axis=-1)
    if len(shape) == 4 and shape[axis] <= _MOST_LAYERS and plane.min() >= 0 and plane.max() <= 1:
        full = bool(np.allclose(total, 1, atol=_SUM_TOLERANCE))
        if full:
            what = (
                "one layer for each class" if np.isin(plane, (0, 1)).all() else "probabilities of each class (softmax)"
            )
            return f"it holds {what}; make a label map of it: {_one_map(path, f'i.get_fdata().argmax({axis})')}"
        if np.isin(plane, (0, 1)).all() and total.max() <= 1:
            array = f"(p.moveaxis(i.get_fdata(), {axis}, -1) * p.arange(1, {shape[axis] + 1})).max(-1)"
            return f"it holds one layer for each structure; number them in their order: {_one_map(path, array)}"
        return "it holds layers that overlap; export one label map, in which each voxel has one structure"
    index = ", ".join("0" for _ in shape[3:])
    line = python_line(_FIRST.format(index=index), path, written_beside(path, "first"))
    return f"it holds a series or several channels; give one volume in its place, such as the first: {line}"


def _one_map(path: Path, array: str) -> str:
    code = _ONE_MAP.format(array=f'{array}.astype("uint8")')
    return python_line(code, path, written_beside(path, "labels"))
