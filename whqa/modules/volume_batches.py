"""What whole-volume batches of size 1 hold: the mask under judgement of a case, the spacing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from whqa.quality import JudgedCase


def judged_case(batch: Mapping[str, Any]) -> JudgedCase:
    """The mask under judgement of a whole-volume batch of size 1."""
    return JudgedCase(
        case=batch["case"][0],
        kind=batch["kind"][0],
        image=batch["image"][0, 0].float(),
        mask=batch["mask"][0].to(torch.uint8),
        reference=batch["label"][0].to(torch.uint8) if "label" in batch else None,
        entropy=batch["entropy"][0].float() if "entropy" in batch else None,
        spacing=spacing_of(batch),
        log_p=batch["log_p"][0].float() if "log_p" in batch else None,
        ensemble=batch["ensemble"][0].float() if "ensemble" in batch else None,
        pairwise_dice=float(batch["pairwise_dice"][0]) if "pairwise_dice" in batch else None,
    )


def spacing_of(batch: Mapping[str, Any]) -> tuple[float, float, float]:
    """mm per voxel along D, H, W of a batch of size 1."""
    d, h, w = (float(s) for s in batch["spacing"][0])
    return d, h, w
