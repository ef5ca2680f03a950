"""The entries of which summary.json is made; see `whqa.contract.summary_json`."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from whqa.contract.json_schema import Ends


class Entry(TypedDict):
    """A mean with its interval.

    Attributes:
        mean: over masks, in the unit of its key (1 where none is named); null where it is not defined.
        ci95: 95 % interval of the mean by patient; null where too few patients have a value.
        reason: why `mean` or `ci95` is null.
        n: how many masks have a value, where some have none.
    """

    mean: float | None
    ci95: Ends | None
    reason: NotRequired[str]
    n: NotRequired[int]


class PooledEntry(Entry):
    """The error Dice.

    Attributes:
        mean, ci95, reason, n: as in every entry.
        pooled: from voxel counts summed over all masks; null without a mask.
    """

    pooled: float | None


class Spread(TypedDict):
    """Mean and spread of Acc over masks.

    Attributes:
        mean: null without a mask.
        std: sample standard deviation; null for fewer than two masks.
        reason: why one of them is null.
    """

    mean: float | None
    std: float | None
    reason: NotRequired[str]


class MeasuredIntervals(TypedDict):
    """Do the intervals for one quantity hold what they promise?

    Attributes:
        n: masks that the quantity is known of.
        coverage: share of intervals that hold the truth.
        width: of the intervals, in the quantity's unit.
    """

    n: int
    coverage: Entry
    width: Entry
