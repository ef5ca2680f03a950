"""Failure detection: which of a method's numbers is its confidence in a mask, and how well that ranks masks.

A method may say several things about a mask: QI over the volume or the heart, hard or soft, with a label head the Dice
that it expects, with an opinion the Dice of the mask with the opinion's own, with several opinions also how alike they
are (Zenk et al. 2025, arXiv 2406.03323). The one that ranks best is the method's score, chosen by a vote of the folds:
each votes for the score with the lowest AURC on the masks of the *other* folds, and the majority's is used for all.
Where the folds agree, every mask is thus ranked by a score that was chosen without it; where they do not, `optimism`
says what the choice may have gained. Scores of different kinds are never ranked among each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from whqa.contract.entries import Entry
from whqa.contract.summary_json import ChosenConfidence, FailureDetection, StructureFailure
from whqa.masks.plan import is_delivered
from whqa.metrics import failure
from whqa.metrics.arrays import FloatArray
from whqa.results import bootstrap
from whqa.results.mean_dice import mean_dice, mean_dice_predicted, worst_dice_predicted
from whqa.results.summary_entry import entry_of
from whqa.results.triage import BAD_DICE

MEAN_DICE, WORST_DICE = "mean_dice_predicted", "worst_dice_predicted"
QUALITY_SCORES: Mapping[str, str] = {
    "qi_heart": "QI (heart)",
    "qi_soft_heart": "soft QI (heart)",
    "qi_volume": "QI (volume)",
    "qi_soft_volume": "soft QI (volume)",
}
AGREEMENT_SCORES: Mapping[str, str] = {
    "opinion_dice": "Dice with the opinion's mask",
    "pairwise_dice": "pairwise Dice of the segmenters",
}
SCORES: Mapping[str, str] = {
    MEAN_DICE: "expected mean Dice",
    WORST_DICE: "lowest expected Dice",
    **QUALITY_SCORES,
    **AGREEMENT_SCORES,
}
"""Candidates and what people call them; of two with equal AURC the first is chosen."""
FEW_FOLDS = "fewer than two folds have masks to choose the score by; the first that the method has is taken"


@dataclass(frozen=True)
class ChosenScore:
    """A method's score and how it was chosen; see `whqa.contract.summary_json.FailureDetection`."""

    score: str
    agreement: float | None = None
    optimism: float | None = None


def confidence(rows: pd.DataFrame, score: str, structures: Sequence[str]) -> FloatArray:
    """Values of a score, the higher the better the mask should be, (n,).

    The constant gets one confidence for all: it cannot rank, and its differences between folds are chance.

    Args:
        rows: of a case table, one method.
        score: one of `SCORES`.
        structures: keys in index order.
    """
    if (rows["method"] == "constant").all():
        return np.zeros(len(rows))
    if score in QUALITY_SCORES:
        return rows[score].to_numpy(float)
    if score in AGREEMENT_SCORES:
        # without a Dice neither the mask nor the opinion has any structure
        return rows[score].fillna(0.0).to_numpy(float)
    found = (mean_dice_predicted if score == MEAN_DICE else worst_dice_predicted)(rows, structures)
    # a mask of which no structure is expected is empty
    return found.fillna(0.0).to_numpy(float)


def risk_of(rows: pd.DataFrame, structures: Sequence[str]) -> FloatArray:
    """1 - mean true Dice of each row's mask, (n,); nan for a mask without a Dice."""
    return 1 - mean_dice(rows, structures).to_numpy(float)


def choose_score(rows: pd.DataFrame, structures: Sequence[str]) -> ChosenScore:
    """The score of one method, from its final masks; from delivered or all masks where it judged no such.

    Args:
        rows: of a case table, one method, at least one.
        structures: keys in index order.
    """
    candidates = _candidates(rows, structures)
    rows = _ranked_masks(rows)
    risk, fold = risk_of(rows, structures), rows["fold"].to_numpy()
    values = {name: confidence(rows, name, structures) for name in candidates}
    folds = np.unique(fold[np.isfinite(risk)])
    if len(folds) < 2:
        return ChosenScore(candidates[0])

    def best(among: npt.NDArray[np.bool_]) -> str:
        return min(candidates, key=lambda name: failure.aurc(values[name][among], risk[among]))

    votes = {k: best(fold != k) for k in folds}
    count = Counter(votes.values())
    chosen = max(candidates, key=lambda name: count[name])
    lost = [
        failure.aurc(values[vote][fold == k], risk[fold == k])
        - failure.aurc(values[chosen][fold == k], risk[fold == k])
        for k, vote in votes.items()
    ]
    return ChosenScore(chosen, count[chosen] / len(folds), float(np.mean(lost)))


