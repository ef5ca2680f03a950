"""Labels as whole numbers: from a file or from memory, stored exactly or with a rounding, in a type that others open.

A program that stores float labels as scaled integers rounds them: 205 becomes 204.9935. Such values are rounded back.
A map that was interpolated has values between labels too, and is refused: a label would be a guess.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from whqa.data.formats.advice import python_line, written_beside
from whqa.data.formats.volume import refuse_infinite
from whqa.errors import InputError
from whqa.structures import LabelScheme

_LARGEST = 2**31 - 1
# Worked on at a time, in float64 and several times over.
_VOXELS = 1 << 15
# What computing in other units leaves; and what is not worth a word.
_NEAR, _NOISE = 0.01, 1e-4
_THRESHOLD = (
    'i = n.load(sys.argv[1]); n.save(n.Nifti1Image((i.get_fdata() > 0.5).astype("uint8"), i.affine), sys.argv[2])'
)


def is_ordinary(dtype: np.dtype[Any]) -> bool:
    """Whether labels of this type are kept as they are: AFNI, FSL and SPM do not open 64 bits nor unsigned 32."""
    return dtype.kind in "iu" and np.can_cast(dtype, np.int32)


@dataclass
class WholeLabels:
    """Label values that become whole numbers block by block.

    Attributes:
        path: of the file, for messages.
        scheme: whose values may be stored with a rounding; None where any whole number may be meant.
        quantum: distance of neighbouring values that the file can hold, the slope of scaled integers; 0 for others.
    """

    path: Path
    scheme: LabelScheme | None = None
    quantum: float = 0.0
    _low: float = 0.0
    _high: float = 0.0
    _not_finite: int = 0
    _fractions: bool = False
    _rounded: float | None = None
    _known: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    _tolerance: float = _NEAR

    def __post_init__(self) -> None:
        if self.scheme is not None:
            self._known, gap = _known(self.scheme)
            # at least one value that can be stored has to lie between two labels, or an interpolated map would pass
            if self.quantum <= gap / 2:
                self._tolerance = max(_NEAR, 0.505 * self.quantum)

    def take(self, blocks: Iterable[npt.NDArray[Any]], target: npt.NDArray[np.int32]) -> npt.NDArray[np.integer]:
        """All values as whole numbers in the smallest of uint8, int16 and int32 that holds them; `target` is used up.

        Args:
            blocks: flat, together as long as `target`.
            target: flat.

        Raises:
            InputError: values that are not finite, lie between labels, or are too large for any label.
        """
        done = 0
        with np.errstate(all="ignore"):
            for block in blocks:
                for first in range(0, block.size, _VOXELS):
                    part = block[first : first + _VOXELS]
                    target[done : done + part.size] = self._rounded_block(part)
                    done += part.size
        self._refuse()
        smallest = next(t for t in (np.uint8, np.int16, np.int32) if _holds(t, self._low, self._high))
        return target.astype(smallest, copy=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was mended, for people, to stand behind the file's name."""
        if self._rounded is None:
            return ()
        return (f"its labels were stored with a rounding ({self._rounded:.7g}); the nearest labels are used",)

    def _rounded_block(self, block: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if block.dtype.kind == "f":
            finite = np.isfinite(block)
            self._not_finite += block.size - int(np.count_nonzero(finite))
            block = np.where(finite, block, 0).astype(np.float64, copy=False)
        self._low, self._high = min(self._low, float(block.min())), max(self._high, float(block.max()))
        if block.dtype.kind == "f":
            labels = self._nearest(block)
            far = np.abs(block - labels)
            self._fractions = self._fractions or bool((far > self._tolerance).any())
            if self._rounded is None and (rounded := far > _NOISE).any():
                self._rounded = float(block[rounded][0])
            block = labels
        return np.clip(block, -_LARGEST, _LARGEST)

    def _nearest(self, block: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self._tolerance < 0.5:
            return np.rint(block)
        right = np.clip(np.searchsorted(self._known, block), 1, len(self._known) - 1)
        low, high = self._known[right - 1], self._known[right]
        near = np.where(block - low <= high - block, low, high)
        return np.where(np.abs(block - near) <= self._tolerance, near, np.rint(block))

    def _refuse(self) -> None:
        refuse_infinite(self.path, self._not_finite)
        if self._fractions and self._low > -_NEAR and self._high < 1 + _NEAR:
            line = python_line(_THRESHOLD, self.path, written_beside(self.path, "mask"))
            raise InputError(f"{self.path}: holds a probability from 0 to 1, not labels; threshold it: {line}")
        if self._fractions:
            raise InputError(
                f"{self.path}: label values must be whole numbers; was the label map resampled as an image?"
            )
        if max(-self._low, self._high) > _LARGEST:
            raise InputError(f"{self.path}: label values up to {max(-self._low, self._high):g} are no labels")


def labels_in_memory(
    array: npt.NDArray[Any], path: Path, scheme: LabelScheme | None = None
) -> tuple[npt.NDArray[np.integer], tuple[str, ...]]:
    """Labels of an array as those of a file are read, and what was mended.

    Raises:
        InputError: as `WholeLabels.take`.
    """
    if is_ordinary(array.dtype):
        return array, ()
    array = array.astype(np.uint8) if array.dtype == bool else array
    array = array if array.flags.forc else np.ascontiguousarray(array)
    target = np.empty_like(array, dtype=np.int32).ravel(order="K")
    labels = WholeLabels(path, scheme)
    taken = labels.take([array.ravel(order="K")], target)
    return taken.reshape(array.shape, order="C" if array.flags.c_contiguous else "F"), labels.notes


def _known(scheme: LabelScheme) -> tuple[npt.NDArray[np.float64], float]:
    """All values of a scheme with 0, and how far the nearest two that mean different things are apart."""
    meaning = {0: "", **{value: key for key, value in scheme.values.items()}, **scheme.aliases}
    meaning |= {value: f"ignored {value}" for value in scheme.ignored}
    known = sorted(meaning)
    gaps = (high - low for low, high in itertools.pairwise(known) if meaning[low] != meaning[high])
    return np.array(known, dtype=np.float64), float(min(gaps))


def _holds(kind: type[np.integer], low: float, high: float) -> bool:
    return np.iinfo(kind).min <= round(low) and round(high) <= np.iinfo(kind).max
