"""What `whqa data check` would say of an image and its mask, before a network judges them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from whqa.assessment.placing import SIDES_UNKNOWN
from whqa.data.case import Modality
from whqa.data.findings.anatomy import label_findings, measure
from whqa.data.findings.finding import Finding
from whqa.data.findings.grid import grid_findings, place_findings, stack_axis
from whqa.data.findings.intensity import blood_findings, intensity_findings
from whqa.data.findings.neighbours import neighbour_findings
from whqa.data.findings.sides import flips, says_nothing
from whqa.data.formats.volume_files import Grid, Volume
from whqa.structures import VENTRICLES

# Told as they are, without a doubt about the verdict: of the first, one reading is the standard's; the second is a
# fault of the mask that the networks see as well.
_TOLD_ALONE = frozenset(("two-places", "disconnected-structure"))


@dataclass(frozen=True)
class InputFindings:
    """What is odd about image and mask, in sentences.

    Attributes:
        image: about the image, for which no mask can be blamed.
        mask: what forbids to accept the mask.
        told: what else is worth a warning.
    """

    image: tuple[str, ...] = ()
    mask: tuple[str, ...] = ()
    told: tuple[str, ...] = ()


def input_findings(
    place: Grid | Volume, image: Volume, mask: Volume, modality: Modality, keys: tuple[str, ...]
) -> InputFindings:
    """Look at both.

    Args:
        place: of the image: its header, or a volume that was never a file.
        image: float32.
        mask: indices 1..C of `keys`, on the image's grid.
        modality: of the image.
        keys: structures that the run judges.
    """
    of_image = _warnings(_of_image(place, image, modality, keys))
    of_mask = _warnings(_of_mask(mask, keys))
    if modality == "ct" and not of_image:
        of_mask = _warnings(blood_findings(image.array, mask.array, keys)) + of_mask
    return InputFindings(
        tuple(_sentence(f"The image is in doubt: {f.message}") for f in of_image if f.code not in _TOLD_ALONE),
        tuple(_of_the_mask(f, mask, keys) for f in of_mask if f.code not in _TOLD_ALONE),
        tuple(f.message for f in (*of_image, *of_mask) if f.code in _TOLD_ALONE),
    )


def _of_the_mask(finding: Finding, mask: Volume, keys: tuple[str, ...]) -> str:
    if finding.code != "missing-structure":
        return _sentence(f"The mask or its label map is in doubt: {finding.message}")
    there = np.bincount(mask.array.ravel(order="K"), minlength=len(keys) + 1)
    absent = [key for key, voxels in zip(keys, there[1:], strict=True) if not voxels]
    return (
        f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} absent from the mask: right only where the scan "
        "does not show it; else it was forgotten or has another value."
    )


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def _warnings(findings: Iterator[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "warning"]


def _of_image(place: Grid | Volume, image: Volume, modality: Modality, keys: tuple[str, ...]) -> Iterator[Finding]:
    yield from intensity_findings(image.array, modality)
    yield from place_findings(place, place.path.name, SIDES_UNKNOWN)
    yield from grid_findings(image.shape, image.affine, not set(keys) <= VENTRICLES)


def _of_mask(mask: Volume, keys: tuple[str, ...]) -> Iterator[Finding]:
    stack = stack_axis(mask.affine)
    measured = measure(mask.array, mask.affine, keys, stack)
    yield from label_findings(measured, keys)
    if stack is None:
        yield from neighbour_findings(mask.array, mask.affine, keys, measured)
    if not says_nothing(mask.affine, stack, tuple(measured)):
        yield from flips({key: structure.centroid for key, structure in measured.items()})
