"""Parts of summary.json that take masks apart by quality: by the true one (strata), by the predicted (reliability)."""

from __future__ import annotations

from typing import TypedDict

from whqa.contract.entries import Entry, MeasuredIntervals


class RegionInStratum(TypedDict):
    """QI against Acc of one region, masks of one stratum.

    Attributes:
        bias: mean of QI - Acc.
        mae: mean of |QI - Acc|.
        coverage: share of intervals for Acc that hold it; of the first method alone.
        width: of these intervals.
    """

    bias: Entry
    mae: Entry
    coverage: Entry
    width: Entry


class Change(Entry):
    """Dice after correction minus Dice before, mask by mask.

    Attributes:
        mean, ci95, reason, n: as in every entry.
        worst: the lowest of the masks; null where none was corrected.
    """

    worst: float | None


class CorrectionInStratum(Change):
    """What the correction does to the mean Dice of a mask.

    Attributes:
        mean, ci95, reason, n: as in every entry.
        worst: the lowest of the masks; null where none was corrected.
        per_structure: structure key -> change of its Dice; empty where no mask was corrected.
    """

    per_structure: dict[str, Change]


class Stratum(RegionInStratum):
    """Masks whose true mean Dice lies in one range.

    Attributes:
        n: masks.
        bias, mae, coverage, width: over the heart.
        volume: the same over the whole crop.
        dice: structure key -> intervals for its Dice; empty but for the first method with a label head.
        error_dice: as in the method's numbers.
        false_alarm: of the right voxels of a mask, the share that is called wrong.
        correction: change of Dice.
    """

    n: int
    volume: RegionInStratum
    dice: dict[str, MeasuredIntervals]
    error_dice: Entry
    false_alarm: Entry
    correction: CorrectionInStratum


class ReliabilityBin(TypedDict):
    """Masks of similar QI.

    Attributes:
        n: masks.
        qi: mean QI.
        acc: mean true accuracy.
        bias: mean of QI - Acc.
    """

    n: int
    qi: float
    acc: float
    bias: Entry


class Reliability(TypedDict):
    """Is QI unbiased given what is predicted? Bins of equal count by rising QI, of each region.

    Attributes:
        volume: over the whole crop.
        heart: over the mask's foreground and 10 mm around it.
    """

    volume: list[ReliabilityBin]
    heart: list[ReliabilityBin]
