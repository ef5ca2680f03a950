"""Which parts of a DICOM mask are structures of the heart: by label, by code, or as the caller states their numbers.

Parts are the segments of a segmentation or the regions (ROIs) of a structure set. Those that are none of the heart are
left out: bodies and target volumes overlap with everything.
Codes: SNOMED CT, and SNOMED RT as files of before 2015 have it; the same in DICOM PS3.16.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from whqa.data.sources.names import ONE_HEART
from whqa.errors import InputError
from whqa.structures import GREAT_VESSELS, STRUCTURES, LabelScheme, structure_key


class Code(NamedTuple):
    """A concept of SNOMED CT: its number and its meaning in words."""

    value: str
    meaning: str


STRUCTURE_CODES = {
    "lv": Code("87878005", "Left ventricle"),
    "rv": Code("53085002", "Right ventricle"),
    "la": Code("82471001", "Left atrium"),
    "ra": Code("73829009", "Right atrium"),
    "myo": Code("74281007", "Myocardium"),
    "ao": Code("54247002", "Ascending aorta"),
    "pa": Code("81040000", "Pulmonary artery"),
}
"""How results are coded, by structure."""
_OTHER_CODES = {
    "15825003": "ao",
    "T-42000": "ao",
    "T-42100": "ao",
    "T-44000": "pa",
    "T-32020": "myo",
    "T-32600": "lv",
    "T-32500": "rv",
    "T-32300": "la",
    "T-32200": "ra",
}
_KEY_OF_CODE = {code.value: key for key, code in STRUCTURE_CODES.items()} | _OTHER_CODES
_SHOWN = 12


class Part(NamedTuple):
    """A segment or a region: its number, its label, and the code of what it is (value, meaning) where it has one."""

    number: int
    label: str
    code: Code | None = None


@dataclass(frozen=True, eq=False)
class PartsOfHeart:
    """The parts that are painted: number -> structure, in the order of `STRUCTURES`, and number -> name."""

    keys: Mapping[int, str]
    names: Mapping[int, str]
    notes: tuple[str, ...]


def code_of(sequence: Any) -> Code | None:
    """The first code of a sequence of a header."""
    if not sequence:
        return None
    item = sequence[0]
    value = str(item.get("CodeValue") or item.get("LongCodeValue") or "")
    return Code(value, str(item.get("CodeMeaning") or ""))


def parts_of_heart(
    path: Path, parts: list[Part], keys: tuple[str, ...], stated: LabelScheme | None, what: str
) -> PartsOfHeart:
    """Which parts are which structures.

    Args:
        path: of the file, for messages.
        parts: of the file.
        keys: structures that are to be judged, for the advice.
        stated: which numbers are which structures, by the caller; None leaves it to labels and codes.
        what: "segment" or "ROI".

    Raises:
        InputError: label and code of one contradict each other, or none is a structure of the heart.
    """
    numbers = ",".join(f"{key}={number}" for number, key in enumerate(keys, start=1))
    shown = ", ".join(f"{part.number} {part.label!a}" for part in parts[:_SHOWN])
    more = f" and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    remedy = f"say which number is which: --label-map {numbers}, with the numbers of its {what}s ({shown}{more})"
    if stated is not None:
        meaning = {value: key for key, value in stated.values.items()} | dict(stated.aliases)
        # a label map may name more than is judged, such as the pericardium
        found = {part.number: key for part in parts if (key := meaning.get(part.number)) in STRUCTURES}
        names: dict[int, str] = {}
    else:
        found = {part.number: key for part in parts if (key := _key_of(path, part, what, remedy)) is not None}
        names = {part.number: _name_of(part, found[part.number]) for part in parts if part.number in found}
    if not set(found.values()) - GREAT_VESSELS:
        named = {structure_key(part.label) for part in parts} | set(() if stated is None else stated.values)
        helps = ONE_HEART if "heart" in named else remedy
        raise InputError(f"{path}: none of its {len(parts)} {what}(s) is a chamber of the heart; {helps}")
    order = [*STRUCTURES]
    found = dict(sorted(found.items(), key=lambda item: order.index(item[1])))
    left = [part.label for part in parts if part.number not in found]
    by_code = [part for part in parts if part.number in names and structure_key(part.label) not in STRUCTURES]
    notes = [f"{len(left)} {what}(s) that are no structure of the heart were left out"] if left else []
    notes += [f"its {what} {part.label!a} is {found[part.number]} by its code" for part in by_code]
    return PartsOfHeart(found, names, tuple(notes))


def _key_of(path: Path, part: Part, what: str, remedy: str) -> str | None:
    by_label, by_code = structure_key(part.label), None
    if part.code is not None:
        meant = structure_key(part.code.meaning)
        by_code = _KEY_OF_CODE.get(part.code.value, meant if meant in STRUCTURES else None)
    if by_label not in STRUCTURES:
        return by_code
    if by_code not in (None, by_label):
        assert part.code is not None
        raise InputError(
            f"{path}: its {what} {part.number} is labelled {part.label!a} and coded {part.code.meaning!a}; {remedy}"
        )
    return by_label


def _name_of(part: Part, key: str) -> str:
    return part.label if structure_key(part.label) == key else STRUCTURES[key].name


class PartsCanvas:
    """A label map that parts are painted on, one after the other; the later one wins where they overlap.

    Args:
        shape: (X, Y, Z).
        parts: that are painted.
    """

    def __init__(self, shape: tuple[int, ...], parts: PartsOfHeart) -> None:
        self.array: npt.NDArray[np.int16] = np.zeros(shape, np.int16, order="F")
        self._parts = parts
        self._voxels: Counter[int] = Counter()
        self._shared: Counter[tuple[int, int]] = Counter()

    def paint(self, number: int, place: Any, inside: npt.NDArray[np.bool_]) -> None:
        """Paint one part where `inside` is true of the view `array[place]`."""
        view = self.array[place]
        self._voxels[number] += int(np.count_nonzero(inside))
        for other, voxels in zip(*np.unique(view[inside], return_counts=True), strict=True):
            if other not in (0, number):
                self._shared[int(other), number] += int(voxels)
        view[inside] = number

    def checked(self, path: Path, what: str, tolerance: float) -> tuple[str, ...]:
        """Notes about overlaps.

        Raises:
            InputError: nothing was painted, or two structures share more than `tolerance` of the smaller one.
        """
        if not any(self._voxels.values()):
            raise InputError(f"{path}: empty mask, its {what}s mark no voxel of the image")
        notes = []
        for (one, other), voxels in self._shared.items():
            keys = self._parts.keys
            if keys[one] == keys[other]:
                continue
            text = f"its {what}s of {keys[one]} and {keys[other]} overlap in {voxels:,} voxel(s)"
            if voxels > tolerance * min(self._voxels[one], self._voxels[other]):
                raise InputError(f"{path}: {text}; decide in the program that drew them which one has these")
            notes.append(f"{text}; they count as {keys[other]}")
        return tuple(notes)
