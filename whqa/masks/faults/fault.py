"""The record of one fault."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Fault:
    """One fault: all that is needed to make it again.

    Attributes:
        kind: of `whqa.masks.corruption.FAULTS`.
        structure: label index that is changed; 0 is the whole heart.
        other: label index that takes its place or gives way, where the kind has one; 0 is background.
        size: mm; how far the fault reaches. Of "missing" and "sides": the share of the structure, all of it from 1 on.
        place: of its centre along each axis, as a share of the structure's extent.
        seed: of what else is random about it.
    """

    kind: str
    structure: int
    other: int
    size: float
    place: tuple[float, ...]
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", tuple(self.place))

    def to_dict(self) -> dict[str, Any]:
        """For JSON; `Fault(**...)` returns it."""
        return asdict(self) | {"place": list(self.place)}

    def generator(self) -> np.random.Generator:
        """A new generator, keyed by the seed."""
        return np.random.Generator(np.random.PCG64(self.seed))
