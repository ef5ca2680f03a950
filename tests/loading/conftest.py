"""A stub cohort, its masks and two opinions on each case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from stub_cohort import write_cases, write_masks

from whqa.masks.opinion import OPINION, Opinion, write_opinion
from whqa.masks.store import MaskItem, mask_path, write_mask


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_cases(tmp_path_factory.mktemp("cases"))


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory, cases: dict[str, Any]) -> list[MaskItem]:
    return write_masks(tmp_path_factory.mktemp("masks"), cases)


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory, cases: dict[str, Any]) -> dict[str, tuple[Opinion, ...]]:
    """Two of each case."""
    root, found = tmp_path_factory.mktemp("opinions"), {}
    for name, case in cases.items():
        for maker in ("0", "0-1"):
            logits = torch.from_numpy(np.random.default_rng(len(maker)).normal(0, 3, (3, *case.shape)))
            write_opinion(root / maker, name, logits.log_softmax(dim=0), unseen=True)
            final = logits.numpy().argmax(axis=0)
            write_mask(mask_path(root / maker, name, "final"), final, None, maker, True)
        found[name] = tuple(Opinion(name, mask_path(root / maker, name, OPINION), maker) for maker in ("0", "0-1"))
    return found
