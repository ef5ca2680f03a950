"""Masks drawn from another program's softmax: with natural errors like its own, but not its own to the voxel.

A segmenter of the experiment makes such masks of augmented images (`whqa.callbacks.augmented`). Another program cannot
be asked again, but its softmax tells what else it might have said. A label map is drawn from it by the Gumbel-max trick
(Maddison et al. 2014, arXiv 1411.0030): the label of the largest log p + g, g of a standard Gumbel distribution for
each label. Over many draws a voxel has each label as often as its p says; g is smooth in space, so that neighbours err
together, as those of a program do.

Shape suffixes: C all C + 1 labels, DHW space.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from whqa.masks.corruption import Labels
from whqa.masks.faults.fields import Field, smooth_field
from whqa.masks.opinion import CODES, LOWEST_LOG_P
from whqa.masks.plan import AUGMENTED_KINDS, FAULTY_KINDS, MIXED_KINDS

CORRELATION_MM = (6.0, 30.0)
"""Between the points of the fields that the noise is made of: from a border's roughness to a part of a chamber."""
BLUR_MM = (1.0, 4.0)
"""Standard deviation of the Gaussian by which every second mask's softmax is blurred: a program that sees less."""


def drawn_masks(
    case: str, codes_CDHW: npt.NDArray[np.uint8], spacing: Sequence[float], seed: int
) -> Iterator[tuple[str, Labels]]:
    """Kind and mask (D, H, W) for every kind of `AUGMENTED_KINDS`: from the softmax as it is, and from it blurred.

    Args:
        case: its id, which the draws depend on.
        codes_CDHW: the program's log p_S as it is stored, see `whqa.masks.opinion`.
        spacing: mm along D, H, W.
        seed: of the experiment.
    """
    key = zlib.crc32(case.encode())
    # streams of their own beside those of `whqa.masks.faulty`
    for number, kind in enumerate(AUGMENTED_KINDS, start=1 + len(FAULTY_KINDS) + len(MIXED_KINDS)):
        rng = np.random.default_rng((seed, key, number))
        wavelength, blur = np.exp(rng.uniform(*np.log(CORRELATION_MM))), rng.uniform(*BLUR_MM)
        clear = kind == AUGMENTED_KINDS[0]
        yield kind, draw_labels(codes_CDHW, spacing, float(wavelength), 0.0 if clear else float(blur), rng)


def draw_labels(
    codes_CDHW: npt.NDArray[np.uint8],
    spacing: Sequence[float],
    wavelength: float,
    blur: float,
    rng: np.random.Generator,
) -> Labels:
    """One draw: uint8 (D, H, W).

    Args:
        codes_CDHW: log p_S as it is stored; what is stored as less probable than can be told is never drawn.
        spacing: mm along D, H, W.
        wavelength: of the noise, mm.
        blur: standard deviation of the Gaussian that p_S is blurred by, mm.
        rng: draws the noise.
    """
    p_of_code = np.exp(np.arange(CODES + 1) * (LOWEST_LOG_P / CODES)).astype(np.float32)
    p_of_code[CODES] = 0
    sigma = [blur / mm for mm in spacing]
    labels = np.zeros(codes_CDHW.shape[1:], np.uint8)
    highest = np.full(labels.shape, -np.inf, np.float32)
    for index, codes in enumerate(codes_CDHW):
        p_DHW = ndimage.gaussian_filter(p_of_code[codes], sigma, mode="nearest")
        with np.errstate(divide="ignore"):
            score = np.log(p_DHW) + _smooth_gumbel(labels.shape, spacing, wavelength, rng)
        labels[score > highest] = index
        np.maximum(highest, score, out=highest)
    return labels


def _smooth_gumbel(
    shape: tuple[int, ...], spacing: Sequence[float], wavelength: float, rng: np.random.Generator
) -> Field:
    """Noise that varies smoothly; its values over the volume are those of a standard Gumbel distribution."""
    field = smooth_field(shape, np.asarray(spacing, float), wavelength, rng)
    u = (np.arange(field.size) + 0.5) / field.size
    noise = np.empty(field.size, np.float32)
    noise[np.argsort(field, axis=None, kind="stable")] = -np.log(-np.log(u))
    return noise.reshape(shape)
