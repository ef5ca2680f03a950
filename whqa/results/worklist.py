"""In which order masks need a person, where that person looks first, and how long the correction may take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from whqa.results.correction_time import CorrectionTime
from whqa.results.mean_dice import expected_mean_dice

WORST_FIRST = ("reject", "review", "accept")
# End of the axis that a slice is counted from, as orientations name it -> plane, and that end in words.
_PLANES = {"S": ("axial", "I", "feet"), "A": ("coronal", "P", "back"), "R": ("sagittal", "L", "left")}


class SliceNumber(NamedTuple):
    """A slice of the whole scan, counted from 1.

    Attributes:
        plane: axial, coronal or sagittal.
        number: counted from the end of the patient that `counted_from` names.
        of: how many there are.
        counted_from: feet, back or left.
    """

    plane: str
    number: int
    of: int
    counted_from: str

    @property
    def words(self) -> str:
        """Such as "axial slice 37 of 84"."""
        return f"{self.plane} slice {self.number} of {self.of}"


def slices_through(image: Mapping[str, Any], voxel: Sequence[int]) -> tuple[SliceNumber, SliceNumber, SliceNumber]:
    """The axial, coronal and sagittal slice through a voxel.

    Args:
        image: the part of that name of quality.json.
        voxel: indices of the scan's own grid.
    """
    found = []
    for end, (plane, start, words) in _PLANES.items():
        axis = next(i for i, letter in enumerate(image["orientation"]) if letter in (end, start))
        n, at = int(image["shape"][axis]), int(voxel[axis])
        found.append(SliceNumber(plane, at + 1 if image["orientation"][axis] == end else n - at, n, words))
    axial, coronal, sagittal = found
    return axial, coronal, sagittal


def worklist_key(name: str, quality: Mapping[str, Any]) -> tuple[int, float, str]:
    """Key to sort by: rejected before reviewed before accepted masks, the lower score first, unknown ones before it."""
    verdict = quality["verdict"]
    score = verdict.get("score")
    return WORST_FIRST.index(verdict["decision"]), -1.0 if score is None else float(score), name


class WorkItem(NamedTuple):
    """What a worklist says of one judged mask.

    Attributes:
        name: of the case.
        decision: accept, review or reject.
        why: the reasons of the verdict.
        look: what is wrong where one looks first, in words.
        structure: key of the structure that is wrong there, or missing; None where no piece is wrong.
        slices: axial, coronal and sagittal slice to look at; none where no voxel can be wrong.
        pieces, ml: what there is to correct.
        minutes: that it may take.
        qi_heart, dice: QI over the heart and expected mean Dice; None where not known.
        worst: key of the structure with the lowest expected Dice, or None.
    """

    name: str
    decision: str
    why: str
    look: str
    structure: str | None
    slices: tuple[SliceNumber, ...]
    pieces: int
    ml: float
    minutes: float
    qi_heart: float | None
    dice: float | None
    worst: str | None


def work_item(name: str, quality: Mapping[str, Any], time: CorrectionTime) -> WorkItem:
    """Of quality.json.

    Raises:
        KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration: it is not what whqa writes.
    """
    work, structures = quality["work"], quality["structures"]
    first = work["largest"][0] if work["largest"] else None
    known = {key: float(s["dice_expected"]) for key, s in structures.items() if s["dice_expected"] is not None}
    qi = quality["qi"]["heart"]["value"]
    return WorkItem(
        name=name,
        decision=quality["verdict"]["decision"],
        why=" ".join(quality["verdict"]["reasons"]),
        look="" if first is None else piece_words(first, quality),
        structure=None if first is None else first["structure"] or first["opinion"],
        slices=() if work["look"] is None else slices_through(quality["image"], work["look"]),
        pieces=int(work["pieces"]),
        ml=float(work["ml"]),
        minutes=time.minutes(work),
        qi_heart=None if qi is None else float(qi),
        dice=expected_mean_dice(structures),
        worst=min(known, key=lambda key: known[key], default=None),
    )


def piece_words(piece: Mapping[str, Any], quality: Mapping[str, Any]) -> str:
    """What a piece is and what the second opinion holds it for, such as "missing left atrium"."""
    names = {key: s["name"] for key, s in quality["structures"].items()}
    mask, opinion = piece["structure"], piece["opinion"]
    if mask is None:
        return "outside of the mask's structures" if opinion is None else f"missing {names[opinion]}"
    if not quality["opinion"] or mask == opinion:
        return str(names[mask])
    return f"too much {names[mask]}" if opinion is None else f"{names[mask]}, rather {names[opinion]}"
