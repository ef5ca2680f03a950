"""Stacking: z between the network's logit and that of the opinion's doubt, the share by likelihood."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import sem

from whqa.judges.calibration import Calibration, MaskLogits, fit_calibration, fit_stacked, stacked_logit
from whqa.judges.threshold_rule import ThresholdRule
from whqa.quality import JudgedCase

Make = Callable[..., JudgedCase]
Logits = Callable[..., torch.Tensor]


def _cases(heard: Make) -> list[JudgedCase]:
    return [heard(seed, wrong) for seed, wrong in enumerate((0.0, 0.03, 0.1, 0.25, 0.5, 0.9))]


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_z_lies_between_the_networks_logit_and_that_of_the_doubt(heard: Make, logit_of: Logits, share: float) -> None:
    case = heard(1, 0.3)
    own = np.exp(np.take_along_axis(case.log_p.double().numpy(), case.mask.numpy()[None].astype(int), axis=0))[0]  # type: ignore[union-attr]
    expected = (1 - share) * logit_of(case).numpy() + share * np.log((1 - own) / own)
    np.testing.assert_allclose(stacked_logit(logit_of(case), case, share).numpy(), expected, atol=2e-3)


def test_without_a_share_of_the_opinion_none_is_needed(heard: Make, unheard: Callable, logit_of: Logits) -> None:
    case = unheard(heard(1, 0.3))
    assert torch.equal(stacked_logit(logit_of(case), case, 0.0), logit_of(case))


def _stacked(judged: list) -> tuple[dict[float, list[MaskLogits]], Calibration]:
    shares = (0.0, 0.5, 1.0)
    masks = {s: [MaskLogits.of(stacked_logit(logit, case, s), case) for logit, case in judged] for s in shares}
    patients = [case.case for _, case in judged]
    return masks, fit_stacked(masks, [1.0] * len(judged), patients, ThresholdRule.expected, None)


def test_what_says_more_of_the_truth_is_taken(heard: Make, logit_of: Logits) -> None:
    cases = _cases(heard)
    knowing = [(torch.where(case.error, 6.0, -6.0) + 0.1 * logit_of(case), case) for case in cases]
    guessing = [(torch.randn(case.mask.shape, generator=torch.Generator().manual_seed(1)), case) for case in cases]
    assert _stacked(knowing)[1].opinion_share == 0.0
    assert _stacked(guessing)[1].opinion_share == 1.0


@pytest.mark.parametrize("seed", range(4))
def test_of_shares_that_are_about_as_likely_the_most_even_is_taken(heard: Make, logit_of: Logits, seed: int) -> None:
    cases, shares = _cases(heard), (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    logits = [logit_of(case, seed + i) for i, case in enumerate(cases)]
    masks = {s: [MaskLogits.of(stacked_logit(z, c, s), c) for z, c in zip(logits, cases, strict=True)] for s in shares}
    told = {s: fit_calibration(these).likelihoods(these) for s, these in masks.items()}
    best = max(told.values(), key=np.mean)

    def taken(patients: list[str]) -> float:
        return fit_stacked(masks, [1.0] * len(cases), patients, ThresholdRule.expected, None).opinion_share

    each_its_own = [s for s, these in told.items() if np.mean(best - these) <= sem(best - these)]
    assert taken([*"abcdef"]) == min(each_its_own, key=lambda s: abs(s - 0.5 + 1e-9))
    pairs = {s: (best - these).reshape(2, 3).sum(axis=1) for s, these in told.items()}
    two_patients = [s for s, of in pairs.items() if np.mean(of) <= sem(of)]
    assert taken([*"aaabbb"]) == min(two_patients, key=lambda s: abs(s - 0.5 + 1e-9))
    # of one patient nothing is known of others
    assert taken(["a"] * 6) == 0.4


def test_where_no_mask_is_wrong_the_network_speaks_alone(heard: Make, logit_of: Logits) -> None:
    judged = [(logit_of(case), case) for case in (heard(0, 0.0), heard(1, 0.0))]
    assert _stacked(judged)[1].opinion_share == 0.0


def test_the_likelihood_is_that_of_what_is_said_of_the_truth(heard: Make, logit_of: Logits) -> None:
    judged = [(logit_of(case, seed), case) for seed, case in enumerate(_cases(heard))]
    masks, found = _stacked(judged)
    said = []
    for logit, case in judged:
        p = found.predict(logit, case).probability[case.heart].double().numpy()
        error = case.error[case.heart].numpy()
        said.append(np.where(error, np.log(p), np.log1p(-p)).mean())
    np.testing.assert_allclose(found.likelihoods(masks[found.opinion_share]), said, atol=5e-3)
