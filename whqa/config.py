"""The experiment's configuration: a schema that catches typos and wrong types, and the names that follow from it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from whqa.errors import InputError


class Stage(StrEnum):
    """The two stages of an experiment."""

    segmenter = "segmenter"
    errormap = "errormap"


class Head(StrEnum):
    """What the error-map network predicts, see `whqa.modules.errormap`."""

    binary = "binary"
    label = "label"


class ThresholdRule(StrEnum):
    """How the error map follows from its probabilities, see `whqa.calibration`."""

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
    """See `whqa.data.patches.Augmentation`."""

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
    from the command line; `whqa.config_check.external_settings` gives them their type.
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


# What a run is, not how or where it is run: only the rest of the overrides becomes part of a run's name.
_NOT_IN_NAME = re.compile(
    r"^(name|experiment|stage|fold|fit|runs_dir|data_dir|cache_dir|debug|sweep|data\.root"
    r"|(segmenter|errormap)\.num_workers|(logger|trainer|callbacks|hydra)(\..*|/.*|@.*)?)$"
)
# In bytes; file systems allow 255, and files are written beside their place under longer names.
_LONGEST_NAME = 200
# That there are masks of a program makes another experiment, not where they lie.
_EXTERNAL_ROOT = re.compile(r"^(masks\.external\.[\w-]+)\.root(=.*)?$", re.DOTALL)


def run_name(name: str, overrides: Sequence[str]) -> str:
    """Directory name of an experiment: its name, then the overrides that make it another experiment.

    `name=...` among the overrides stands alone: whoever names a run takes care of telling runs apart.
    """
    keys = [(o.split("=", 1)[0].lstrip("+~"), o.lstrip("+")) for o in overrides]
    if any(key == "name" for key, _ in keys):
        return name
    keys = [(key, _EXTERNAL_ROOT.sub(r"\1", text)) for key, text in keys]
    parts = sorted(text for key, text in keys if not _NOT_IN_NAME.match(key))
    full = ",".join([name, *(re.sub(r"[^\w.,=+~-]+", "_", part) for part in parts)])
    if len(full.encode()) <= _LONGEST_NAME:
        return full
    short = full.encode()[:_LONGEST_NAME].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(full.encode()).hexdigest()[:8]}"


def config_dir() -> Path:
    """The configuration groups: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def cpu_precision() -> str:
    """bf16-mixed where the CPU multiplies bf16 natively (AVX512-BF16, AMX), else plain float32."""
    import torch

    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, check, bool)() for check in checks)
    return "bf16-mixed" if native else "32-true"


def of_run(config: DictConfig, stage: str, fold: str) -> DictConfig:
    """The configuration that another run of the same experiment has."""
    changed = OmegaConf.merge(config, {"stage": stage, "fold": fold})
    assert isinstance(changed, DictConfig)
    return changed


def differences(saved: DictConfig, current: DictConfig) -> list[str]:
    """Keys whose values differ between two configurations of one run, without those that only say how or where to run.

    A segmenter does not depend on the settings of the error-map stage, and no run on a setting that came after it.
    """
    ignored = {"fit", "runs_dir", "cache_dir", "data_dir", "trainer", "callbacks", "logger"}
    if current.stage == Stage.segmenter:
        ignored |= {"errormap", "masks"}
    flat_saved, flat_current, known = (
        dict(_leaves(c, ignored)) for c in (saved, current, OmegaConf.structured(Config))
    )
    later = known.keys() - flat_saved.keys()
    keys = (flat_saved.keys() | flat_current.keys()) - later
    return sorted(k for k in keys if flat_saved.get(k) != flat_current.get(k))


def _leaves(config: DictConfig, ignored: set[str], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in OmegaConf.to_container(config, resolve=True).items():  # type: ignore[union-attr]
        path = prefix + str(key)
        if path in ignored or path == "data.root" or path.endswith(".num_workers"):
            continue
        if isinstance(value, dict):
            yield from _leaves(OmegaConf.create(value), ignored, f"{path}.")
        elif _EXTERNAL_ROOT.match(path):
            yield path, "anywhere"  # the masks themselves are compared, see whqa.masks.external
        else:
            yield path, value


def make(config: DictConfig, **arguments: Any) -> Any:
    """`hydra.utils.instantiate` with plain containers; what the user can put right comes out as InputError.

    Raises:
        InputError: the target's own, a missing value, or an argument that the target refuses; names the group.
    """
    try:
        return instantiate(config, _convert_="all", **arguments)
    except (InstantiationException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error
        if isinstance(cause, InputError):
            raise cause from None
        # by name: importing Lightning takes seconds, which a command that only reads files should not cost
        of_trainer = type(cause).__name__ == "MisconfigurationException"
        if of_trainer or isinstance(cause, TypeError | ValueError | OmegaConfBaseException):
            first = str(cause).splitlines()[0]
            raise InputError(f"{config._get_full_key(None)}: {first}") from error
        raise


def register() -> None:
    """Make the schema and the resolvers known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("whqa_run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("whqa_cpu_precision", cpu_precision, replace=True)


register()
