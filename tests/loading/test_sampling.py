"""Which patch comes when: by seed and epoch alone, in bins of quality, shared by processes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from whqa.errors import InputError
from whqa.loading.sampling import PatchRequest, PatchSampler, quality_bins


class _Sized(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n


def test_all_items_come_before_any_comes_again() -> None:
    sampler = PatchSampler(_Sized(5), batch_size=2, steps_per_epoch=6, bins=None, seed=0)
    items = [r.item for r in sampler]
    assert len(items) == len(sampler) == 12
    assert sorted(items[:5]) == sorted(items[5:10]) == list(range(5))
    assert [r.position for r in sampler] == list(range(12))


def test_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[PatchRequest]:
        sampler = PatchSampler(_Sized(7), 2, 5, None, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(0, 3) == order(0, 3)
    assert len({tuple(r.item for r in order(s, e)) for s, e in [(0, 0), (0, 1), (1, 0)]}) == 3


def test_bad_masks_are_drawn_as_often_as_good_ones() -> None:
    rates = [0.001] * 90 + [0.1] * 10
    sampler = PatchSampler(_Sized(100), 2, 500, quality_bins(rates), seed=0)
    items = sampler.items()
    assert sum(rates[i] == 0.1 for i in items) == len(items) // 2
    assert len(set(items)) == 100


def test_quality_bins_hold_every_mask_once_in_order_of_quality() -> None:
    rates = np.random.default_rng(0).lognormal(-4, 1, 200)
    bins = quality_bins(rates)
    assert len(bins) == 5
    assert sorted(i for b in bins for i in b) == list(range(200))
    limits = [(min(rates[b]), max(rates[b])) for b in bins]
    assert all(a[1] <= b[0] for a, b in pairwise(limits))
    ratios = np.diff(np.log([low for low, _ in limits[1:]]))
    np.testing.assert_allclose(ratios, ratios.mean(), rtol=0.25)


@pytest.mark.parametrize("rates", [[0.01], [0.0, 0.0, 0.0], [0.02] * 4])
def test_quality_bins_of_equal_masks(rates: list[float]) -> None:
    assert quality_bins(rates) == [list(range(len(rates)))]


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_every_batch(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(PatchSampler(_Sized(9), 4, 5, None, seed=1))
    shares = []
    for rank in range(world):
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: world)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda *_, rank=rank: rank)
        sampler = PatchSampler(_Sized(9), 4, 5, None, seed=1)
        shares.append(list(sampler))
        assert len(shares[-1]) == len(sampler) == 20 // world
    part = 4 // world
    together = [r for step in range(5) for share in shares for r in share[step * part : (step + 1) * part]]
    assert together == whole


def test_batch_that_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda *_: 3)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda *_: 0)
    with pytest.raises(InputError, match=r"a batch of 4 is shared by 3 processes; set segmenter\.batch_size"):
        PatchSampler(_Sized(9), 4, 5, None, seed=1)
