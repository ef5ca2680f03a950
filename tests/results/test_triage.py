"""Accept, review, reject: thresholds by hand, their risk on simulated masks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from whqa.results.triage import TriageRule, choose_doubt, choose_rule, measured_risk


def _people(n: int) -> np.ndarray:
    return np.arange(n).astype(object)


@pytest.mark.parametrize("masks", [1, 4])
def test_thresholds_are_those_of_a_search_through_all(masks: int) -> None:
    rng = np.random.default_rng(4)
    people = rng.permutation(np.repeat(np.arange(200 // masks), masks))
    score = rng.permutation(np.linspace(0.2, 1.0, 200))
    # good above, bad below, and between them as many of each
    dice = np.where(score + rng.normal(0, 0.12, 200) > 0.6, 0.9, 0.5)

    def share(chosen: np.ndarray, wrong: np.ndarray) -> float:
        means = [wrong[chosen & (people == p)].mean() for p in np.unique(people[chosen])]
        return (sum(means) + 1) / (len(means) + 1)

    accept = min(s for s in score if share(score >= s, dice < 0.7) <= 0.1)
    reject = max(s for s in score if share(score <= s, dice >= 0.7) <= 0.1)
    assert reject < accept, "the example has something to review"
    rule = choose_rule(score, dice, people.astype(object), risk=0.1)
    assert rule.accept == accept
    assert rule.reject == np.nextafter(reject, 2)


def test_few_masks_prove_nothing() -> None:
    rule = choose_rule(np.linspace(0.8, 0.9, 8), np.full(8, 0.9), _people(8), risk=0.1)
    assert rule.accept is None
    assert choose_rule(np.linspace(0.8, 0.9, 9), np.full(9, 0.9), _people(9), risk=0.1).accept == pytest.approx(0.8)
    same = np.repeat(np.arange(3), 6).astype(object)
    assert choose_rule(np.linspace(0.8, 0.9, 18), np.full(18, 0.9), same, risk=0.1).accept is None


def test_a_patient_counts_once_whatever_else_was_made_of_the_case() -> None:
    # ten patients with a good mask each, and five hopeless ones of everybody
    score = np.concatenate([np.linspace(0.8, 0.9, 10), np.tile(np.linspace(0.1, 0.3, 5), 10)])
    dice = np.concatenate([np.full(10, 0.9), np.full(50, 0.2)])
    people = np.concatenate([np.arange(10), np.repeat(np.arange(10), 5)]).astype(object)
    rule = choose_rule(score, dice, people, risk=0.1)
    assert rule.accept == pytest.approx(0.8)
    assert rule.reject == pytest.approx(0.3)


def test_masks_of_one_score_stand_or_fall_together() -> None:
    score = np.concatenate([np.full(20, 0.9), np.full(20, 0.5)])
    dice = np.concatenate([np.full(20, 0.9), np.full(10, 0.9), np.full(10, 0.1)])
    assert choose_rule(score, dice, _people(40), risk=0.1).accept == 0.9


def test_scores_at_which_either_would_do_are_for_a_person() -> None:
    score = np.linspace(0, 1, 101)
    dice = np.where(score >= 0.5, 0.9, 0.1)
    rule = choose_rule(score, dice, _people(101), risk=0.2)
    assert rule.reject is not None
    assert rule.accept is not None
    assert rule.reject < 0.5 < rule.accept


def test_decisions() -> None:
    rule = TriageRule(0.8, 0.5)
    assert [rule.decide(s) for s in (0.8, 0.79, 0.5, 0.49)] == ["accept", "review", "review", "reject"]
    assert TriageRule(None, None).decide(1.0) == "review"


def test_the_measured_risk_is_near_the_stated_one() -> None:
    rng = np.random.default_rng(0)
    dice = rng.uniform(0.4, 1.0, 2000)
    score = dice + rng.normal(0, 0.05, 2000)
    fold = np.arange(2000) % 5
    found = measured_risk(score, dice, _people(2000), fold, choose_rule(score, dice, _people(2000)))
    assert sum(found[d]["n"] for d in ("accept", "review", "reject")) == 2000
    assert 0.02 < found["accept"]["rate"] <= 0.1
    assert 0.9 <= found["reject"]["rate"] < 0.98
    bad, n = found["accept"]["bad"], found["accept"]["n"]
    assert found["accept"]["ci95"][0] == pytest.approx(beta.ppf(0.025, bad, n - bad + 1))
    assert found["accept"]["ci95"][1] == pytest.approx(beta.ppf(0.975, bad + 1, n - bad))


def test_without_any_accepted_mask_there_is_no_rate() -> None:
    found = measured_risk(np.full(6, 0.5), np.full(6, 0.9), _people(6), np.arange(6) % 2, TriageRule(None, None))
    assert found["accept"] == {"n": 0, "bad": 0, "rate": None, "ci95": None}


def test_a_place_is_a_doubt_when_most_right_masks_have_none_so_sure() -> None:
    sure = np.array([0.9, 0.6, 0.8, 0.7])
    # of nine patients the eighth: with the one at hand, at most two of ten are surer
    nine = np.array([0.55, 0.6, 0.62, 0.64, 0.66, 0.7, 0.75, 0.8, 0.95])
    assert choose_doubt(nine, _people(9), share=0.2) == 0.8
    assert choose_doubt(sure, _people(4), share=0.2) == 0.9
    assert choose_doubt(sure[:3], _people(3), share=0.2) == 0.5, "three patients cannot show it"
    assert choose_doubt(np.zeros(0), _people(0)) == 0.5


def test_no_place_that_is_more_probably_right_is_a_doubt() -> None:
    assert choose_doubt(np.linspace(0.1, 0.4, 20), _people(20)) == 0.5


def test_a_patient_s_surest_place_counts_whatever_the_number_of_masks() -> None:
    people = np.repeat(np.arange(9), 3).astype(object)
    certainty = np.tile([0.1, 0.2, 0.0], 9) + np.repeat(np.linspace(0.5, 0.58, 9), 3)
    assert choose_doubt(certainty, people, share=0.2) == pytest.approx(0.77)


def test_the_share_of_right_masks_in_doubt_is_the_stated_one() -> None:
    rng = np.random.default_rng(1)
    above = [rng.uniform(0.5, 1) > choose_doubt(rng.uniform(0.5, 1, 24), _people(24)) for _ in range(4000)]
    assert np.mean(above) == pytest.approx(0.1, abs=0.03)
