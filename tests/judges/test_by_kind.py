"""A baseline fitted by kind is one fitted on that kind alone."""

from __future__ import annotations

import dataclasses

import torch

from whqa.judges.baseline import Baseline
from whqa.judges.registry import BASELINES
from whqa.quality import JudgedCase


def case(kind: str, entropy_of_wrong: float, seed: int) -> JudgedCase:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 3, (6, 6, 6), generator=generator)
    reference = torch.where(torch.rand(mask.shape, generator=generator) < 0.2, (mask + 1) % 3, mask)
    entropy = torch.where(mask != reference, entropy_of_wrong, entropy_of_wrong - 0.2).float()
    return JudgedCase(f"c{seed}", kind, torch.zeros(6, 6, 6), mask, reference, entropy, (1.0, 1.0, 1.0))


def fitted(*cases: JudgedCase) -> Baseline:
    baseline = BASELINES["entropy"]()
    baseline.fit(lambda: iter(cases))
    return baseline


def test_each_kind_gets_the_threshold_of_its_own_training_masks() -> None:
    final, early = case("final", 0.3, 1), case("early", 0.9, 2)
    both = fitted(final, early)
    for judged in (final, early):
        assert torch.equal(both.predict(judged).error_map, judged.error)
        assert both.parameters()[f"threshold/{judged.kind}"] == fitted(judged).parameters()["threshold"]
    assert not torch.equal(fitted(final).predict(early).error_map, early.error)


def test_an_unseen_kind_gets_the_threshold_of_all_masks() -> None:
    final, early = case("final", 0.3, 1), case("early", 0.9, 2)
    both = fitted(final, early)
    other = dataclasses.replace(early, kind="somebody else's")
    alike = fitted(*(dataclasses.replace(c, kind="any") for c in (final, early)))
    assert torch.equal(both.predict(other).error_map, alike.predict(other).error_map)
    assert both.parameters()["threshold"] == alike.parameters()["threshold/any"]
