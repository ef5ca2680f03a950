"""The choice of a confidence against a plain reading of its rule, and failures of structures against scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from whqa.results.failure_score import SCORES, choose_score, confidence, failure_numbers

STRUCTURES = ("lv", "rv", "pa")
QI = ("qi_volume", "qi_heart", "qi_soft_volume", "qi_soft_heart")


def _rows(noise: dict[str, float], n: int = 60, folds: int = 4, labels: bool = True) -> pd.DataFrame:
    """QI follows the mean Dice with the noise given for each; expected Dice with that of "dice"."""
    rng = np.random.default_rng(8)
    table = pd.DataFrame(
        {"case": [f"c{i}" for i in range(n)], "patient": [f"p{i}" for i in range(n)], "fold": np.arange(n) % folds}
    ).assign(mask_kind="final", method="errormap")
    for key in STRUCTURES:
        table[f"dice_{key}"] = rng.uniform(0.4, 1.0, n)
        table[f"dice_{key}_predicted"] = (
            np.clip(table[f"dice_{key}"] + noise.get("dice", 1) * rng.standard_normal(n), 0, 1) if labels else np.nan
        )
    dice = table[[f"dice_{key}" for key in STRUCTURES]].mean(axis=1)
    for name in QI:
        table[name] = dice + noise.get(name, 1) * rng.standard_normal(n)
    return table


def _aurc(score: np.ndarray, risk: np.ndarray) -> float:
    ordered = risk[np.argsort(-score)]
    return float(np.mean(np.cumsum(ordered) / np.arange(1, len(ordered) + 1)))


def _values(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    expected = rows[[f"dice_{key}_predicted" for key in STRUCTURES]]
    found = {"mean_dice_predicted": expected.mean(axis=1), "worst_dice_predicted": expected.min(axis=1)}
    return {name: np.asarray(found.get(name, rows.get(name))) for name in SCORES if name in found or name in rows}


@pytest.mark.parametrize("best", ["qi_volume", "qi_soft_heart", "dice"])
def test_the_score_that_ranks_best_is_chosen(best):
    rows = _rows({best: 0.01})
    chosen = choose_score(rows, STRUCTURES)
    assert chosen.score == {"dice": "mean_dice_predicted"}.get(best, best)
    assert chosen.agreement == 1.0
    assert chosen.optimism == 0.0


def test_folds_vote_without_their_own_masks_and_the_optimism_is_what_the_vote_gains():
    # scores of much the same worth, so that the folds disagree
    rows = _rows(dict.fromkeys(QI, 0.12), n=24, folds=6)
    risk = 1 - rows[[f"dice_{key}" for key in STRUCTURES]].mean(axis=1).to_numpy()
    fold, values = rows["fold"].to_numpy(), _values(rows)
    votes = [min(values, key=lambda s, k=k: _aurc(values[s][fold != k], risk[fold != k])) for k in range(6)]
    assert len(set(votes)) > 1
    chosen = choose_score(rows, STRUCTURES)
    assert votes.count(chosen.score) == max(map(votes.count, votes))
    assert chosen.agreement == pytest.approx(votes.count(chosen.score) / 6)
    within = [
        _aurc(values[vote][fold == k], risk[fold == k]) - _aurc(values[chosen.score][fold == k], risk[fold == k])
        for k, vote in enumerate(votes)
    ]
    assert chosen.optimism == pytest.approx(np.mean(within))


def test_final_masks_decide_where_there_are_any():
    rows = _rows({"qi_heart": 0.01})
    side = _rows({"qi_volume": 0.01}, n=600).assign(mask_kind="side1")
    assert choose_score(pd.concat([rows, side], ignore_index=True), STRUCTURES).score == "qi_heart"
    assert choose_score(side, STRUCTURES).score == "qi_volume"


def test_a_method_without_labels_chooses_among_its_qi():
    rows = _rows({"qi_volume": 0.05, "dice": 0.0}, labels=False).drop(columns="qi_soft_heart")
    assert choose_score(rows, STRUCTURES).score == "qi_volume"
    assert choose_score(rows.assign(qi_volume=np.nan), STRUCTURES).score in ("qi_heart", "qi_soft_volume")


@pytest.mark.parametrize("best", ["opinion_dice", "pairwise_dice"])
def test_how_far_segmenters_agree_may_rank_best(best):
    rows = _rows({}, labels=False).assign(method="ensemble")
    dice = rows[[f"dice_{key}" for key in STRUCTURES]].mean(axis=1)
    noise = np.random.default_rng(1).standard_normal((2, len(rows)))
    agreement = {"opinion_dice": dice + noise[0], "pairwise_dice": dice + noise[1]} | {best: dice}
    rows = rows.assign(**agreement)
    chosen = choose_score(rows, STRUCTURES)
    assert chosen.score == best
    found = failure_numbers(rows, STRUCTURES, chosen)
    assert found["aurc"]["mean"] == pytest.approx(_aurc(dice.to_numpy(), 1 - dice.to_numpy()))
    # the column that other methods leave empty
    assert choose_score(rows.assign(**{best: np.nan}), STRUCTURES).score != best


def test_where_mask_and_opinion_are_empty_there_is_no_trust():
    rows = _rows({}, labels=False).assign(method="opinion")
    rows = rows.assign(opinion_dice=rows[[f"dice_{key}" for key in STRUCTURES]].mean(axis=1))
    rows.loc[0, "opinion_dice"] = np.nan
    values = confidence(rows, choose_score(rows, STRUCTURES).score, STRUCTURES)
    assert values[0] == 0.0 < values[1:].min()


def test_one_fold_cannot_vote():
    rows = _rows({"qi_volume": 0.01}, folds=1)
    chosen = choose_score(rows, STRUCTURES)
    assert chosen.score == "mean_dice_predicted"
    found = failure_numbers(rows, STRUCTURES, chosen)
    assert found["agreement"] is None
    assert found["optimism"] is None
    assert "two folds" in found["reason"]


def test_the_constant_has_one_confidence_for_all():
    rows = _rows({}).assign(method="constant")
    assert len(set(confidence(rows, choose_score(rows, STRUCTURES).score, STRUCTURES))) == 1


def test_failures_of_structures_are_ranked_by_their_expected_dice():
    rows = _rows({"dice": 0.2})
    rows.loc[:4, ["dice_pa", "dice_pa_predicted"]] = np.nan
    rows.loc[5, "dice_pa"], rows.loc[5, "dice_pa_predicted"] = 0.0, np.nan
    chosen = choose_score(rows, STRUCTURES)
    found = failure_numbers(rows, STRUCTURES, chosen)
    assert found["score"] == chosen.score
    for key in ("lv", "rv"):
        poor = rows[f"dice_{key}"] < 0.7
        expected = roc_auc_score(poor, -rows[f"dice_{key}_predicted"])
        assert found["auroc_per_structure"][key]["mean"] == pytest.approx(expected)
        assert found["auroc_per_structure"][key]["positives"] == poor.sum()
    known = rows[rows["dice_pa"].notna()]
    expected = roc_auc_score(known["dice_pa"] < 0.7, -known["dice_pa_predicted"].fillna(1.0))
    assert found["auroc_per_structure"]["pa"]["mean"] == pytest.approx(expected)
    values = _values(rows)[chosen.score]
    anyone = (rows[[f"dice_{key}" for key in STRUCTURES]] < 0.7).any(axis=1)
    assert found["auroc"]["mean"] == pytest.approx(roc_auc_score(anyone, -values))


def test_without_expected_dice_the_score_ranks_failures_of_structures():
    rows = _rows({"qi_heart": 0.05}, labels=False)
    found = failure_numbers(rows, STRUCTURES, choose_score(rows, STRUCTURES))
    assert found["score"] == "qi_heart"
    expected = roc_auc_score(rows["dice_rv"] < 0.7, -rows["qi_heart"])
    assert found["auroc_per_structure"]["rv"]["mean"] == pytest.approx(expected)


def test_what_is_not_defined_says_why():
    rows = _rows({"dice": 0.1})
    rows["dice_lv"] = 0.9
    found = failure_numbers(rows, STRUCTURES, choose_score(rows, STRUCTURES))
    assert found["auroc_per_structure"]["lv"]["mean"] is None
    assert "no mask has a lv" in found["auroc_per_structure"]["lv"]["reason"]
    rows[[f"dice_{key}" for key in STRUCTURES]] = np.nan
    found = failure_numbers(rows, STRUCTURES, choose_score(rows, STRUCTURES))
    assert found["aurc"]["mean"] is None
    assert found["auroc_per_structure"] == {}


def test_a_structure_that_no_mask_has_is_said_to_have_no_dice():
    rows = _rows({"dice": 0.1})
    rows["dice_lv"] = np.nan
    found = failure_numbers(rows, STRUCTURES, choose_score(rows, STRUCTURES))
    assert found["auroc_per_structure"]["lv"]["mean"] is None
    assert found["auroc_per_structure"]["lv"]["reason"] == "no mask has a lv with a Dice"
    assert found["auroc_per_structure"]["rv"]["mean"] is not None
