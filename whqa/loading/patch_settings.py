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
    """What both stages can set of their patches, see `whqa.loading.datamodule.WholeHeartDataModule`."""

    foreground: float = 0.7
    validation_fraction: float = 0.1
    num_workers: int | None = None


@dataclass
class Dropout:
    """What is withheld from the error-map network in some of its training patches, at random.

    `opinion_dropout` is the share of patches whose opinion holds all labels for alike, `mask_dropout` that of patches
    whose mask is not shown, see `whqa.modules.errormap`.
    """

    opinion_dropout: float = 0.0
    mask_dropout: float = 0.0