def failure_numbers(rows: pd.DataFrame, structures: Sequence[str], chosen: ChosenScore | None) -> FailureDetection:
    """The entry "failure" of one method on one part of the masks.

    Args:
        rows: of `whqa.results.tables.view`, one method.
        structures: keys in index order.
        chosen: of `choose_score`; None where the method judged no mask at all.
    """
    dice = rows[[f"dice_{key}" for key in structures]]
    rows, dice = rows[dice.notna().any(axis=1)], dice[dice.notna().any(axis=1)]
    if chosen is None or rows.empty:
        return no_failure_numbers("no judged mask has a Dice", chosen)
    trust, risk = confidence(rows, chosen.score, structures), risk_of(rows, structures)
    poor = (dice < BAD_DICE).any(axis=1).to_numpy()

    def ranked(core: _Core, resampled: _Resampled, score: FloatArray, truth: npt.NDArray) -> Entry:
        found = bootstrap.ci95(resampled, score, truth, patients=list(rows["patient"]))
        return entry_of(core(score, truth), found, "not defined")

    found: FailureDetection = {
        **_how(chosen),
        "aurc": ranked(failure.aurc, bootstrap.resampled_aurc, trust, risk),
        "e_aurc": ranked(failure.e_aurc, bootstrap.resampled_e_aurc, trust, risk),
        "auroc": _auroc(-trust, poor, rows["patient"], "a structure"),
        "positives": int(poor.sum()),
        "auroc_per_structure": {key: _structure_auroc(rows, key, trust) for key in structures},
    }
    return found


def no_failure_numbers(reason: str, chosen: ChosenScore | None = None) -> FailureDetection:
    """The same where a method judged no such mask."""
    nothing = entry_of(math.nan, None, reason)
    how: ChosenConfidence = {"score": None, "agreement": None, "optimism": None, "reason": reason}
    how = _how(chosen) if chosen else how
    return {**how, "aurc": nothing, "e_aurc": nothing, "auroc": nothing, "auroc_per_structure": {}}


_Core = Callable[[npt.NDArray, npt.NDArray], float]
_Resampled = Callable[..., FloatArray]


def _how(chosen: ChosenScore) -> ChosenConfidence:
    found: ChosenConfidence = {"score": chosen.score, "agreement": chosen.agreement, "optimism": chosen.optimism}
    return found if chosen.agreement is not None else {**found, "reason": FEW_FOLDS}


def _candidates(rows: pd.DataFrame, structures: Sequence[str]) -> tuple[str, ...]:
    """Those of `SCORES` that the method has."""
    expected = rows.reindex(columns=[f"dice_{key}_predicted" for key in structures])
    labels = (MEAN_DICE, WORST_DICE) if expected.notna().any(axis=None) else ()
    quality = (name for name in QUALITY_SCORES if name in rows and rows[name].notna().all())
    return (*labels, *quality, *(name for name in AGREEMENT_SCORES if name in rows and rows[name].notna().any()))


def _ranked_masks(rows: pd.DataFrame) -> pd.DataFrame:
    final = rows[rows["mask_kind"] == "final"]
    delivered = rows[rows["mask_kind"].map(is_delivered)]
    return next(part for part in (final, delivered, rows) if len(part))


def _auroc(score: FloatArray, positive: npt.NDArray[np.bool_], patients: pd.Series, what: str) -> Entry:
    if not len(positive):
        return entry_of(failure.auroc(score, positive), None, f"no mask has {what} with a Dice")
    some = "every mask has" if positive.all() else "no mask has"
    ci95 = bootstrap.ci95(bootstrap.resampled_auroc, score, positive, patients=list(patients))
    return entry_of(failure.auroc(score, positive), ci95, f"one class only: {some} {what} with Dice below {BAD_DICE}")


def _structure_auroc(rows: pd.DataFrame, key: str, trust: FloatArray) -> StructureFailure:
    """Of the masks in which the structure has a Dice; one that is not expected to have any is trusted to be absent."""
    known = rows[f"dice_{key}"].notna().to_numpy()
    expected = rows.get(f"dice_{key}_predicted")
    if expected is not None and expected.notna().any():
        trust = expected.fillna(1.0).to_numpy(float)
    poor = (rows[f"dice_{key}"] < BAD_DICE).to_numpy()[known]
    return {**_auroc(-trust[known], poor, rows["patient"][known], f"a {key}"), "positives": int(poor.sum())}
