"""The second opinion as a judge: what the segmenter would not have said may be wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from scipy.stats import spearmanr

from whqa.errors import InputError
from whqa.judges.boosted_rate import fit_boosted
from whqa.judges.calibration import MaskLogits, fit_calibration
from whqa.judges.doubt import SMALLEST_P, doubt_logit
from whqa.judges.error_rate import RateModel
from whqa.judges.mask_parts import mask_parts
from whqa.judges.rate_features import rate_features
from whqa.judges.registry import make_baselines
from whqa.judges.second_opinion import SecondOpinion, count_opinions, counts_of, family_weights, opinion_rate
from whqa.masks.plan import MASK_KINDS
from whqa.quality import JudgedCase

Make = Callable[..., JudgedCase]


def _doubt(case: JudgedCase) -> np.ndarray:
    """1 - p_S(M), in float64."""
    p = np.exp(case.log_p.double().numpy())  # type: ignore[union-attr]
    return 1 - np.take_along_axis(p, case.mask.numpy()[None].astype(int), axis=0)[0]


def test_the_logit_is_that_of_what_the_segmenter_gives_to_other_labels(heard: Make) -> None:
    case = heard(1, 0.3)
    doubt = np.clip(_doubt(case), SMALLEST_P, 1 - SMALLEST_P)
    np.testing.assert_allclose(doubt_logit(case).numpy(), np.log(doubt / (1 - doubt)), atol=2e-3)


def test_certainty_is_finite(heard: Make) -> None:
    case = heard(1, 0.3)
    sure = torch.full_like(case.log_p, -1000.0).scatter(0, case.reference[None].long(), 0.0)
    found = doubt_logit(replace(case, log_p=sure))
    assert found.isfinite().all()
    assert torch.equal(found > 0, case.error)


@pytest.mark.parametrize("attribute", ["log_p", "tta"])
def test_p_rises_with_the_doubt_and_is_calibrated_like_the_network(heard: Make, attribute: str) -> None:
    cases = [heard(seed, wrong) for seed, wrong in enumerate((0.0, 0.1, 0.4, 0.8))]
    if attribute != "log_p":
        cases = [replace(case, **{attribute: case.log_p, "log_p": None}) for case in cases]
    baseline = SecondOpinion("its name", attribute)
    baseline.fit(lambda: iter(cases))
    assert baseline.name == "its name"
    assert baseline.needs == {attribute}
    whole = [replace(case, log_p=getattr(case, attribute)) for case in cases]
    expected = fit_calibration([MaskLogits.of(doubt_logit(case), case) for case in whole])
    assert baseline.parameters() == expected.to_dict()
    for case in whole:
        judged = replace(case, **{attribute: case.log_p, "log_p": case.log_p if attribute == "log_p" else None})
        found = baseline.predict(judged)
        for k, region in product(range(4), (case.heart, ~case.heart)):
            here = ((mask_parts(case) == k) & region).numpy()
            if here.sum() > 2:
                assert spearmanr(found.probability.numpy()[here], _doubt(case)[here]).statistic > 0.9999
        heart = case.heart
        expected_rate = expected.predict(doubt_logit(case), case).probability[heart].mean()
        torch.testing.assert_close(found.probability[heart].mean(), expected_rate)


def test_the_ensembles_own_error_rates_are_a_regression_on_its_mean_doubt(heard: Make) -> None:
    cases = [heard(seed, wrong) for seed, wrong in enumerate((0.0, 0.1, 0.4, 0.8))]
    baseline = SecondOpinion("ensemble_by_doubt", "ensemble", "")
    assert baseline.needs == {"ensemble"}
    baseline.fit(lambda: iter([replace(case, ensemble=case.log_p, log_p=None) for case in cases]))
    mute = [replace(case, log_p=None) for case in cases]
    doubts = [doubt_logit(case) for case in cases]
    expected = fit_calibration([MaskLogits.of(doubt, case) for doubt, case in zip(doubts, mute, strict=True)])
    assert baseline.parameters() == expected.to_dict()
    assert isinstance(expected.rate, RateModel)
    other = heard(7, 0.3)
    found = baseline.predict(replace(other, ensemble=other.log_p, log_p=None))
    torch.testing.assert_close(
        found.probability, expected.predict(doubt_logit(other), replace(other, log_p=None)).probability
    )


def test_the_ensemble_says_where_and_one_opinion_how_much(heard: Make) -> None:
    cases = [heard(seed, wrong) for seed, wrong in enumerate((0.0, 0.1, 0.4, 0.8))]
    others = [heard(seed, wrong) for seed, wrong in zip(range(4, 8), (0.0, 0.1, 0.4, 0.8), strict=True)]
    both = [replace(a, log_p=None, ensemble=a.log_p, tta=b.log_p) for a, b in zip(cases, others, strict=True)]
    baseline = SecondOpinion("ensemble", "ensemble", "tta")
    assert baseline.needs == {"ensemble", "tta"}
    baseline.fit(lambda: iter(both))
    told = [replace(case, log_p=case.tta) for case in both]
    doubts = [doubt_logit(case) for case in cases]
    expected = fit_calibration([MaskLogits.of(doubt, case) for doubt, case in zip(doubts, told, strict=True)])
    assert baseline.parameters() == expected.to_dict()
    found = baseline.predict(both[2])
    torch.testing.assert_close(found.probability, expected.predict(doubts[2], told[2]).probability)


def _dice(one: torch.Tensor, other: torch.Tensor, n_classes: int) -> float:
    """Mean over the structures, by MONAI."""
    hot = (torch.nn.functional.one_hot(labels.long(), n_classes).movedim(-1, 0)[None] for labels in (one, other))
    return float(DiceMetric(include_background=False)(*hot).nanmean())


def test_it_says_how_like_the_mask_is_what_it_would_draw(heard: Make) -> None:
    case = heard(3, 0.3)
    assert case.log_p is not None
    opinion = SecondOpinion()
    opinion.fit(lambda: iter([heard(1), heard(2)]))
    expected = _dice(case.mask, torch.from_numpy(case.log_p.numpy().argmax(axis=0)), len(case.log_p))
    assert opinion.predict(case).agreement == {"opinion_dice": pytest.approx(expected, rel=1e-5)}
    assert 0.1 < expected < 0.9


def test_the_ensembles_is_that_of_the_vote_and_how_alike_its_segmenters_are(heard: Make) -> None:
    case, other = heard(3, 0.3), heard(4).log_p
    assert case.log_p is not None
    assert other is not None
    mean = (case.log_p.exp() + other.exp()) / 2
    several = replace(case, ensemble=mean.log(), pairwise_dice=0.625)
    ensemble = SecondOpinion("ensemble", "ensemble")
    ensemble.fit(lambda: iter([replace(c, ensemble=c.log_p, pairwise_dice=float("nan")) for c in (heard(1), heard(2))]))
    expected = _dice(case.mask, torch.from_numpy(mean.numpy().argmax(axis=0)), len(mean))
    assert expected != pytest.approx(_dice(case.mask, case.log_p.argmax(dim=0), len(mean)), rel=1e-3)
    found = ensemble.predict(several).agreement
    assert found == {"opinion_dice": pytest.approx(expected, rel=1e-5), "pairwise_dice": 0.625}


def test_a_case_without_opinion_is_refused(heard: Make, unheard: Callable[[JudgedCase], JudgedCase]) -> None:
    baseline = SecondOpinion()
    baseline.fit(lambda: iter([heard(1), heard(2)]))
    mute = unheard(heard(3, kind="early"))
    for judge in (baseline.predict, lambda case: SecondOpinion().fit(lambda: iter([case]))):
        with pytest.raises(InputError, match=r"case c3, mask early: no second opinion") as caught:
            judge(mute)
        assert "\n" not in str(caught.value)


def test_families_of_masks_weigh_alike() -> None:
    kinds = ["final", "corrupted1", "corrupted2", "side1", "side4", "early", "nnU-Net", "reference"]
    weights = dict(zip(kinds, family_weights(kinds), strict=True))
    assert weights["final"] == weights["reference"] == weights["nnU-Net"] == 1
    assert weights["corrupted1"] == weights["corrupted2"] == 1 / 2
    assert weights["side1"] == weights["side4"] == weights["early"] == 1 / 3
    everything = list(MASK_KINDS)
    # final, augmented, reference, corrupted, novel, mixed, unfinished
    assert sum(family_weights(everything)) == pytest.approx(7)


def test_error_rates_are_learned_from_what_the_opinion_says_alone(heard: Make) -> None:
    cases = [heard(seed, wrong) for seed, wrong in enumerate((0.0, 0.1, 0.4, 0.8))]
    features = [rate_features(torch.full(case.mask.shape, 5.0), case) for case in cases]
    rates = []
    for case in cases:
        part = mask_parts(case)
        rates.append(
            np.array([(case.error & case.heart & (part == k)).sum() for k in range(4)]) / case.heart.sum().item()
        )
    assert opinion_rate(count_opinions(cases)) == fit_boosted(features, rates, [1.0] * 4)


@pytest.mark.parametrize("names", [["tta", "ensemble"], ["ensemble", "tta"], ["ensemble"]])
def test_counts_of_an_opinion_go_to_the_rival_that_it_is_in_any_order(names: list[str]) -> None:
    """The ensemble hears that opinion too, for its error rates, but is fitted on what it doubts itself."""
    baselines = make_baselines(names, {"tta", "ensemble", "log_p"})
    found = counts_of(baselines, "tta")
    rival = next((b for b in baselines if b.name == "tta"), None)
    assert found is (None if rival is None else rival.counted)  # type: ignore[attr-defined]
