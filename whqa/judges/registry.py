"""The baselines by their name in the tables."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from whqa.errors import InputError
from whqa.judges.baseline import Baseline
from whqa.judges.boundary import Boundary
from whqa.judges.by_kind import ByKind
from whqa.judges.constant import Constant
from whqa.judges.dice_regressor import DiceRegressor
from whqa.judges.entropy import Entropy
from whqa.judges.reverse import Reverse
from whqa.judges.second_opinion import SecondOpinion

BASELINES: dict[str, Callable[..., Baseline]] = {
    Constant.name: Constant,
    Boundary.name: partial(ByKind, Boundary()),
    Entropy.name: partial(ByKind, Entropy()),
    "opinion": SecondOpinion,
    "tta": partial(SecondOpinion, "tta", "tta"),
    "ensemble": partial(SecondOpinion, "ensemble", "ensemble", rates_by="log_p"),
    "ensemble_by_doubt": partial(SecondOpinion, "ensemble_by_doubt", "ensemble", rates_by=""),
    DiceRegressor.name: DiceRegressor,
    Reverse.name: Reverse,
}
"""Name in the column `method` of cases.csv -> what makes the baseline."""


def make_baselines(names: Sequence[str], there: Collection[str]) -> list[Baseline]:
    """The named baselines, each once, not fitted; the constant is always there and comes first.

    Args:
        names: keys of `BASELINES`.
        there: what any training mask has of "entropy", "log_p", "tta" and "ensemble"; a baseline that needs more is
            left out.

    Raises:
        InputError: there is no such baseline.
    """
    unknown = sorted(set(names) - set(BASELINES))
    if unknown:
        raise InputError(f"errormap.baselines: no baseline {unknown[0]!r}; there are {', '.join(sorted(BASELINES))}")
    makers = dict(BASELINES)
    if "tta" in there:
        # what the network learns its error rates from
        makers["ensemble"] = partial(makers["ensemble"], rates_by="tta")
    made = [makers[name]() for name in dict.fromkeys([Constant.name, *names])]
    return [baseline for baseline in made if baseline.needs <= set(there)]
