"""What a second opinion doubts of a mask, voxel by voxel."""

from __future__ import annotations

import torch
from torch import Tensor

from whqa.errors import InputError
from whqa.quality import JudgedCase, kept_with

SMALLEST_P = 1e-5


def doubt_logit(case: JudgedCase) -> Tensor:
    """logit(1 - p_S(M)), float32 (D, H, W).

    Raises:
        InputError: nobody gave an opinion on the case.
    """
    if case.log_p is None:
        raise InputError(
            f"case {case.case}, mask {case.kind}: no second opinion, which the baseline 'opinion' needs; "
            "judge masks in a run with segmenters of its own, or leave this baseline out"
        )
    return kept_with(case.doubt, torch.logit, SMALLEST_P)


def logit_of_doubt(log_p_CDHW: Tensor, mask_DHW: Tensor) -> Tensor:
    """The same of any opinion on a mask (D, H, W)."""
    return torch.logit(1.0 - log_p_CDHW.gather(0, mask_DHW.long()[None])[0].exp(), eps=SMALLEST_P)
