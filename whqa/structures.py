"""The structures of the heart: names, label values of each public layout, colours.

Inside whqa a label map holds indices: 0 is background and i is the i-th structure of the scheme. Files hold
the values of their layout (MMWHS: 500, 600, ...); a `LabelScheme` translates both ways.

Sources: MMWHS, Zhuang & Shen 2016 and the challenge page (label values; the stray 421 in mr_train_1010 means left
atrium); CARE-WHS / WHS++ keeps the values of MMWHS; ACDC, Bernard et al. 2018 (1 RV cavity, 2 myocardium, 3 LV
cavity); TotalSegmentator, Wasserthal et al. 2023 and the class table of its program (task "total" of version 1 with 104
classes, task "heartchambers_highres" of both versions; "total" of version 2 has the heart as one class).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from whqa.errors import InputError

_UNKNOWN = 255
# Voxels translated at a time: what is worked on stays in the processor's cache.
_BLOCK = 1 << 18

# Label maps are written as 16-bit integers.
_LARGEST = 2**15 - 1


@dataclass(frozen=True)
class Structure:
    """One structure: `key` names columns and options, `name` is for people, `colour` is the Okabe-Ito-like hex code."""

    key: str
    name: str
    colour: str


STRUCTURES: dict[str, Structure] = {
    s.key: s
    for s in (
        Structure("lv", "left ventricle", "#D55E00"),
        Structure("rv", "right ventricle", "#0072B2"),
        Structure("la", "left atrium", "#E69F00"),
        Structure("ra", "right atrium", "#56B4E9"),
        Structure("myo", "myocardium", "#009E73"),
        Structure("ao", "ascending aorta", "#CC79A7"),
        Structure("pa", "pulmonary artery", "#F0E442"),
    )
}
GREAT_VESSELS = frozenset(("ao", "pa"))
"""They run out of the heart: most scans cut them, scans of other regions show them, and a mask of them alone is none
of a heart."""
VENTRICLES = frozenset(("lv", "rv", "myo"))
"""What short-axis scans show."""


@dataclass(frozen=True)
class LabelScheme:
    """Which structures a cohort has and which file value stands for each.

    Attributes:
        name: of the layout, e.g. "mmwhs".
        values: structure key -> value in files, in the order of the indices 1..C.
        aliases: further file values -> structure key (MMWHS: 421 -> la).
        ignored: file values of other organs that count as background. Empty for MMWHS, where any other value is a
            fault of the file.
    """

    name: str
    values: Mapping[str, int]
    aliases: Mapping[int, str] = field(default_factory=dict)
    ignored: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        named = [*self.values.values(), *self.aliases, *self.ignored]
        if not self.values or len(set(named)) != len(named) or 0 in named:
            raise InputError(f"label scheme {self.name!r}: values must be distinct and not 0, got {dict(self.values)}")
        if max(abs(value) for value in named) > _LARGEST:
            raise InputError(f"label scheme {self.name!r}: values must lie between {-_LARGEST} and {_LARGEST}")
        if len(self.values) >= _UNKNOWN:
            raise InputError(f"label scheme {self.name!r}: {len(self.values)} structures, there can be 254 at most")
        unknown = set(self.aliases.values()) - set(self.values)
        if unknown:
            raise InputError(f"label scheme {self.name!r}: aliases name unknown structures {sorted(unknown)}")

    @property
    def keys(self) -> tuple[str, ...]:
        """Structure keys in index order (index i + 1 is keys[i])."""
        return tuple(self.values)

    @property
    def n_classes(self) -> int:
        """Number of classes with background (C + 1)."""
        return len(self.values) + 1

    @property
    def colours(self) -> tuple[str, ...]:
        """One hex colour a structure, in index order; unknown structures get colours from a fixed cycle."""
        cycle = [s.colour for s in STRUCTURES.values()]
        return tuple(STRUCTURES[k].colour if k in STRUCTURES else cycle[i % 7] for i, k in enumerate(self.values))

    @property
    def titles(self) -> tuple[str, ...]:
        """Names for people, in index order."""
        return tuple(STRUCTURES[k].name if k in STRUCTURES else k for k in self.values)

    def to_indices(self, labels: npt.NDArray[np.integer], source: str) -> npt.NDArray[np.uint8]:
        """File values -> indices, any shape.

        Raises:
            InputError: a value is not of the scheme; `source` (a file name) opens the message.
        """
        codes = {0: 0} | {v: i + 1 for i, v in enumerate(self.values.values())}
        codes |= {v: self.keys.index(k) + 1 for v, k in self.aliases.items()} | dict.fromkeys(self.ignored, 0)
        labels = np.asarray(labels if labels.flags.forc else np.ascontiguousarray(labels))
        if not labels.size or min(codes) <= labels.min() <= labels.max() <= max(codes):
            indices = _looked_up(labels, codes)
            if not labels.size or indices.max() != _UNKNOWN:
                return indices
        strays = (np.unique(block[~np.isin(block, list(codes))]) for block in _blocks(labels))
        unknown = sorted({int(value) for found in strays for value in found})
        more = f" and {len(unknown) - 8} more" if len(unknown) > 8 else ""
        raise InputError(
            f"{source}: unknown label value(s) {unknown[:8]}{more}; scheme {self.name!r} has background 0, "
            f"{', '.join(self._told())}. Correct the file or state another label scheme; in one of your own, "
            "ignore:[...] takes the values of other organs",
            "unknown-labels",
        )

    def _told(self) -> Iterator[str]:
        """Every structure with its values, and what is ignored."""
        for key, value in self.values.items():
            yield " and ".join([f"{key} {value}", *(str(v) for v, of in self.aliases.items() if of == key)])
        if self.ignored:
            some = sorted(self.ignored)
            more = f" and {len(some) - 8} more" if len(some) > 8 else ""
            yield f"ignores {', '.join(map(str, some[:8]))}{more}"

    def to_values(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.int16]:
        """Indices -> file values, any shape; int16 as in MMWHS."""
        return np.array([0, *self.values.values()], dtype=np.int16)[indices]


def _looked_up(labels: npt.NDArray[np.integer], codes: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    """Labels within the range of `codes` through a table: sorting 10^8 voxels would take longer than reading them."""
    table = np.full(max(codes) - min(codes) + 1, _UNKNOWN, dtype=np.uint8)
    for value, index in codes.items():
        # a negative value counts from the table's end, where no positive one reaches
        table[value] = index
    indices = np.empty_like(labels, dtype=np.uint8)
    for source, target in zip(_blocks(labels), _blocks(indices), strict=True):
        target[...] = table[source]
    return indices


def _blocks(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Parts of a contiguous array as flat views, in the order of memory."""
    flat = array.ravel(order="K")
    return (flat[start : start + _BLOCK] for start in range(0, flat.size, _BLOCK))


