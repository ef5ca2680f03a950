"""The two volumes of an assessment, from files or from memory, checked against each other and against the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt

from whqa.assessment.model import TrainedRun
from whqa.data.case import Modality
from whqa.data.formats.volume_files import (
    SpacingRule,
    Volume,
    check_same_grid,
    read_grid,
    read_image,
    read_label,
    read_label_values,
)
from whqa.errors import InputError
from whqa.structures import LabelScheme, label_scheme


@dataclass(frozen=True, eq=False)
class Inputs:
    """What is to be judged.

    Attributes:
        name: of the case.
        image: float32.
        mask: indices of the run's scheme.
        values: the mask as in its file, whole numbers (X, Y, Z).
        scheme: of `values`.
        run_scheme: of `mask`.
        modality: of the image.
        from_file: whether both have paths that exist.
        warnings: for the user.
    """

    name: str
    image: Volume
    mask: Volume
    values: npt.NDArray[np.integer]
    scheme: LabelScheme
    run_scheme: LabelScheme
    modality: Modality
    from_file: bool
    warnings: tuple[str, ...]

    @property
    def other_organs(self) -> npt.NDArray[np.bool_]:
        """Voxels that the mask gives to what is not of the heart (X, Y, Z); a correction leaves them alone."""
        return (self.values != 0) & (self.mask.array == 0)

    def to_values(self, corrected: npt.NDArray[np.uint8]) -> npt.NDArray[np.integer]:
        """A changed mask in the file's own values: voxels that did not change keep theirs, other organs too."""
        table = np.array([0, *(self.scheme.values[key] for key in self.run_scheme.keys)])
        fits = np.can_cast(np.min_scalar_type(int(table.max())), self.values.dtype)
        values = self.values.astype(self.values.dtype if fits else np.int16)
        changed = corrected != self.mask.array
        values[changed] = table[corrected[changed]]
        return values


def read_inputs(
    image: Any,
    mask: Any,
    run: TrainedRun,
    *,
    modality: str | None,
    label_map: str | Mapping[str, Any] | LabelScheme | None,
    name: str | None,
) -> Inputs:
    """Read and check both volumes.

    Raises:
        InputError: a file is bad, the two do not lie on one grid, the mask lacks all structures, values are unknown, or
            the modality is missing or foreign.
    """
    scheme = run.scheme if label_map is None else label_scheme(label_map)
    _check_scheme(scheme, run)
    from_file = isinstance(image, str | Path) and isinstance(mask, str | Path)
    kind = _modality(modality, run)
    scan = _image(image, run.spacing_rule)
    labels, values = _mask(mask, scheme, run.spacing_rule)
    check_same_grid(scan, labels)
    indices = _reindexed(labels.array, scheme, run.scheme)
    if not indices.any():
        raise InputError(f"{labels.path}: empty mask, no structure in it; is it the right file and label map?")
    case = name or _stem(scan.path)
    return Inputs(
        case,
        scan,
        Volume(indices, labels.affine, labels.path, labels.header),
        values,
        scheme,
        run.scheme,
        kind,
        from_file,
        tuple(filter(None, (_conflict(source, run.spacing_rule) for source in (image, mask)))),
    )


def _conflict(source: Any, rule: SpacingRule) -> str:
    if not isinstance(source, str | Path):
        return ""
    conflict = read_grid(Path(source), rule).conflict
    return f"the header of {Path(source).name} contradicts itself, {conflict}; using {rule}" if conflict else ""


def _check_scheme(scheme: LabelScheme, run: TrainedRun) -> None:
    lacking = [key for key in run.scheme.keys if key not in scheme.keys]
    if lacking:
        raise InputError(
            f"label map {scheme.name!r}: does not say which value stands for {', '.join(lacking)}, which the run "
            f"{run.directory} judges"
        )


def _modality(modality: str | None, run: TrainedRun) -> Modality:
    if modality is None:
        if len(run.modalities) != 1:
            raise InputError(f"{run.directory}: was trained on {' and '.join(run.modalities)}; state the modality")
        return cast(Modality, run.modalities[0])
    if modality not in run.modalities:
        raise InputError(f"modality {modality!r}: the run {run.directory} was trained on {', '.join(run.modalities)}")
    return cast(Modality, modality)


def _image(source: Any, rule: SpacingRule) -> Volume:
    if isinstance(source, str | Path):
        return read_image(Path(source), rule, announce=False)
    array, affine, header = _in_memory(source, "image")
    values = np.asarray(array, dtype=np.float32)
    if not np.isfinite(values).all() or values.min() == values.max():
        raise InputError("image: holds NaN or infinite voxels, or is all of one value")
    return Volume(values, affine, Path("image"), header)


def _mask(source: Any, scheme: LabelScheme, rule: SpacingRule) -> tuple[Volume, npt.NDArray[np.integer]]:
    if isinstance(source, str | Path):
        labels = read_label(Path(source), scheme, rule, announce=False)
        return labels, read_label_values(Path(source), rule)
    array, affine, header = _in_memory(source, "mask")
    values = np.asarray(array)
    if values.dtype.kind not in "iub":
        whole = np.rint(values)
        if not np.array_equal(whole, values):
            raise InputError("mask: label values must be whole numbers")
        values = whole.astype(np.int32)
    # NIfTI files of 64-bit labels are read by few programs; `to_indices` has checked that they fit
    smaller = {"b": np.uint8, "i": np.int32, "u": np.int32}[values.dtype.kind]
    indices = scheme.to_indices(values.astype(np.uint8) if values.dtype.kind == "b" else values, "mask")
    values = values if values.dtype.itemsize <= 4 and values.dtype.kind != "b" else values.astype(smaller)
    return Volume(indices, affine, Path("mask"), header), values


def _in_memory(source: Any, what: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], nib.Nifti1Header | None]:
    if isinstance(source, nib.spatialimages.SpatialImage):
        header = source.header if isinstance(source.header, nib.Nifti1Header) else None
        array, affine = np.asanyarray(source.dataobj), np.asarray(source.affine, dtype=np.float64)
    else:
        try:
            array, affine, header = np.asarray(source[0]), np.asarray(source[1], dtype=np.float64), None
        except (TypeError, IndexError, ValueError):
            raise InputError(f"{what}: must be a path, a nibabel image, or (array, affine)") from None
    if array.ndim != 3 or affine.shape != (4, 4) or not array.size:
        raise InputError(f"{what}: array of shape {array.shape} with affine {affine.shape}; must be 3-D with 4 x 4")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{what}: singular affine")
    return array, affine, header


def _reindexed(indices: npt.NDArray[np.uint8], scheme: LabelScheme, wanted: LabelScheme) -> npt.NDArray[np.uint8]:
    """Indices of one scheme in those of another; structures that the run does not know are background to it."""
    if scheme.keys == wanted.keys:
        return indices
    table = [0, *(wanted.keys.index(key) + 1 if key in wanted.keys else 0 for key in scheme.keys)]
    return np.array(table, dtype=np.uint8)[indices]


def _stem(path: Path) -> str:
    for suffix in (".nii.gz", ".nii", ".nrrd", ".mha"):
        if path.name.endswith(suffix):
            stem = path.name.removesuffix(suffix)
            return stem.removesuffix("_image").removesuffix("_0000") or stem
    return path.stem
