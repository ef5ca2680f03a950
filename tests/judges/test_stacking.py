"""Stacking: z between the network's logit and that of the opinion's doubt, the share by likelihood."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from whqa.judges.calibration import Calibration, MaskLogits, fit_stacked, stacked_logit
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
    return masks, fit_stacked(masks, [1.0] * len(judged), ThresholdRule.expected, None)


def test_what_says_more_of_the_truth_is_taken(heard: Make, logit_of: Logits) -> None:
    cases = _cases(heard)
    knowing = [(torch.where(case.error, 6.0, -6.0) + 0.1 * logit_of(case), case) for case in cases]
    guessing = [(torch.randn(case.mask.shape, generator=torch.Generator().manual_seed(1)), case) for case in cases]
    assert _stacked(knowing)[1].opinion_share == 0.0
    assert _stacked(guessing)[1].opinion_share == 1.0


def test_the_likelihood_is_that_of_what_is_said_of_the_truth(heard: Make, logit_of: Logits) -> None:
    judged = [(logit_of(case, seed), case) for seed, case in enumerate(_cases(heard))]
    masks, found = _stacked(judged)
    said = []
    for logit, case in judged:
        p = found.predict(logit, case).probability[case.heart].double().numpy()
        error = case.error[case.heart].numpy()
        said.append(np.where(error, np.log(p), np.log1p(-p)).mean())
    assert found.likelihood(masks[found.opinion_share], [1.0] * len(judged)) == pytest.approx(np.mean(said), abs=2e-3)
