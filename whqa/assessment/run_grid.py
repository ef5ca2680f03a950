"""To the grid that the run's networks see, and back to the input's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.assessment.ensemble import Judgement
from whqa.assessment.inputs import Inputs
from whqa.assessment.model import TrainedRun
from whqa.data.preprocess import (
    Geometry,
    heart_of,
    lost_voxels,
    preprocess_image,
    preprocess_label,
    restore_labels,
    restore_map,
)


@dataclass(frozen=True, eq=False)
class CaseOnGrid:
    """Image and mask as the networks see them.

    Attributes:
        image: (D, H, W) float32, normalised to [-1, 1].
        mask: (D, H, W) uint8, indices of the run's scheme.
        geometry: the way back.
    """

    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    geometry: Geometry

    @property
    def size_mm(self) -> str:
        """Of the box, for people: "160 x 160 x 128"."""
        sides = zip(self.geometry.shape, self.geometry.spacing, strict=True)
        return " x ".join(f"{n * s:.0f}" for n, s in sides)


@dataclass(frozen=True, eq=False)
class RestoredMaps:
    """What was judged, on the input's own grid (X, Y, Z).

    Attributes:
        probability: P, float32 in [0, 1]; 0 outside the box that was judged.
        suspicion: how wrong a voxel looks by itself, likewise.
        error_map: predicted errors.
        corrected: the mask, corrected where that was asked for; indices of the run's scheme.
        opinion: most probable labels of the second opinion, 0 outside the box that was judged; None without.
    """

    probability: npt.NDArray[np.float32]
    suspicion: npt.NDArray[np.float32]
    error_map: npt.NDArray[np.bool_]
    corrected: npt.NDArray[np.uint8]
    opinion: npt.NDArray[np.uint8] | None = None


def to_run_grid(inputs: Inputs, run: TrainedRun) -> CaseOnGrid:
    """Image and mask on the grid of the run."""
    heart = heart_of(inputs.mask, inputs.run_scheme.keys) if run.preprocess.centre == "heart" else None
    image, geometry = preprocess_image(inputs.image, inputs.modality, run.preprocess, heart)
    return CaseOnGrid(image, preprocess_label(inputs.mask, geometry), geometry)


def from_run_grid(
    inputs: Inputs, case: CaseOnGrid, judgement: Judgement, corrected_DHW: npt.NDArray[np.uint8]
) -> RestoredMaps:
    """Maps on the input's grid; voxels of other organs and those outside the judged box keep their label.

    Args:
        inputs: what was judged.
        case: the same on the run's grid.
        judgement: on the run's grid.
        corrected_DHW: the corrected mask there; where it is the mask, the input keeps its label.
    """
    geometry = case.geometry
    probability, suspicion = (
        np.clip(restore_map(values.numpy(), geometry), 0, 1) for values in (judgement.probability, judgement.suspicion)
    )
    corrected = inputs.mask.array
    changed = corrected_DHW != case.mask
    if changed.any():
        moved = restore_map(changed.astype(np.float32), geometry) >= 0.5
        before, after = (restore_labels(_nearest(labels, changed), geometry) for labels in (case.mask, corrected_DHW))
        # a voxel of the run's grid may hold voxels of structures that are left alone
        of_changed = (corrected == before) & ~inputs.other_organs
        corrected = np.where(moved & of_changed, after, corrected).astype(corrected.dtype)
    opinion = None if judgement.opinion is None else restore_labels(judgement.opinion.numpy(), geometry)
    return RestoredMaps(probability, suspicion, probability >= judgement.map_threshold, corrected, opinion)


def _nearest(labels_DHW: npt.NDArray[np.uint8], chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """At every voxel the label of the nearest chosen one, so that a finer grid finds it around the chosen voxels."""
    indices = ndimage.distance_transform_edt(~chosen, return_distances=False, return_indices=True)
    return labels_DHW[tuple(indices)]


def outside_share(inputs: Inputs, geometry: Geometry) -> float:
    """Share of the mask's voxels outside the box that was judged."""
    count = np.bincount(inputs.mask.array.ravel(order="K"))
    total = int(count[1:].sum())
    lost = sum(share * int(count[i]) for i, share in lost_voxels(inputs.mask, geometry).items())
    return float(lost / total) if total else 0.0
