"""The mask under judgement of a batch: found once, and never taken for that of another batch."""

from __future__ import annotations

from typing import Any

import torch

from whqa.modules.volume_batches import judged_case


def _batch() -> dict[str, Any]:
    labels = torch.zeros(1, 4, 5, 6, dtype=torch.int64)
    return {
        "case": ["c"],
        "kind": ["final"],
        "image": torch.zeros(1, 1, 4, 5, 6),
        "mask": labels,
        "label": labels.clone(),
        "spacing": torch.ones(1, 3),
    }


def test_a_batch_gives_its_case_once() -> None:
    batch = _batch()
    assert judged_case(batch) is judged_case(batch)
    assert judged_case(batch) is not judged_case(_batch())


def test_a_batch_made_of_another_has_a_case_of_its_own() -> None:
    batch = _batch()
    first = judged_case(batch)
    other = batch | {"mask": torch.ones_like(batch["mask"])}
    assert judged_case(other).mask.all()
    assert judged_case(batch | {"entropy": torch.zeros(1, 4, 5, 6)}).entropy is not None
    batch["label"] = torch.full_like(batch["label"], 2)
    assert judged_case(batch) is not first
    assert (judged_case(batch).reference == 2).all()
