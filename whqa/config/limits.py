"""What values a setting may have, said in one line where it has another one.

What only the object that is made of a setting can know, such as how many strides a network has, the object says itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from enum import Enum
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from whqa.config.schema import Config, Stage
from whqa.data.preprocess_settings import Centre
from whqa.errors import InputError
from whqa.loading.patch_settings import Balance
from whqa.modules.training_settings import USUAL_INPUTS, Input


@dataclass(frozen=True)
class _Number:
    """From `low` to `high`, both finite where they are stated; `below` excludes `high`."""

    low: float = -math.inf
    high: float = math.inf
    below: bool = False

    def holds(self, value: Any) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            return False
        return self.low <= value <= self.high and not (self.below and value == self.high)

    def __str__(self) -> str:
        if self.below:
            return f"at least {self.low:g} and below {self.high:.12g}"
        if math.isfinite(self.high):
            return f"between {self.low:.12g} and {self.high:.12g}"
        return f"at least {self.low:g}" if math.isfinite(self.low) else "finite"


@dataclass(frozen=True)
class _Several:
    """A list of `n` such numbers (None: of any length), `rising` or in any order, null among them where `gaps`."""

    n: int | None
    each: _Number
    rising: bool = False
    gaps: bool = False

    def holds(self, value: Any) -> bool:
        if not isinstance(value, Sequence) or isinstance(value, str) or self.n not in (None, len(value)):
            return False
        numbers = [one for one in value if not (self.gaps and one is None)]
        return all(map(self.each.holds, numbers)) and (not self.rising or sorted(set(numbers)) == list(numbers))

    def __str__(self) -> str:
        text = f"{'a list of' if self.n is None else self.n} numbers, each {self.each}"
        return text + (", the first below the second" if self.rising else "") + (", or null" if self.gaps else "")


@dataclass(frozen=True)
class _OneOf:
    """One of these words."""

    words: tuple[Any, ...]

    def holds(self, value: Any) -> bool:
        # 1 is True to Python
        return any(type(value) is type(word) and value == word for word in self.words)

    def __str__(self) -> str:
        return f"one of {', '.join(dict.fromkeys(map(_shown, self.words)))}"


@dataclass(frozen=True)
class _Triples:
    """A list of triples of whole numbers from 1 on."""

    def holds(self, value: Any) -> bool:
        if not isinstance(value, Sequence) or isinstance(value, str):
            return False
        return all(isinstance(one, Sequence) and len(one) == 3 for one in value) and all(
            isinstance(n, int) and n >= 1 for one in value for n in one
        )

    def __str__(self) -> str:
        return "a list of triples of whole numbers from 1 on, such as [[2,2,1],[2,2,2],[2,2,2]]"


@dataclass(frozen=True)
class _Word:
    """Text; what it says is for others to judge."""

    def holds(self, value: Any) -> bool:
        return isinstance(value, str)

    def __str__(self) -> str:
        return "a word, such as cpu or gpu"


@dataclass(frozen=True)
class _AtMost:
    """A whole number up to `most`, or what is no number, which others judge."""

    most: int

    def holds(self, value: Any) -> bool:
        return not isinstance(value, int) or value <= self.most

    def __str__(self) -> str:
        return f"at most {self.most}"


_Limit = _Number | _Several | _OneOf | _Triples | _Word | _AtMost
# Each takes a third of a gigabyte.
_MOST_PROCESSES = 256
# Patches; more than any card holds, and a mistyped number waits for memory in place of a line.
_LARGEST_BATCH = 4096
_COUNT, _SHARE, _LENGTH = _Number(1), _Number(0, 1), _Number(1e-3, 1e6)
# Of both stages; beyond the upper ends nothing is learnt, and numbers overflow.
_OF_STAGES: dict[str, _Limit] = {
    **dict.fromkeys(("steps", "steps_per_epoch", "validate_every", "max_voxels", "baseline_masks"), _COUNT),
    "batch_size": _Number(1, _LARGEST_BATCH),
    "overlays": _Number(0),
    "num_workers": _Number(0, _MOST_PROCESSES),
    "learning_rate": _Number(1e-12, 10),
    "weight_decay": _Number(0, 10),
    **dict.fromkeys(("dice_weight", "positive_weight", "label_weight"), _Number(0, 1e6)),
    **dict.fromkeys(("boundary_weight", "image_level_weight"), _Number(0, 1e6)),
    "focal_gamma": _Number(0, 100),
    **dict.fromkeys(("early", "foreground", "freeze_norm", "delivered"), _SHARE),
    **dict.fromkeys(("warmup", "validation_fraction", "opinion_dropout", "mask_dropout"), _Number(0, 1, below=True)),
    "patch": _Several(3, _COUNT),
    "balance": _OneOf(get_args(Balance)),
}
_LIMITS: dict[str, _Limit] = {
    "seed": _Number(0, 2**32 - 1),
    "folds": _Number(2, 1000),
    "data.n": _COUNT,
    "data.seed": _Number(0, 2**32 - 1),
    "preprocess.spacing": _Several(3, _LENGTH, gaps=True),
    "preprocess.crop_mm": _Several(3, _LENGTH),
    "preprocess.centre": _OneOf(get_args(Centre)),
    "preprocess.ct_window": _Several(2, _Number(-1e6, 1e6), rising=True),
    "preprocess.mr_percentiles": _Several(2, _Number(0, 100), rising=True),
    "augmentation.rotate_deg": _Several(3, _Number(0, 180)),
    "augmentation.scale": _Number(0, 0.9),
    "augmentation.flip": _Several(None, _Number(0, 2)),
    **{
        f"augmentation.{key}": _SHARE for key in ("intensity_scale", "intensity_shift", "noise", "gamma", "probability")
    },
    "network.width": _Number(1, 4096),
    "network.n_sides": _COUNT,
    "network.strides": _Triples(),
    "trainer.accelerator": _Word(),
    "trainer.devices": _AtMost(_MOST_PROCESSES),
    # losses and stored masks are of float32
    "trainer.precision": _OneOf(("32-true", "32", 32, "bf16-mixed", "bf16", "16-mixed", "16", 16)),
    "trainer.deterministic": _OneOf((True, False, "warn")),
    "trainer.log_every_n_steps": _Number(0),
    "trainer.benchmark": _OneOf((True, False)),
    # below, Lightning clips nothing
    "trainer.gradient_clip_val": _Number(0),
    "trainer.num_sanity_val_steps": _Number(-1),
    "callbacks.checkpoint.every_n_epochs": _COUNT,
    **{f"{stage}.{key}": limit for stage in Stage for key, limit in _OF_STAGES.items()},
}
_WORDS = {"errormap.inputs": tuple(map(str, Input))}
_NULL = {"errormap.inputs": ", ".join(USUAL_INPUTS)}
# What an interrupted run is found again by.
_OF_CHECKPOINT = {
    "filename": "last",
    "save_top_k": 1,
    "save_on_train_epoch_end": True,
    "enable_version_counter": False,
}
# By these the file would hold other weights than the test judges with; each may stand at what Lightning has anyway.
_OF_OTHER_CHECKPOINTS = {
    "monitor": None,
    "every_n_train_steps": None,
    "train_time_interval": None,
    "save_weights_only": False,
}


def refuse_out_of_range(config: DictConfig) -> None:
    """Look at every setting that has limits.

    Raises:
        InputError: one is beyond them; names it, its value, and what it may be.
    """
    plain = OmegaConf.to_container(config)
    for key, limit in _LIMITS.items():
        value = plain_value(plain, key)
        if value is not None and not limit.holds(value):
            raise InputError(f"{key}={_shown(value)}: must be {limit}")
    _refuse_empty(config)
    _refuse_lost_checkpoints(plain)


def wanted(key: str) -> str:
    """What the value of a key must be, by its limits or else by its type in the schema; "" where neither says."""
    kind = _kind(key)
    text = str(_LIMITS.get(key, ""))
    if isinstance(_LIMITS.get(key), _Number):
        text = f"{kind} {text}" if kind else text
    return text or kind


def plain_value(plain: Any, key: str) -> Any:
    """The value of a dotted key of plain containers; None where there is none, or an interpolation."""
    found = plain
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found if not (isinstance(found, str) and found.startswith("${")) else None


def _shown(value: Any) -> str:
    """As YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value).replace("None", "null")


