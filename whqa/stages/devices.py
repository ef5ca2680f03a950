"""GPUs for the runs of a cross-validation on one machine: side by side, each has its own where there are several."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

VISIBLE = "CUDA_VISIBLE_DEVICES"


def device_groups(trainer: Mapping[str, Any]) -> tuple[str, ...]:
    """The machine's GPUs in groups of as many as a run takes, each as CUDA_VISIBLE_DEVICES names it.

    Args:
        trainer: settings of Lightning's trainer; `devices` is how many a run takes.

    Returns:
        Nothing where runs compute on the CPU, take all GPUs (-1, "auto"), or are told which by their numbers.
    """
    devices = trainer.get("devices", 1)
    if trainer.get("accelerator") not in ("gpu", "cuda") or not str(devices).isdigit() or int(devices) < 1:
        return ()
    there, n = _visible(), int(devices)
    return tuple(",".join(there[i : i + n]) for i in range(0, len(there) - n + 1, n))


def least_used(groups: Sequence[str], taken: Collection[str]) -> str:
    """The group that the fewest runs are at work on, the first of these."""
    used = Counter(taken)
    return min(groups, key=lambda group: used[group])


def _visible() -> list[str]:
    import torch

    named = os.environ.get(VISIBLE)
    # as many as work, of those that somebody has left to us
    n = torch.cuda.device_count()
    return [name.strip() for name in named.split(",")][:n] if named else [str(i) for i in range(n)]
