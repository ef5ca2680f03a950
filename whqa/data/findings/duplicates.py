"""Images that a cohort holds twice: one person in training and in test makes every result look better than it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from whqa.data.findings.finding import Finding
from whqa.data.sources.choice import stating

_CHUNK = 1 << 17
# Odd constants of the finaliser of splitmix64 (Steele et al., OOPSLA 2014), which spreads every bit over all others.
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Fingerprint:
    """What two files with the same picture have in common, whatever their headers say.

    Attributes:
        ordered: digest of the voxels in the file's order.
        unordered: digest of the voxels in any order and of the sorted shape; mirrored and turned copies have it too.
    """

    ordered: str
    unordered: str


def fingerprint(array: npt.NDArray[np.float32]) -> Fingerprint:
    """Fingerprint of an image: values count, not the type that they are stored as."""
    flat = array.ravel(order="F")
    ordered = hashlib.sha256(f"{array.shape}".encode())
    total = np.zeros(2, dtype=np.uint64)
    for start in range(0, flat.size, _CHUNK):
        # adding 0 makes -0 a 0
        bits = (flat[start : start + _CHUNK] + np.float32(0)).view(np.uint32)
        ordered.update(bits.tobytes())
        mixed = bits.astype(np.uint64)
        for i, factor in enumerate(_MIX):
            mixed += _STEP
            mixed ^= mixed >> np.uint64(30)
            mixed *= factor
            mixed ^= mixed >> np.uint64(27)
            # sums of arrays wrap round in silence, sums of scalars warn
            total[i : i + 1] += mixed.sum(dtype=np.uint64, keepdims=True)
    shape = "x".join(str(n) for n in sorted(array.shape))
    return Fingerprint(ordered.hexdigest()[:32], f"{shape}:{total[0]:016x}{total[1]:016x}")


def duplicate_findings(prints: Iterable[tuple[str, str, Fingerprint]]) -> list[Finding]:
    """One finding a case whose image is that of an earlier case.

    Args:
        prints: (case, patient, fingerprint), in the cohort's order.
    """
    first: dict[str, tuple[str, str, Fingerprint]] = {}
    findings = []
    for case, patient, found in prints:
        twin = first.setdefault(found.unordered, (case, patient, found))
        if twin[0] == case:
            continue
        how = "" if twin[2].ordered == found.ordered else ", mirrored or in another order"
        message = f"the image has the same voxels as that of {twin[0]}{how}; remove one, or state "
        message += stating("without", case)
        if patient == twin[1]:
            findings.append(Finding("warning", "duplicate-image", message, case))
        else:
            message += ": one person in training and test spoils every number"
            findings.append(Finding("error", "duplicate-image", message, case))
    return findings
