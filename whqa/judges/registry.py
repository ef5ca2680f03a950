"""The baselines by their name in the tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from whqa.errors import InputError
from whqa.judges.baseline import Baseline
from whqa.judges.boundary import Boundary
from whqa.judges.by_kind import ByKind
from whqa.judges.constant import Constant
from whqa.judges.entropy import Entropy

BASELINES: dict[str, Callable[[], Baseline]] = {
    Constant.name: Constant,
    Boundary.name: partial(ByKind, Boundary()),
    Entropy.name: partial(ByKind, Entropy()),
}
"""Name in the column `method` of cases.csv -> what makes the baseline."""


def make_baselines(names: Sequence[str], with_entropy: bool) -> list[Baseline]:
    """The named baselines, each once, not fitted; the constant is always there and comes first.

    Args:
        names: keys of `BASELINES`.
        with_entropy: whether any training mask has its segmenter's entropy; else what needs it is left out.

    Raises:
        InputError: there is no such baseline.
    """
    unknown = sorted(set(names) - set(BASELINES))
    if unknown:
        raise InputError(f"errormap.baselines: no baseline {unknown[0]!r}; there are {', '.join(sorted(BASELINES))}")
    made = [BASELINES[name]() for name in dict.fromkeys([Constant.name, *names])]
    return [baseline for baseline in made if with_entropy or not baseline.needs_entropy]
