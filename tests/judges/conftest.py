"""Masks under judgement with a second opinion, made of random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from whqa.quality import JudgedCase

SHAPE = (14, 13, 12)
N_CLASSES = 4


def _heard(seed: int = 0, wrong: float = 0.2, kind: str = "final") -> JudgedCase:
    """A box of three structures; `wrong` is the share of the foreground's voxels that has another label."""
    rng = np.random.default_rng(seed)
    reference = np.zeros(SHAPE, np.int64)
    reference[4:10, 3:10, 3:9] = rng.integers(1, N_CLASSES, (6, 7, 6))
    mask = np.where((reference > 0) & (rng.random(SHAPE) < wrong), (reference + 1) % N_CLASSES, reference)
    logits = rng.normal(0, 1, (N_CLASSES, *SHAPE)) + 3 * (np.arange(N_CLASSES)[:, None, None, None] == reference)
    log_p = torch.from_numpy(log_softmax(logits, axis=0)).float()
    image = torch.from_numpy(rng.standard_normal(SHAPE)).float()
    mask_u8, reference_u8 = (torch.from_numpy(v.astype(np.uint8)) for v in (mask, reference))
    # thick slices, so that the heart's margin of 10 mm leaves a part of the volume out
    return JudgedCase(f"c{seed}", kind, image, mask_u8, reference_u8, None, (6.0, 6.0, 6.0), log_p)


def _logit(case: JudgedCase, seed: int = 0, scale: float = 1.0, bias: float = -2.0) -> torch.Tensor:
    """Logits that know something of the errors."""
    noise = np.random.default_rng(seed).normal(0, 1.5, SHAPE)
    return torch.from_numpy(scale * (noise + 3 * case.error.numpy()) + bias).float()


@pytest.fixture(scope="session")
def heard() -> Callable[..., JudgedCase]:
    """Makes a case with mask, reference and opinion; see `_heard`."""
    return _heard


@pytest.fixture(scope="session")
def logit_of() -> Callable[..., torch.Tensor]:
    """Makes error logits (D, H, W) of a case; see `_logit`."""
    return _logit


@pytest.fixture(scope="session")
def unheard() -> Callable[[JudgedCase], JudgedCase]:
    """The same case without an opinion."""
    return lambda case: replace(case, log_p=None)
