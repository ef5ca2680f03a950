"""What callbacks do with batches and ranks: the mask under judgement of a batch, and what all processes hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from whqa.quality import JudgedCase

T = TypeVar("T")


def judged_case(batch: Mapping[str, Any]) -> JudgedCase:
    """The mask under judgement of a whole-volume batch of size 1."""
    return JudgedCase(
        case=batch["case"][0],
        kind=batch["kind"][0],
        image=batch["image"][0, 0].float(),
        mask=batch["mask"][0].to(torch.uint8),
        reference=batch["label"][0].to(torch.uint8),
        entropy=batch["entropy"][0].float() if "entropy" in batch else None,
        spacing=spacing_of(batch),
    )


def spacing_of(batch: Mapping[str, Any]) -> tuple[float, float, float]:
    """mm per voxel along D, H, W of a batch of size 1."""
    d, h, w = (float(s) for s in batch["spacing"][0])
    return d, h, w


def gather_by_index(mine: dict[int, T]) -> dict[int, T]:
    """What all processes hold, by index; all of them must call this. One process gets its own back."""
    if not torch.distributed.is_initialized():
        return mine
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return {index: value for part in parts for index, value in part.items()}
