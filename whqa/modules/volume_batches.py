"""What whole-volume batches of size 1 hold: the mask under judgement of a case, the spacing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from whqa.quality import JudgedCase

_JUDGED = "judged"


def judged_case(batch: Mapping[str, Any]) -> JudgedCase:
    """The mask under judgement of a whole-volume batch of size 1.

    A batch gives the same object each time, so that what methods ask of a mask, such as its heart, is found once.
    """
    parts = {name: part for name, part in batch.items() if name != _JUDGED}
    known = batch.get(_JUDGED)
    # another batch may have been made of this one
    if known is None or not _are_same(known[0], parts):
        known = parts, _judged(batch)
        if isinstance(batch, dict):
            batch[_JUDGED] = known
    found: JudgedCase = known[1]
    return found


def _are_same(some: Mapping[str, Any], others: Mapping[str, Any]) -> bool:
    return some.keys() == others.keys() and all(part is others[name] for name, part in some.items())


def _judged(batch: Mapping[str, Any]) -> JudgedCase:
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
        tta=batch["tta"][0].float() if "tta" in batch else None,
        pairwise_dice=float(batch["pairwise_dice"][0]) if "pairwise_dice" in batch else None,
    )


def spacing_of(batch: Mapping[str, Any]) -> tuple[float, float, float]:
    """mm per voxel along D, H, W of a batch of size 1."""
    d, h, w = (float(s) for s in batch["spacing"][0])
    return d, h, w