def _kind(key: str) -> str:
    hint: Any = Config
    for part in key.split("."):
        hint = get_type_hints(hint).get(part) if is_dataclass(hint) else None
    if key in _WORDS:
        return f"a list of some of {', '.join(_WORDS[key])}, or null for {_NULL[key]}"
    options = [one for one in get_args(hint) if one is not type(None)] or [hint]
    null = ", or null" if type(None) in get_args(hint) else ""
    names: Mapping[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if isinstance(options[0], type) and issubclass(options[0], Enum):
        return f"one of {', '.join(str(one.value) for one in options[0])}{null}"
    if str(options[0]).startswith(("list", "dict")) or str(hint).startswith(("list", "dict")):
        return ("a mapping" if "dict" in str(hint) else "a list") + null
    if is_dataclass(options[0]):
        return "a mapping; state its keys one by one"
    return names.get(options[0], "") and names[options[0]] + null


def _refuse_empty(config: DictConfig) -> None:
    for key in _WORDS:
        if OmegaConf.select(config, key) == []:
            raise InputError(f"{key}=[]: must be {_kind(key)}")


def _refuse_lost_checkpoints(plain: Any) -> None:
    for key, value in _of_checkpoint(plain):
        right = (_OF_CHECKPOINT | _OF_OTHER_CHECKPOINTS)[key.rpartition(".")[2]]
        if value != right or isinstance(value, bool) != isinstance(right, bool):
            said = f"must be {_shown(right)}, as the file that a run goes on from; leave it out"
            raise InputError(f"{key}={_shown(value)}: {said}")


def _of_checkpoint(plain: Any) -> Iterator[tuple[str, Any]]:
    checkpoint = plain_value(plain, "callbacks.checkpoint") or {}
    if "ModelCheckpoint" in str(checkpoint.get("_target_")):
        named = (*_OF_CHECKPOINT, *(key for key in _OF_OTHER_CHECKPOINTS if key in checkpoint))
        yield from ((f"callbacks.checkpoint.{key}", checkpoint.get(key)) for key in named)
