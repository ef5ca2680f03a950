"""What was said of a mask beside the truth, for who knows it: a phantom's label map, or a reference made later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from whqa.assessment.inputs import reindexed
from whqa.assessment.mask_labels import scheme_of_mask
from whqa.assessment.one_heart import OneHeart, is_one_heart
from whqa.contract.quality_json import Assessment
from whqa.data.formats.volume_files import Volume, read_grid, read_label, voxel_sizes
from whqa.errors import InputError
from whqa.metrics.arrays import FloatArray
from whqa.metrics.error_detection import error_dice
from whqa.metrics.segmentation import paired_mean_dice, segmentation_dice
from whqa.quality import error_map, heart_region, one_minus_mean
from whqa.structures import LabelScheme

_SAME_PLACE = 1e-3


@dataclass(frozen=True, eq=False)
class Reference:
    """A true label map: indices of `scheme` on its own grid."""

    volume: Volume
    scheme: LabelScheme


def read_truth(path: Path, stated: LabelScheme | None, of_run: LabelScheme) -> Reference:
    """The truth of a mask, read before the mask is judged, since that may take minutes.

    Args:
        path: of the label map.
        stated: `--label-map`, the values of mask and reference; None leaves it to the names in the file and to the run.
        of_run: values of the run's cohort.

    Raises:
        InputError: the file is bad, or no label map of this scheme.
    """
    scheme, _ = scheme_of_mask(read_grid(path), stated, of_run)
    try:
        return Reference(read_label(path, scheme, announce=False), scheme)
    except InputError:
        # the outline of a heart has the chambers' as its truth too
        if not is_one_heart(scheme):
            raise
        return Reference(read_label(path, of_run, announce=False), of_run)


def said_and_true(assessment: Assessment, reference: Reference) -> str:
    """One line: QI beside Acc, expected Dice beside the true one, how well the errors were found, what correction did.

    All of the box that was judged, of which they are said.

    Args:
        assessment: of a mask.
        reference: on the grid of the image.

    Raises:
        InputError: it lies on another grid.
    """
    box = assessment.box or ...
    given = (_truth(assessment, reference), assessment.mask, assessment.corrected, assessment.error_map)
    truth, mask, corrected, told = (torch.from_numpy(values[box]) for values in given)
    error = error_map(mask, truth)
    quality, n_classes = assessment.quality, assessment.scheme.n_classes
    before, after = (segmentation_dice(m, truth, n_classes) for m in (mask, corrected))
    heart = heart_region(mask, voxel_sizes(assessment.affine).tolist())
    parts = [
        f"QI over the heart {_said(quality['qi']['heart'])} / {one_minus_mean(error, heart):.3f}",
        f"volume {_said(quality['qi']['volume'])} / {one_minus_mean(error):.3f}",
        f"error Dice {error_dice(told, error):.3f}",
        "Dice "
        + ", ".join(_dice(assessment, key, value) for key, value in zip(assessment.scheme.keys, before, strict=True)),
        f"mean Dice after correction {_gain(before, after)}",
        "changed " + (_changes(assessment, before, after) or "nothing"),
    ]
    return "said / true: " + "; ".join(parts)


def _truth(assessment: Assessment, reference: Reference) -> npt.NDArray[np.uint8]:
    volume = reference.volume
    same = volume.array.shape == assessment.mask.shape
    if not same or not np.allclose(volume.affine, assessment.affine, atol=_SAME_PLACE):
        raise InputError(f"{volume.path}: the reference does not lie on the grid of the image; leave --reference out")
    chambers = None if is_one_heart(reference.scheme) else OneHeart.of(reference.scheme, assessment.scheme)
    if chambers is not None:
        return np.array(chambers.groups, dtype=np.uint8)[volume.array]
    return reindexed(volume.array, reference.scheme, assessment.scheme)


def _said(qi: Mapping[str, object]) -> str:
    value, interval = qi["value"], qi["interval"]
    if not isinstance(value, float):
        return "n/a"
    between = f" [{interval[0]:.3f}-{interval[1]:.3f}]" if isinstance(interval, list) else ""
    return f"{value:.3f}{between}"


def _dice(assessment: Assessment, key: str, true: float) -> str:
    expected = assessment.quality["structures"][key]["dice_expected"]
    return f"{key} {_number(expected)} / {_number(true)}"


def _number(value: float | None) -> str:
    return "n/a" if value is None or np.isnan(value) else f"{value:.2f}"


def _gain(before: FloatArray, after: FloatArray) -> str:
    first, second = paired_mean_dice(before, after)
    return f"{float(second):.3f} ({float(second - first):+.3f})"


def _changes(assessment: Assessment, before: FloatArray, after: FloatArray) -> str:
    change = np.nan_to_num(after, nan=1.0) - np.nan_to_num(before, nan=1.0)
    return ", ".join(f"{key} {c:+.3f}" for key, c in zip(assessment.scheme.keys, change, strict=True) if abs(c) >= 5e-4)
