"""The structures of the heart: names, label values of each public layout, colours.

Inside whqa a label map holds indices: 0 is background and i is the i-th structure of the scheme. Files hold
the values of their layout (MMWHS: 500, 600, ...); a `LabelScheme` translates both ways.

Sources: MMWHS, Zhuang & Shen 2016 and the challenge page (label values; the stray 421 in mr_train_1010 means left
atrium); ACDC, Bernard et al. 2018 (1 RV cavity, 2 myocardium, 3 LV cavity).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from whqa.errors import InputError


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


@dataclass(frozen=True)
class LabelScheme:
    """Which structures a cohort has and which file value stands for each.

    Attributes:
        name: of the layout, e.g. "mmwhs".
        values: structure key -> value in files, in the order of the indices 1..C.
        aliases: further file values -> structure key (MMWHS: 421 -> la).
    """

    name: str
    values: Mapping[str, int]
    aliases: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = list(self.values.values()) + list(self.aliases)
        if not self.values or len(set(named)) != len(named) or 0 in named:
            raise InputError(f"label scheme {self.name!r}: values must be distinct and not 0, got {dict(self.values)}")
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
        lookup = {0: 0} | {v: i + 1 for i, v in enumerate(self.values.values())}
        lookup |= {v: self.keys.index(k) + 1 for v, k in self.aliases.items()}
        present, inverse = np.unique(labels, return_inverse=True)
        unknown = [int(v) for v in present if int(v) not in lookup]
        if unknown:
            known = ", ".join(f"{k} {v}" for k, v in self.values.items())
            raise InputError(
                f"{source}: unknown label value(s) {unknown[:8]}; scheme {self.name!r} has background 0, {known}. "
                "Correct the file or state another label scheme"
            )
        return np.array([lookup[int(v)] for v in present], dtype=np.uint8)[inverse].reshape(labels.shape)

    def to_values(self, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.int16]:
        """Indices -> file values, any shape; int16 as in MMWHS."""
        return np.array([0, *self.values.values()], dtype=np.int16)[indices]


MMWHS = LabelScheme(
    "mmwhs",
    {"lv": 500, "rv": 600, "la": 420, "ra": 550, "myo": 205, "ao": 820, "pa": 850},
    aliases={421: "la"},
)
ACDC = LabelScheme("acdc", {"rv": 1, "myo": 2, "lv": 3})
SCHEMES: dict[str, LabelScheme] = {s.name: s for s in (MMWHS, ACDC)}


def label_scheme(scheme: str | Mapping[str, int] | LabelScheme) -> LabelScheme:
    """A scheme by name ("mmwhs", "acdc") or from a mapping of structure -> file value.

    Raises:
        InputError: no scheme has that name, or the mapping is not one.
    """
    if isinstance(scheme, LabelScheme):
        return scheme
    if isinstance(scheme, str):
        if scheme not in SCHEMES:
            raise InputError(
                f"no label scheme {scheme!r}; there are {sorted(SCHEMES)}, or state structure: value pairs"
            )
        return SCHEMES[scheme]
    return LabelScheme("custom", {str(k): int(v) for k, v in scheme.items()})
