"""A baseline fitted by kind is the plain baseline fitted on that kind alone."""

from __future__ import annotations

import dataclasses

import torch

from whqa.judges.by_kind import ByKind
from whqa.judges.entropy import Entropy
from whqa.judges.registry import BASELINES
from whqa.quality import JudgedCase


def case(kind: str, entropy_of_wrong: float, seed: int) -> JudgedCase:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, 3, (6, 6, 6), generator=generator)
    reference = torch.where(torch.rand(mask.shape, generator=generator) < 0.2, (mask + 1) % 3, mask)
    entropy = torch.where(mask != reference, entropy_of_wrong, entropy_of_wrong - 0.2).float()
    return JudgedCase(f"c{seed}", kind, torch.zeros(6, 6, 6), mask, reference, entropy, (1.0, 1.0, 1.0))


def test_each_kind_gets_the_threshold_of_its_own_training_masks() -> None:
    final, early = case("final", 0.3, 1), case("early", 0.9, 2)
    by_kind, plain = BASELINES["entropy"](), Entropy()
    by_kind.fit(lambda: iter([final, early]))
    for judged in (final, early):
        assert torch.equal(by_kind.predict(judged).error_map, judged.error)
    plain.fit(lambda: iter([final, early]))
    assert not torch.equal(plain.predict(early).error_map, early.error)


def test_an_unseen_kind_gets_the_threshold_of_all_masks() -> None:
    final, early = case("final", 0.3, 1), case("early", 0.9, 2)
    by_kind, plain = ByKind(Entropy), Entropy()
    for baseline in (by_kind, plain):
        baseline.fit(lambda: iter([final, early]))
    other = dataclasses.replace(early, kind="somebody else's")
    assert torch.equal(by_kind.predict(other).error_map, plain.predict(other).error_map)
    twin = ByKind(Entropy)
    twin.load(by_kind.parameters())
    for judged in (final, early, other):
        assert torch.equal(twin.predict(judged).error_map, by_kind.predict(judged).error_map)
