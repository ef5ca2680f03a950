"""A baseline fitted once for every kind of mask: the strongest form of it, for it is told what the network is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from whqa.errors import InputError
from whqa.judges.baseline import CaseSource
from whqa.judges.by_level import LevelBaseline
from whqa.judges.threshold import LevelSearch
from whqa.quality import ErrorPrediction, JudgedCase


class ByKind:
    """Fits `make()` on the training masks of each kind and on all of them; a kind not seen in training gets the latter.

    One threshold for good and bad masks alike would make a straw man of a baseline: the best band or entropy threshold
    of final masks is far from that of side outputs.
    """

    def __init__(self, make: Callable[[], LevelBaseline]) -> None:
        self._make = make
        self._all = make()
        self._kinds: dict[str, LevelBaseline] = {}
        self.name = self._all.name
        self.needs_entropy = self._all.needs_entropy

    def fit(self, cases: CaseSource) -> None:
        """One pass over the cases, however many kinds there are; see `Baseline.fit`."""
        everyone, by_kind = LevelSearch(self._all.n_levels), dict[str, LevelSearch]()
        for case in cases():
            levels = self._all.levels(case)
            for search in (everyone, by_kind.setdefault(case.kind, LevelSearch(self._all.n_levels))):
                search.update(levels, case.error)
        self._all.choose(everyone.best()[0])
        self._kinds = {kind: self._make() for kind in sorted(by_kind)}
        for kind, baseline in self._kinds.items():
            baseline.choose(by_kind[kind].best()[0])

    def predict(self, case: JudgedCase) -> ErrorPrediction:
        """See `Baseline.predict`."""
        return self._kinds.get(case.kind, self._all).predict(case)

    def parameters(self) -> dict[str, float]:
        """The numbers fitted on all masks by their names, and "<name>/<kind>" for each kind."""
        found = self._all.parameters()
        for kind, baseline in self._kinds.items():
            found |= {f"{name}/{kind}": value for name, value in baseline.parameters().items()}
        return found

    def load(self, parameters: Mapping[str, float]) -> None:
        """See `Baseline.load`."""
        if not parameters:
            raise InputError(f"baseline {self.name!r}: no parameters; fit it again")
        self._all.load({k: v for k, v in parameters.items() if "/" not in k})
        self._kinds = {}
        for kind in sorted({k.split("/", 1)[1] for k in parameters if "/" in k}):
            self._kinds[kind] = self._make()
            self._kinds[kind].load({k.split("/")[0]: v for k, v in parameters.items() if k.endswith(f"/{kind}")})
