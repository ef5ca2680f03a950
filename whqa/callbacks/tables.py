"""From metrics to cases.csv: gathering rows over processes and writing them once."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from whqa.data.judged import JudgedCase
from whqa.files import atomic_path

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


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV table atomically; nan becomes an empty field, floats keep nine significant digits."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows({k: _text(v) for k, v in row.items()} for row in rows)


def _text(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.9g}"
    return value
