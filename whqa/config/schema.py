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
    """Which masks are made, learned from and judged.

    Attributes:
        plan: which segmenter makes the masks of which fold; decides how many are trained and what leaks.
        kinds: mask kinds, families or programs that are judged and learned from; null takes all. Without any of the
            segmenters' own no segmenter is trained.
        external: masks of other programs, by the program's name.

    The values of `external` are `ExternalSettings` that stand as plain mappings, because Hydra cannot append a typed
    one from the command line; `whqa.config.words.external_settings` gives them their type.
    """

    plan: str = MISSING
    kinds: list[str] | None = None
    external: dict[str, Any] = field(default_factory=dict)


@dataclass
class StageConfig(OptimiserSettings, PatchSettings):
    """What both stages can set: length, batches, patches, optimiser, inference.

    Attributes:
        steps: optimiser steps of a training; its time grows with them.
        steps_per_epoch: a run is saved and resumed between epochs, so `steps` must be a multiple.
        batch_size: patches a step, of all devices together; memory grows with it.
        patch: edges in voxels along R, A, S; memory grows with their product. What lies farther apart is never seen
            together.
        validate_every: epochs between two validations for monitoring; no weights are picked by them.
        freeze_norm: share of the steps after which batch normalisation uses its running statistics; 1 never freezes.
    """

    steps: int = MISSING
    steps_per_epoch: int = MISSING
    batch_size: int = MISSING
    patch: list[int] = MISSING
    validate_every: int = MISSING
    freeze_norm: float = 0.5


@dataclass
class SegmenterConfig(StageConfig):
    """Stage one.

    Attributes:
        early: share of the steps after which the weights for masks of kind "early" are kept; the smaller, the worse
            these masks.
        from_pairs: in the nested plan, whether the segmenter of a fold starts from that of a pair of folds, which has
            not seen it either, and trains for a third of the steps.
    """

    early: float = 0.15
    from_pairs: bool = False


@dataclass
class ErrorMapConfig(ErrorMapSettings, Dropout, StageConfig):
    """Stage two.

    Attributes:
        balance: how training masks are drawn: "final" evenly over bins of their error rate but for a share of delivered
            ones, "quality" evenly over the bins, "none" all alike.
        delivered: that share, of masks as a segmenter or another program delivers them, augmented ones among them.
        train_kinds: mask kinds, with or without number, that are learned from, an ablation; null takes all but those
            for the test alone, "unfinished" stands for "side" and "early".
        test_kinds: mask kinds that the test judges, with or without number, to save time; null judges all, and other
            programs' masks are judged in any case. Intervals know of no others.
        shuffled: inputs (mask, image) that the tested network is also shown of another patient; rows more in the
            tables, see `whqa.callbacks.shuffled`.
        deep_mask: whether the mask joins at the network's deep levels too; VoxResNet alone can, and null says wherever
            that is possible.
        opinion_views: whether the network hears the segmenter's mean opinion over shifted views of the image, see
            `whqa.modules.views`, in place of that on the image alone; null says wherever segmenters kept it.
        opinion_ensemble: whether the network hears, of a test case, the mean opinion of all segmenters that have not
            seen it, where the mask plan has several; false for that of one alone, as in training.
        warm_start: whether training starts from the weights of the segmenter of the same fold, see
            `whqa.modules.warm_start`.
        threshold: how the error map follows from P: "expected", each mask by its own P, or "dice", one threshold for
            all, chosen on held-back training cases.
        baselines: rivals that judge the same masks; each adds rows to all tables.
        baseline_masks: how many training masks at most rivals are fitted on; fewer take less time.
        overlays: test cases of which pictures are drawn.
    """

    balance: str = BALANCE
    delivered: float = DELIVERED
    train_kinds: list[str] | None = None
    test_kinds: list[str] | None = None
    shuffled: list[str] = field(default_factory=list)
    deep_mask: bool | None = None
    opinion_views: bool | None = None
    opinion_ensemble: bool = True
    warm_start: bool = False
    threshold: ThresholdRule = ThresholdRule.expected
    baselines: list[str] = field(
        default_factory=lambda: ["constant", "boundary", "entropy", "opinion", "tta", "ensemble"]
    )
    baseline_masks: int = 200
    overlays: int = 2


@dataclass
class Config:
    """Top level. Everything unknown is refused, also with a plus sign.

    Attributes:
        name: of the experiment; its runs lie in runs_dir/name. Settings that change what a run is are added to it.
        stage: which of the two stages `whqa train` runs.
        fold: the fold to leave out, for `whqa train`; of the nested plan also pairs, 0-1.
        folds: of the cross-validation; each costs a training of both stages, of the nested plan more.
        seed: of folds, weights, patches and faults; another one is another experiment.
        fit: false tests again from the checkpoint, without training.
        runs_dir: where experiments lie.
        data_dir: where phantoms are written, and data sets lie that have no data.root.
        cache_dir: where prepared scans lie; experiments of equal preprocessing share them.
        data: the source of the scans, see its options.
        network: of both stages, see its options.
        trainer: Lightning's, see its options.
        callbacks: further ones of Lightning, by a name of your choice.
        logger: mirrors of metrics.csv; null for none.
    """

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
