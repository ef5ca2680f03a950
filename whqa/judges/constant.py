"""The constant: every mask is as good as the training masks were on average."""

from __future__ import annotations

from collections import defaultdict

import torch

from whqa.judges.baseline import CaseSource
from whqa.quality import ErrorPrediction, JudgedCase, one_minus_mean

REGIONS = ("volume", "heart")


class Constant:
    """Predicts the training mean of Acc as QI; P is 1 minus that everywhere, and no voxel is called wrong.

    Its error map says nothing, so `quality` gives the QI that the table shows.
    """

    name = "constant"
    needs: frozenset[str] = frozenset()
    wants_all = True

    def __init__(self) -> None:
        self._accuracy: dict[str, float] = {}

    def fit(self, cases: CaseSource) -> None:
        """Take mean Acc of both regions, over all masks and over those of each kind; see `Baseline.fit`."""
        seen: dict[str, list[float]] = defaultdict(list)
        for case in cases():
            for region, voxels in (("volume", None), ("heart", case.heart)):
                accuracy = one_minus_mean(case.error, voxels)
                seen[f"acc_{region}"].append(accuracy)
                seen[f"acc_{region}/{case.kind}"].append(accuracy)
        if not seen:
            raise ValueError("no case to fit the constant on")
        self._accuracy = {key: sum(values) / len(values) for key, values in sorted(seen.items())}

    def predict(self, case: JudgedCase) -> ErrorPrediction:
        """P = 1 - mean training Acc ("volume") everywhere, an empty Ê; see `Baseline.predict`."""
        share = 1.0 - self.accuracy("volume")
        return ErrorPrediction(
            torch.full(case.mask.shape, share, dtype=torch.float32, device=case.mask.device),
            torch.zeros(case.mask.shape, dtype=torch.bool, device=case.mask.device),
        )

    def accuracy(self, region: str, kind: str | None = None) -> float:
        """Training mean of Acc in a region over the masks of a kind; over all for None or a kind not seen in training.

        Raises:
            RuntimeError: not fitted.
        """
        if not self._accuracy:
            raise RuntimeError("baseline 'constant' is not fitted")
        return self._accuracy.get(f"acc_{region}/{kind}", self._accuracy[f"acc_{region}"])

    def quality(self) -> dict[str, float]:
        """The columns qi_volume, qi_soft_volume, qi_heart and qi_soft_heart of a row of this baseline."""
        return {f"{qi}_{region}": self.accuracy(region) for region in REGIONS for qi in ("qi", "qi_soft")}

    def parameters(self) -> dict[str, float]:
        """Keys "acc_volume", "acc_heart" over all kinds, and "acc_volume/<kind>", "acc_heart/<kind>"."""
        return dict(self._accuracy)
