"""Label maps in layers, brought to one map where no voxel has two labels: one-hot NIfTI, .seg.nrrd of 3D Slicer.

One-hot files have a last axis with one layer for each class, background first, as MONAI and others write them. 3D
Slicer puts segments that overlap into layers, with the layers as the first axis, and says in the header which label of
which layer a segment is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from whqa.data.formats import itk
from whqa.data.formats.label_names import Segment, segments_of
from whqa.data.formats.nifti_header import read_header, scaling, stored_type, voxel_offset
from whqa.data.formats.nifti_placement import doubts, placed
from whqa.data.formats.stream import voxel_blocks, whole_file
from whqa.data.formats.volume import SpacingRule, Volume
from whqa.errors import InputError

_MOST_CLASSES = 128


@dataclass(frozen=True)
class LayeredLabels(Volume):
    """A label map that was made of layers.

    Attributes:
        classes: of one-hot layers: the values are 0 to `classes` - 1, in the order of the layers; 0 for others.
        names: value -> name, as the header of the file has it.
    """

    classes: int = 0
    names: Mapping[int, str] = field(default_factory=dict)


def read_layers(path: Path, rule: SpacingRule) -> LayeredLabels | None:
    """The layers of a file as one label map; None where they are none.

    Args:
        path: of a file that `read_grid` refuses with the code "several-volumes".
        rule: what holds where pixdim and affine disagree.

    Raises:
        InputError: segments overlap, or the file cannot be read.
    """
    if itk.is_itk(path):
        return _of_segments(path)
    header = read_header(path)
    n_axes = int(header["dim"][0])
    sizes = tuple(int(n) for n in header["dim"][1 : n_axes + 1])
    if n_axes not in (4, 5) or sizes[3:-1] not in ((), (1,)) or not 2 <= sizes[-1] <= _MOST_CLASSES or min(sizes) < 1:
        return None
    dtype = stored_type(path, header)
    if scaling(path, header) is not None:
        return None
    shape, classes = (sizes[0], sizes[1], sizes[2]), sizes[-1]
    array = _one_hot(path, voxel_offset(path, header), shape, classes, dtype)
    if array is None:
        return None
    affine, conflict = placed(path, header, shape, rule)
    own = header.copy()
    own.set_data_dtype(np.uint8)
    own.set_data_shape(shape)
    notes = (f"its header contradicts itself, {conflict}; {rule} is used",) if conflict else ()
    return LayeredLabels(array, affine, path, own, notes, doubts(own, shape, affine), classes=classes)


def _one_hot(
    path: Path, start: int, shape: tuple[int, int, int], classes: int, dtype: np.dtype[np.generic]
) -> npt.NDArray[np.uint8] | None:
    """The number of the layer that has the 1 of each voxel; None where a voxel has none, several or another value."""
    room = int(np.prod(shape))
    values, ones = np.zeros(room, np.uint8), np.zeros(room, np.uint8)
    done = 0
    for block in voxel_blocks(path, whole_file(path), start, (*shape, classes), dtype):
        if not ((block == 0) | (block == 1)).all():
            return None
        while block.size:
            layer, first = divmod(done, room)
            part, block = block[: room - first], block[room - first :]
            inside = slice(first, first + part.size)
            values[inside][part == 1] = layer
            ones[inside] += part.astype(np.uint8)
            done += part.size
    return values.reshape(shape, order="F") if (ones == 1).all() else None


def _of_segments(path: Path) -> LayeredLabels:
    grid = itk.read_grid(path, layered=True)
    stack = itk.layers_of(path)
    segments = segments_of(path)
    values = [segment.value for segment in segments]
    distinct = 0 not in values and len(set(values)) == len(values)
    names = {segment.value if distinct else number: segment for number, segment in enumerate(segments, start=1)}
    array = np.zeros(grid.shape, np.int16, order="F")
    for value, segment in names.items():
        inside = stack[segment.layer] == segment.value if segment.layer < len(stack) else np.zeros(grid.shape, bool)
        if (array[inside] != 0).any():
            other = names[int(array[inside].max())]
            raise InputError(_overlap(path, other, segment, int(np.count_nonzero(array[inside]))))
        array[inside] = value
    told = ", ".join(f"{value} {segment.name}" for value, segment in names.items())
    notes = (f"the segments of its {len(stack)} layers are one label map: {told}",)
    named = {value: segment.name for value, segment in names.items()}
    return LayeredLabels(array, grid.affine, path, grid.header, notes, grid.doubts, names=named)


def _overlap(path: Path, one: Segment, other: Segment, voxels: int) -> str:
    return (
        f"{path}: its segments {one.name!r} and {other.name!r} overlap in {voxels:,} voxel(s); decide in 3D Slicer "
        "which one has them, and export one label map: Segmentations, Export/import, Labelmap"
    )