MMWHS = LabelScheme(
    "mmwhs",
    {"lv": 500, "rv": 600, "la": 420, "ra": 550, "myo": 205, "ao": 820, "pa": 850},
    aliases={421: "la"},
)
CARE_WHS = LabelScheme("care_whs", MMWHS.values, MMWHS.aliases)
ACDC = LabelScheme("acdc", {"rv": 1, "myo": 2, "lv": 3})
_TOTAL_V1 = {"lv": 46, "rv": 48, "la": 45, "ra": 47, "myo": 44, "ao": 7, "pa": 49}
TOTALSEGMENTATOR_V1 = LabelScheme(
    "totalsegmentator_v1", _TOTAL_V1, ignored=frozenset(range(1, 105)) - set(_TOTAL_V1.values())
)
TOTALSEGMENTATOR_HIGHRES = LabelScheme(
    "totalsegmentator_highres", {"lv": 3, "rv": 5, "la": 2, "ra": 4, "myo": 1, "ao": 6, "pa": 7}
)
SCHEMES: dict[str, LabelScheme] = {
    s.name: s for s in (MMWHS, CARE_WHS, ACDC, TOTALSEGMENTATOR_V1, TOTALSEGMENTATOR_HIGHRES)
}


# Normalised names; `ventricle_left` is turned into `left_ventricle` first.
_NAMES = {
    "lv": "lv lvc lvbp lv_cavity lv_blood_pool left_ventricle left_ventricle_cavity left_ventricle_blood_cavity "
    "left_ventricle_blood_pool left_ventricular_cavity left_ventricular_blood_pool heart_left_ventricle",
    "rv": "rv rvc rvbp rv_cavity rv_blood_pool right_ventricle right_ventricle_cavity right_ventricle_blood_cavity "
    "right_ventricle_blood_pool right_ventricular_cavity right_ventricular_blood_pool heart_right_ventricle",
    "la": "la lac la_cavity left_atrium left_atrium_cavity left_atrium_blood_cavity left_atrial_cavity "
    "heart_left_atrium",
    "ra": "ra rac ra_cavity right_atrium right_atrium_cavity right_atrium_blood_cavity right_atrial_cavity "
    "heart_right_atrium",
    "myo": "myo myocardium mlv lvm lvmyo lv_myo lv_myocardium myo_lv heart_myocardium left_ventricle_myocardium "
    "left_ventricular_myocardium myocardium_of_the_left_ventricle myocardium_left_ventricle",
    "ao": "ao aa aorta ascending_aorta aorta_ascending asc_aorta",
    "pa": "pa pulmonary_artery pulmonary_trunk main_pulmonary_artery",
}
_KEYS = {name: key for key, names in _NAMES.items() for name in names.split()}


