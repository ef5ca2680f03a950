"""What all processes of a run hold."""

from __future__ import annotations

from typing import Any, TypeVar

import torch

T = TypeVar("T")


def gather_by_index(mine: dict[int, T]) -> dict[int, T]:
    """What all processes hold, by index; all of them must call this. One process gets its own back."""
    if not torch.distributed.is_initialized():
        return mine
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return {index: value for part in parts for index, value in part.items()}
