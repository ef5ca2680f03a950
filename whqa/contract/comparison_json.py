"""comparison.json, key by key: what `whqa assess --compare BEFORE AFTER` says of masks that were corrected.

A piece is what `work` in quality.json counts. It vanished where less than half of its voxels are still more probably
wrong than right, and appeared where less than half of its voxels were so before.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from whqa.contract.json_schema import Size
from whqa.contract.work_json import Piece

Decision = Literal["accept", "review", "reject"]


class ChangedNumber(TypedDict):
    """A number before and after.

    Attributes:
        before: null where it is not known.
        after: null where it is not known.
        difference: after minus before; null where one is not known.
    """

    before: float | None
    after: float | None
    difference: float | None


class ComparedStructure(TypedDict):
    """One structure of a mask.

    Attributes:
        name: for people.
        dice_expected: against the truth.
        volume_ml: in the mask.
    """

    name: str
    dice_expected: ChangedNumber
    volume_ml: ChangedNumber


class ComparedDecisions(TypedDict):
    """The verdicts.

    Attributes:
        before: on the mask as it was.
        after: on the corrected one.
    """

    before: Decision
    after: Decision


class ComparedCase(TypedDict):
    """One case that is in both folders.

    Attributes:
        case: its name.
        decision: the verdicts.
        qi_heart, qi_volume: QI by region.
        mean_dice: expected, mean over structures.
        minutes: that a correction may take.
        structures: key such as "lv" -> how it changed.
        vanished: pieces that are right now, of the fifty largest.
        appeared: pieces that are wrong now and were not, of the fifty largest.
        left: how many of the fifty largest pieces before did not vanish.
        left_ml: volume of what was and is more probably wrong than right.
    """

    case: str
    decision: ComparedDecisions
    qi_heart: ChangedNumber
    qi_volume: ChangedNumber
    mean_dice: ChangedNumber
    minutes: ChangedNumber
    structures: dict[str, ComparedStructure]
    vanished: list[Piece]
    appeared: list[Piece]
    left: int
    left_ml: Size


class ComparedAssessments(TypedDict):
    """Two folders of `whqa assess`.

    Attributes:
        before: the folder of the masks as they were.
        after: the folder of the corrected ones.
        run: that judged both.
        cases: in both folders, the largest gain in expected mean Dice (or QI over the heart) first.
        only_before: names of cases that are not in the second folder.
        only_after: names of cases that are not in the first folder.
        qi_heart: mean over the cases in which it is known both times.
        mean_dice: mean over the cases in which it is known both times.
        minutes: of all cases together.
    """

    before: str
    after: str
    run: str
    cases: list[ComparedCase]
    only_before: list[str]
    only_after: list[str]
    qi_heart: ChangedNumber
    mean_dice: ChangedNumber
    minutes: ChangedNumber
