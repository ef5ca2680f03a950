"""Settings of the LightningModules and their defaults, in a module that imports nothing but words."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Head(StrEnum):
    """What the error-map network predicts, see `whqa.modules.errormap`."""

    binary = "binary"
    label = "label"


@dataclass
class OptimiserSettings:
    """What both stages can set, see `whqa.modules.base.DeepSupervisionModule`."""

    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.1
    channels_last: bool = True
    fused: bool = True
    max_voxels: int = 8_000_000


class Input(StrEnum):
    """What the error-map network sees, see `whqa.modules.errormap`."""

    image = "image"
    mask = "mask"
    distances = "distances"
    opinion = "opinion"


USUAL_INPUTS = (Input.image, Input.mask, Input.opinion)


def sees_mask(inputs: Collection[str]) -> bool:
    """Whether a network with these inputs is told the mask under judgement, in one form or another."""
    return not {Input.mask, Input.distances}.isdisjoint(inputs)


@dataclass
class ErrorMapSettings:
    """Inputs, head and loss of the error-map network, see `whqa.modules.errormap.ErrorMapModule`.

    `inputs` null takes image, mask and, where there is one, opinion: a run without segmenters of its own has an opinion
    only where another program's probabilities are given (`masks.external.<name>.probabilities`).
    """

    inputs: list[Input] | None = None
    head: Head = Head.label
    label_weight: float = 1.0
    dice_weight: float = 1.0
    positive_weight: float = 1.0
    focal_gamma: float = 0.0
    boundary_weight: float = 0.0
    image_level_weight: float = 0.0
