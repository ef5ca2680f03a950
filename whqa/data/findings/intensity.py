"""Intensities that do not look like their modality.

CT is in Hounsfield units, where air is -1000 and water 0 by definition (Hounsfield, Br J Radiol 1973;46:1016-1022), fat
about -100, muscle and plain blood 30 to 70, contrast-filled blood up to about 800, bone up to 2000. Scanners store
HU + 1024 from 0 to 4095 and an intercept in the header, which converters lose. MR has no unit, and magnitude images
have nothing below 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from whqa.data.case import Modality
from whqa.data.findings.finding import Finding

_SAMPLE = 500_000
_SAMPLED_LABELS = 4_000_000
_FEW_VALUES = 16
_BLOOD_HU = (-100.0, 1000.0)
_BLOOD = ("lv", "rv", "la", "ra", "ao", "pa")


def intensity_findings(array: npt.NDArray[np.float32], modality: Modality) -> Iterator[Finding]:
    """What is odd about the values of an image, of any shape."""
    low, high = float(array.min()), float(array.max())
    sample = _sampled(array)
    if np.unique(sample).size <= _FEW_VALUES:
        n = np.unique(sample).size
        message = f"only {n} different values between {low:g} and {high:g}; is it a label map in the image's place?"
        yield Finding("warning", "few-values", message)
    elif modality == "ct":
        said = _unlike_ct(low, high, sample)
        if said:
            yield Finding("warning", "unlike-ct", f"{said}, from {low:g} to {high:g}")
    else:
        yield from _unlike_mr(low, sample)


def blood_findings(
    array: npt.NDArray[np.float32], indices: npt.NDArray[np.uint8], keys: tuple[str, ...]
) -> Iterator[Finding]:
    """Whether the blood of a CT, as the label map has it, is as dense as blood.

    Args:
        array: (X, Y, Z) HU.
        indices: (X, Y, Z) of the label map, 0 background, 1..C.
        keys: structure of each index from 1 on.
    """
    step = max(1, round((indices.size / _SAMPLED_LABELS) ** (1 / 3)))
    every = (slice(step // 2, None, step),) * 3
    blood = np.array([False, *(key in _BLOOD for key in keys)])[indices[every]]
    if not blood.any():
        return
    median = float(np.median(array[every][blood]))
    if not _BLOOD_HU[0] <= median <= _BLOOD_HU[1]:
        message = (
            f"what the label map calls blood has a median of {median:.0f} HU, not {_BLOOD_HU[0]:.0f} to "
            f"{_BLOOD_HU[1]:.0f}; does it belong to this image, and are the image's values HU?"
        )
        yield Finding("warning", "label-off-blood", message)


def _unlike_ct(low: float, high: float, sample: npt.NDArray[np.float32]) -> str:
    advice = "convert the scan again so that air is -1000 and water 0; values"
    if low >= -1.5 and high <= 1.5:
        return f"values look normalised, HU are lost; {advice}"
    if low >= 0 and high <= 255:
        return f"values look like an 8-bit picture, HU are lost; {advice}"
    if low >= 0:
        return (
            "nothing lies below 0 HU: a lost rescale intercept (often -1024), or no CT; subtract it, or correct the "
            "modality; values"
        )
    if low > -300:
        return f"no air: cut off by a window, or a wrong rescale intercept; {advice}"
    if np.percentile(sample, 99) < 0:
        return f"99 % lie below 0 HU, so there is no tissue: a wrong rescale intercept; {advice}"
    if low < -10000 or high > 32000:
        return "beyond anything that a CT measures: padding or a wrong rescale slope; set padding to -1024; values"
    return ""


def _unlike_mr(low: float, sample: npt.NDArray[np.float32]) -> Iterator[Finding]:
    if low < -500 and np.mean((sample > -1200) & (sample < -500)) > 0.01:
        message = f"values down to {low:g}, as HU of air: is it a CT? Correct the modality"
        yield Finding("warning", "unlike-mr", message)
    elif np.mean(sample < 0) > 0.001:
        message = f"values below 0 (down to {low:g}): normalised or filtered before? Raw magnitude images have none"
        yield Finding("note", "negative-mr", message)


def _sampled(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    flat = array.ravel(order="K")
    return flat[:: max(1, flat.size // _SAMPLE)]
