"""The experiment's configuration: a schema that catches typos and wrong types, and the names that follow from it.

A default stands beside the object that uses it, here only where there is no such object; what is missing, the files of
`conf` state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from whqa.config.run_name import run_name
from whqa.config.speed import cpu_precision
from whqa.config.wandb_settings import wandb_defaults
from whqa.data.preprocess_settings import Preprocess
from whqa.judges.threshold_rule import ThresholdRule
from whqa.loading.augmentation import Augmentation
from whqa.loading.patch_settings import BALANCE, DELIVERED, Dropout, PatchSettings
from whqa.modules.training_settings import ErrorMapSettings, OptimiserSettings

CPU_PRECISION = "whqa_cpu_precision"
"""The resolver of the precision that a processor is good at; it imports torch."""


class Stage(StrEnum):
    """The two stages of an experiment."""

    segmenter = "segmenter"
    errormap = "errormap"


@dataclass
class PreprocessConfig:
    """See `whqa.data.preprocess.Preprocess`."""

    spacing: list[float | None] = field(default_factory=lambda: [1.5, 1.5, 1.5])
    crop_mm: list[float] | None = Preprocess.crop_mm  # type: ignore[assignment]
    centre: str = Preprocess.centre
    ct_window: list[float] = field(default_factory=lambda: list(Preprocess.ct_window))
    mr_percentiles: list[float] = field(default_factory=lambda: list(Preprocess.mr_percentiles))


@dataclass
class AugmentationConfig:
    """See `whqa.loading.augmentation.Augmentation`."""

    rotate_deg: list[float] = field(default_factory=lambda: list(Augmentation.rotate_deg))
    scale: float = Augmentation.scale
    flip: list[int] = field(default_factory=lambda: list(Augmentation.flip))
    intensity_scale: float = Augmentation.intensity_scale
    intensity_shift: float = Augmentation.intensity_shift
    noise: float = Augmentation.noise
    gamma: float = Augmentation.gamma
    probability: float = Augmentation.probability


@dataclass
class MasksConfig:
    """Mask plan, masks of other programs by the program's name, and the kinds that are judged; null takes all.

    The values of `external` are `ExternalSettings` that stand as plain mappings, because Hydra cannot append a typed
    one from the command line; `whqa.config.words.external_settings` gives them their type.
    """

    plan: str = MISSING
    kinds: list[str] | None = None
    external: dict[str, Any] = field(default_factory=dict)


@dataclass
class StageConfig(OptimiserSettings, PatchSettings):
    """What both stages can set: length, batches, patches, optimiser, inference."""

    steps: int = MISSING
    steps_per_epoch: int = MISSING
    batch_size: int = MISSING
    patch: list[int] = MISSING
    validate_every: int = MISSING
    freeze_norm: float = 0.5


@dataclass
class SegmenterConfig(StageConfig):
    """Stage one. `early` is the share of the steps after which the weights for masks of kind "early" are kept."""

    early: float = 0.15


@dataclass
class ErrorMapConfig(ErrorMapSettings, Dropout, StageConfig):
    """Stage two.

    `baseline_masks` is how many training masks at most band and entropy threshold are chosen on, `train_kinds` and
    `shuffled` are for ablations: see `whqa.loading.datamodule.WholeHeartDataModule` and `whqa.callbacks.shuffled`.
    `deep_mask` joins the mask at the network's deep levels too, see `whqa.networks.voxresnet.VoxResNet`; `warm_start`
    starts from the weights of the segmenter of the same fold, see `whqa.modules.warm_start`.
    """

    balance: str = BALANCE
    delivered: float = DELIVERED
    train_kinds: list[str] | None = None
    shuffled: list[str] = field(default_factory=list)
    deep_mask: bool = False
    warm_start: bool = False
    threshold: ThresholdRule = ThresholdRule.expected
    baselines: list[str] = field(default_factory=lambda: ["constant", "boundary", "entropy", "opinion", "ensemble"])
    baseline_masks: int = 200
    overlays: int = 2


@dataclass
class Config:
    """Top level. Everything unknown is refused, also with a plus sign."""

    name: str = MISSING
    stage: Stage = MISSING
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
    OmegaConf.register_new_resolver("whqa_wandb", lambda key: wandb_defaults()[key], replace=True)
    OmegaConf.register_new_resolver(CPU_PRECISION, cpu_precision, replace=True)


register()
