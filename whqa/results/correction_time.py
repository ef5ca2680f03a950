"""How long a person may need to correct a mask: a model of three numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from whqa.errors import InputError


@dataclass(frozen=True)
class CorrectionTime:
    """Minutes that a person needs: `case + piece * pieces + ml * millilitres`, of what is more probably wrong than not.

    The defaults are assumptions, not measurements: who has timed a few corrections states the own ones.

    Attributes:
        case: to open a case and look it through, also where nothing is wrong.
        piece: to find one connected piece and choose a tool.
        ml: to redraw one millilitre.
    """

    case: float = 1.0
    piece: float = 0.5
    ml: float = 0.5

    def minutes(self, work: Mapping[str, Any]) -> float:
        """Of a mask; `work` is the part of that name of quality.json."""
        return self.case + self.piece * int(work["pieces"]) + self.ml * float(work["ml"])

    @property
    def words(self) -> str:
        """The model as a sentence's part."""
        return f"{self.case:g} for a case + {self.piece:g} for each piece + {self.ml:g} for each millilitre"


def correction_time(text: str | None) -> CorrectionTime:
    """Of `case=1,piece=0.5,ml=0.5`; what is not named keeps its default.

    Raises:
        InputError: an unknown name, or no number from 0 on.
    """
    values: dict[str, float] = {}
    names = [field.name for field in fields(CorrectionTime)]
    for part in filter(None, (text or "").split(",")):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in names:
            raise InputError(f"--minutes {part}: must be {', '.join(names[:-1])} or {names[-1]}, such as 'piece=0.5'")
        try:
            values[name] = float(value)
        except ValueError:
            values[name] = -1
        if not 0 <= values[name] < float("inf"):
            raise InputError(f"--minutes {part}: must be a number of minutes from 0 on, such as '{name}=0.5'")
    return CorrectionTime(**values)