def structure_key(name: str) -> str:
    """Our key of a structure that another data set names; the normalised name where it is none of the seven."""
    plain = re.sub(r"[\W_]+", "_", name.lower()).strip("_")
    turned = re.sub(r"(atrium|ventricle)_(left|right)", r"\2_\1", plain)
    if "(" in name and turned not in _KEYS:
        return structure_key(re.sub(r"\([^()]*\)?", "", name))
    return _KEYS.get(turned, plain)


def label_scheme(scheme: str | Mapping[str, Any] | LabelScheme) -> LabelScheme:
    """A scheme by name (one of `SCHEMES`) or from a mapping of structure -> file value.

    A list of values merges them into one structure, whose first value is the one that is written. The key `ignore`
    lists values of other organs that count as background: `{"lv": 1, "myo": [2, 5], "ignore": [7, 8]}`. Structures may
    have other names than ours, see `structure_key`.

    Raises:
        InputError: no scheme has that name, or the mapping is not one or names a structure twice.
    """
    if isinstance(scheme, LabelScheme):
        return scheme
    if isinstance(scheme, str):
        if scheme not in SCHEMES:
            raise InputError(
                f"no label scheme {scheme!r}; there are {sorted(SCHEMES)}, or state structure: value pairs"
            )
        return SCHEMES[scheme]
    if not isinstance(scheme, Mapping):
        raise InputError(f"label scheme {scheme!r}: must be a name of {sorted(SCHEMES)} or structure: value pairs")
    pairs: dict[str, Any] = {}
    for name, values in scheme.items():
        key = scheme_key(str(name))
        if key in pairs:
            raise InputError(f"label scheme: names {key!r} twice; list its values instead: {key}: [1, 2]")
        pairs[key] = values
    return merged_scheme("custom", pairs)


def scheme_key(name: str) -> str:
    """Our key of a structure or of what is ignored, by whatever name; the name itself where it is neither."""
    key = structure_key(name)
    return key if key in STRUCTURES or key == "ignore" else name


def merged_scheme(name: str, values: Mapping[str, Any]) -> LabelScheme:
    """A scheme from structure -> file value or values; the key `ignore` lists those of other organs.

    Raises:
        InputError: a value is not a whole number, stands twice or is 0.
    """
    listed = {str(key): _whole_numbers(name, str(key), value) for key, value in values.items()}
    ignored = listed.pop("ignore", [])
    _refuse_repeats(name, {**listed, "ignore": ignored})
    empty = [key for key, numbers in listed.items() if not numbers]
    if empty:
        raise InputError(f"label scheme {name!r}: structure {empty[0]!r} has no file value")
    aliases = {number: key for key, numbers in listed.items() for number in numbers[1:]}
    return LabelScheme(name, {key: numbers[0] for key, numbers in listed.items()}, aliases, frozenset(ignored))


def _whole_numbers(name: str, key: str, value: Any) -> list[int]:
    several = list(value) if isinstance(value, Iterable) and not isinstance(value, str | Mapping) else [value]
    try:
        if any(isinstance(v, bool | Mapping) or (isinstance(v, float) and v != int(v)) for v in several):
            raise ValueError
        return [int(v) for v in several]
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"label scheme {name!r}: {key}: {value!r} must be a whole number or a list of them") from None


def _refuse_repeats(name: str, listed: Mapping[str, Sequence[int]]) -> None:
    owner: dict[int, str] = {}
    for key, numbers in listed.items():
        for number in numbers:
            if number in owner:
                raise InputError(f"label scheme {name!r}: file value {number} is both {owner[number]!r} and {key!r}")
            owner[number] = key
