"""Which training patch comes when: an order that depends on (seed, epoch) alone.

Workers, restarts and the number of processes change nothing: a patch is asked for by a `PatchRequest` that says all
that its random draws depend on, and under DDP every process takes its share of each batch of the one global sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import distributed
from torch.utils.data import Dataset, DistributedSampler

from whqa.data.cache import PreparedCase
from whqa.errors import InputError

QUALITY_BINS = 5


class PatchRequest(NamedTuple):
    """One training patch: the `position`-th of `epoch`, cut from training item `item`."""

    epoch: int
    position: int
    item: int


class PatchSampler(DistributedSampler[PatchRequest]):
    """Yields the `PatchRequest`s of one epoch, this process's share of them under DDP.

    It is a DistributedSampler because Lightning replaces every other kind when it trains with several processes.

    Args:
        dataset: that the requests go to; only its length counts.
        batch_size: of all processes together; every process takes an equal part of each batch.
        steps_per_epoch: batches an epoch.
        bins: items by quality; batches are drawn from all bins alike. None goes through all items in shuffled order.
        seed: of the order.

    Raises:
        InputError: the number of processes does not divide the batch size.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        steps_per_epoch: int,
        bins: Sequence[Sequence[int]] | None,
        seed: int,
    ) -> None:
        started = distributed.is_available() and distributed.is_initialized()
        world, rank = (distributed.get_world_size(), distributed.get_rank()) if started else (1, 0)
        if batch_size % world:
            raise InputError(
                f"a batch of {batch_size} is shared by {world} processes; set segmenter.batch_size and "
                f"errormap.batch_size to a multiple of {world}, or fewer trainer.devices"
            )
        super().__init__(dataset, num_replicas=world, rank=rank, seed=seed)
        self.batch_size, self.steps = batch_size, steps_per_epoch
        self.bins = [list(b) for b in bins if len(b)] if bins is not None else None

    def __len__(self) -> int:
        return self.steps * self.batch_size // self.num_replicas

    def __iter__(self) -> Iterator[PatchRequest]:
        share = self.batch_size // self.num_replicas
        for position, item in enumerate(self.items()):
            if position % self.batch_size // share == self.rank:
                yield PatchRequest(self.epoch, position, item)

    def items(self) -> list[int]:
        """Items of the epoch's whole sequence, all processes together, in order."""
        rng = np.random.default_rng((self.seed, self.epoch))
        n = self.steps * self.batch_size
        if self.bins is None:
            return _shuffled_rounds(rng, len(self.dataset), n)  # type: ignore[arg-type]
        return [int(rng.choice(self.bins[b])) for b in _shuffled_rounds(rng, len(self.bins), n)]


def _shuffled_rounds(rng: np.random.Generator, size: int, n: int) -> list[int]:
    rounds = [rng.permutation(size) for _ in range(-(-n // size))]
    return [int(i) for i in np.concatenate(rounds)[:n]]


def quality_bins(error_rates: Sequence[float], n_bins: int = QUALITY_BINS) -> list[list[int]]:
    """Items by error rate in bins of equal ratio, best masks first; empty bins are left out.

    The outermost 5 % at both ends do not set the bins' limits, so one freak mask does not get a bin of its own.
    """
    rates = np.log(np.maximum(np.asarray(error_rates, dtype=np.float64), 1e-5))
    low, high = np.quantile(rates, [0.05, 0.95])
    inner = np.linspace(low, high, n_bins + 1)[1:-1]
    which = np.searchsorted(inner, rates, side="right")
    found = [np.flatnonzero(which == b).tolist() for b in range(n_bins)]
    return [b for b in found if b]


def validation_cases(
    available: Sequence[str], cases: Mapping[str, PreparedCase], fraction: float, seed: int, stage: str
) -> tuple[str, ...]:
    """Of the cases to train on those that are held back: all of some patients, by the seed.

    Raises:
        InputError: no share of patients, or it takes all of them.
    """
    if not 0 <= fraction < 1:
        raise InputError(f"{stage}.validation_fraction={fraction}: must be at least 0 and below 1")
    if fraction == 0:
        return ()
    patients = sorted({cases[c].patient for c in available})
    n = max(1, round(fraction * len(patients)))
    if n >= len(patients):
        raise InputError(
            f"{stage}.validation_fraction={fraction} takes {n} of {len(patients)} training patients, all; set it to 0"
        )
    chosen = {patients[i] for i in np.random.default_rng(seed).permutation(len(patients))[:n]}
    return tuple(c for c in available if cases[c].patient in chosen)
