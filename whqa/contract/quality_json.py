"""What is known about one mask after it was judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from whqa.structures import LabelScheme


@dataclass(frozen=True, eq=False)
class Assessment:
    """The verdict on one mask; arrays lie on the input's own grid (X, Y, Z).

    Attributes:
        name: of the case, for titles and files.
        scheme: of the run; label arrays hold its indices 0..C.
        image: float32 (X, Y, Z) as in the file.
        mask: under judgement, uint8.
        corrected: uint8; equal to the mask where correction is not applied.
        error_probability: P, float32 in [0, 1]; 0 outside the box that was judged.
        error_map: predicted errors, bool.
        affine: (4, 4), voxel -> RAS mm.
        header: of the image's file, or None.
        quality: the content of quality.json, see `whqa.assessment.pipeline`.
        population: the run's own out-of-fold masks, for comparison: one dict a mask with case, mask_kind, acc_volume,
            qi_volume, acc_heart, qi_heart, mean_dice, mean_dice_predicted (None where there is none).
        corrected_values: the corrected mask in the values and type of the mask's own file.
    """

    name: str
    scheme: LabelScheme
    image: npt.NDArray[np.float32]
    mask: npt.NDArray[np.uint8]
    corrected: npt.NDArray[np.uint8]
    error_probability: npt.NDArray[np.float32]
    error_map: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    header: nib.Nifti1Header | None
    quality: dict[str, Any]
    population: tuple[dict[str, Any], ...] = ()
    corrected_values: npt.NDArray[np.integer] | None = None
