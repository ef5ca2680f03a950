"""The weights of one training: its last checkpoint, or what a model file holds in its place."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from whqa.errors import InputError
from whqa.files import reading, sha256
from whqa.masks.run_state import LAST_CHECKPOINT, made_anew
from whqa.modules.errormap import ErrorMapModule
from whqa.modules.segmenter import SegmenterModule
from whqa.modules.weights import packed_tensors, read_tensors, read_weights

WEIGHTS = Path("checkpoints", "last.safetensors")


@dataclass(frozen=True, eq=False)
class TrainedWeights:
    """Of one network.

    Attributes:
        path: of the file.
        state: of the module.
        sha256: of the checkpoint that the training wrote.
        told_inputs: what the network sees; None of a segmenter, and of runs of older versions.
        hears_views: whether it hears the opinion over shifted views, see `whqa.modules.views`.
    """

    path: Path
    state: dict[str, Tensor]
    sha256: str
    told_inputs: list[str] | None
    hears_views: bool = False

    @property
    def inputs(self) -> list[str]:
        """What the error-map network sees."""
        if self.told_inputs is None:
            remedy = made_anew(self.path.parents[1])
            raise InputError(
                f"{self.path}: trained by an older version, whose networks heard no second opinion; {remedy}"
            )
        return self.told_inputs


def trained_weights(run_dir: Path) -> TrainedWeights:
    """Of runs/<experiment>/<stage>/<fold>, or of the same folder of a model file.

    Raises:
        InputError: the file is missing, torn or holds more than tensors.
    """
    path, remedy = run_dir / WEIGHTS, made_anew(run_dir)
    if path.is_file():
        state, note = read_tensors(path, remedy)
        with reading(path, "weights of a model file", remedy):
            notes = json.loads(note)
            told = notes["inputs"]
            inputs, views = told and [str(name) for name in told], bool(notes.get("hears_views", False))
            return TrainedWeights(path, state, str(notes["sha256"]), inputs, views)
    path = run_dir / LAST_CHECKPOINT
    saved = read_weights(path, remedy, "state_dict")
    settings = saved.get("hyper_parameters", {})
    told = settings.get("inputs")
    inputs, views = told and [str(name) for name in told], bool(settings.get("hears_views", False))
    return TrainedWeights(path, saved["state_dict"], sha256(path), inputs, views)


def packed_weights(module: ErrorMapModule | SegmenterModule, sha256: str) -> bytes:
    """What `trained_weights` reads from a model file; `sha256` is that of the module's checkpoint."""
    told: dict[str, Any] = {"sha256": sha256, "inputs": None}
    if isinstance(module, ErrorMapModule):
        told |= {"inputs": list(module.seen), "hears_views": module.hears_views}
    return packed_tensors(module.state_dict(), json.dumps(told))
