"""Error rates that are the same share of every mask's doubt."""

from __future__ import annotations

from whqa.judges.boosted_rate import BoostedRate, Trees
from whqa.judges.mask_parts import MASK_PARTS


def constant_rate(ratio: float) -> BoostedRate:
    return BoostedRate((Trees(ratio, (), (), (), (), (), ()),) * len(MASK_PARTS))


EVERYTHING_WRONG = constant_rate(1e4)
