"""From an assessment to what its report shows.

Arrays are turned so that they lie along (R, A, S) as closely as their grid allows, and cut to what there is to see.
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
import numpy.typing as npt

from whqa.contract.quality_json import Assessment
from whqa.data.formats.volume_files import voxel_sizes
from whqa.quality import box_around
from whqa.report.shown import JudgedView, grey_window

MARGIN_MM = 15.0
# Probabilities below this are not worth widening the view for.
_SEEN_FROM = 0.05
_WINDOW_VOXELS = 4_000_000


def judged_view(assessment: Assessment, margin_mm: float = MARGIN_MM) -> JudgedView:
    """Turn and cut an assessed scan; what lies farther than `margin_mm` from mask and errors is left out."""
    turn = nib.io_orientation(assessment.affine)
    image, mask, corrected, probability, error_map = (
        nib.apply_orientation(array, turn)
        for array in (
            assessment.image,
            assessment.mask,
            assessment.corrected,
            assessment.error_probability,
            assessment.error_map,
        )
    )
    opinion = None if assessment.opinion is None else nib.apply_orientation(assessment.opinion, turn)
    affine = assessment.affine @ nib.orientations.inv_ornt_aff(turn, assessment.image.shape)
    seen = (mask != 0) | (corrected != 0) | error_map | (probability >= _SEEN_FROM)
    if opinion is not None:
        seen |= opinion != 0
    box = box_around(seen, [round(margin_mm / s) for s in voxel_sizes(affine)])
    start = tuple(s.start for s in box)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ np.array(start)
    image_there = np.nan_to_num(image[box])
    return JudgedView(
        image_there,
        mask[box],
        corrected[box],
        probability[box],
        error_map[box],
        moved,
        tuple(float(s) for s in voxel_sizes(moved)),
        start,
        image.shape,
        assessment.scheme,
        _window(image_there),
        None if opinion is None else opinion[box],
    )


def _window(image: npt.NDArray[np.float32]) -> tuple[float, float]:
    # a part of the voxels says it: percentiles of 10^8 take seconds
    step = max(1, round((image.size / _WINDOW_VOXELS) ** (1 / 3)))
    return grey_window(image[::step, ::step, ::step])
