"""Settings of the training patches and their defaults, in a module that imports nothing but words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Balance = Literal["final", "quality", "none"]
BALANCE: Balance = "final"
"""How masks under judgement are drawn unless told otherwise, see `whqa.loading.datamodule.WholeHeartDataModule`."""
DELIVERED = 0.25
"""Share of delivered masks with that balance."""


@dataclass
class PatchSettings:
    """What both stages can set of their patches, see `whqa.loading.datamodule.WholeHeartDataModule`.

    Attributes:
        foreground: share of the patches that are centred on a structure or, with masks, on a voxel that is wrong or
            doubted; the others lie anywhere.
        validation_fraction: share of the training folds' patients that is held back, at least one; 0 trains on all and,
            in the second stage, calibrates nothing.
        num_workers: processes that cut patches; 0 cuts them in the training process, null chooses by the device.
    """

    foreground: float = 0.7
    validation_fraction: float = 0.1
    num_workers: int | None = None


@dataclass
class Dropout:
    """What is withheld from the error-map network in some of its training patches, at random.

    See `whqa.modules.errormap`.

    Attributes:
        opinion_dropout: share of the patches whose opinion holds all labels for alike, so that the network does not
            rest on it alone.
        mask_dropout: share of the patches whose mask is not shown.
    """

    opinion_dropout: float = 0.0
    mask_dropout: float = 0.0
