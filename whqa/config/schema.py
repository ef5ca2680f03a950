"""The experiment's configuration: a schema that catches typos and wrong types, and the names that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from whqa.config.precision import cpu_precision
from whqa.config.run_name import run_name


class Stage(StrEnum):
    """The two stages of an experiment."""

    segmenter = "segmenter"
    errormap = "errormap"


class Head(StrEnum):
    """What the error-map network predicts, see `whqa.modules.errormap`."""

    binary = "binary"
    label = "label"


class ThresholdRule(StrEnum):
    """How the error map follows from its probabilities, see `whqa.judges.calibration`."""

    expected = "expected"
    dice = "dice"


@dataclass
class PreprocessConfig:
    """See `whqa.data.preprocess.Preprocess`."""

    spacing: list[float | None] = field(default_factory=lambda: [1.5, 1.5, 1.5])
    crop_mm: list[float] | None = None
    centre: str = "tissue"
    ct_window: list[float] = field(default_factory=lambda: [-250.0, 650.0])
    mr_percentiles: list[float] = field(default_factory=lambda: [0.5, 99.5])


@dataclass
class AugmentationConfig:
    """See `whqa.loading.patches.Augmentation`."""

    rotate_deg: list[float] = field(default_factory=lambda: [12.0, 12.0, 12.0])
    scale: float = 0.1
    flip: list[int] = field(default_factory=list)
    intensity_scale: float = 0.1
    intensity_shift: float = 0.1
    noise: float = 0.05
    gamma: float = 0.2
    probability: float = 0.7


@dataclass
class ExternalConfig:
    """Masks of another program, see `whqa.masks.external.ExternalMethod`."""

    root: str = MISSING
    pattern: str = "*.nii.gz"
    scheme: Any = None
    parts: dict[str, str] = field(default_factory=dict)
    unseen: bool = False
    partial: bool = False


@dataclass
class MasksConfig:
    """Mask plan, masks of other programs by the program's name, and the kinds that are judged; null takes all.

    The values of `external` are `ExternalConfig`s that stand as plain mappings, because Hydra cannot append a typed one
    from the command line; `whqa.config.words.external_settings` gives them their type.
    """

    plan: str = "out_of_fold"
    kinds: list[str] | None = None
    external: dict[str, Any] = field(default_factory=dict)


@dataclass
class StageConfig:
    """What both stages can set: length, batches, patches, optimiser, inference."""

    steps: int = MISSING
    steps_per_epoch: int = 50
    batch_size: int = 2
    patch: list[int] = MISSING
    foreground: float = 0.7
    validation_fraction: float = 0.1
    validate_every: int = 5
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup: float = 0.1
    freeze_norm: float = 0.5
    num_workers: int | None = None
    channels_last: bool = True
    max_voxels: int = 8_000_000


@dataclass
class SegmenterConfig(StageConfig):
    """Stage one. `early` is the share of the steps after which the weights for masks of kind "early" are kept."""

    early: float = 0.15


@dataclass
class ErrorMapConfig(StageConfig):
    """Stage two. `baseline_masks` is how many training masks at most band and entropy threshold are chosen on."""

    head: Head = Head.label
    label_weight: float = 1.0
    dice_weight: float = 1.0
    positive_weight: float = 1.0
    balance: str = "final"
    threshold: ThresholdRule = ThresholdRule.expected
    baselines: list[str] = field(default_factory=lambda: ["constant", "boundary", "entropy"])
    baseline_masks: int = 60
    overlays: int = 2


@dataclass
class Config:
    """Top level. Everything unknown is refused, also with a plus sign."""

    name: str = "default"
    stage: Stage = Stage.segmenter
    fold: str = "0"
    folds: int = 5
    seed: int = 0
    fit: bool = True
    runs_dir: str = "runs"
    data_dir: str = "data"
    cache_dir: str = "${runs_dir}/.cache"
    data: Any = MISSING
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    masks: MasksConfig = field(default_factory=MasksConfig)
    network: Any = MISSING
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    errormap: ErrorMapConfig = field(default_factory=ErrorMapConfig)
    trainer: Any = MISSING
    callbacks: Any = field(default_factory=dict)
    logger: Any = field(default_factory=dict)


def register() -> None:
    """Make the schema and the resolvers known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("whqa_run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("whqa_cpu_precision", cpu_precision, replace=True)


register()
