"""How far a run has come, from what it left in its directory; no torch, so that whoever asks is answered at once."""

from __future__ import annotations

import json
import pickle
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whqa.masks.run_state import LAST_CHECKPOINT

PROGRESS = "progress.json"
TRAINING_SHARE = {"segmenter": 0.85, "errormap": 0.6}
"""Of a run's time; the rest goes into masks, calibration and judging."""


@dataclass(frozen=True)
class Progress:
    """What `whqa.callbacks.training.ProgressFile` wrote last.

    Attributes:
        phase: "training" or "testing".
        step, of: optimiser steps, or volumes of the test; None from an older version.
        share: of the whole run, 0 to 1.
        left_s: seconds to the end of the run at the speed of this phase; None where no speed is known yet.
        at: when it was written, in seconds since the epoch.
    """

    phase: str
    step: int | None
    of: int | None
    share: float
    left_s: float | None
    at: float


def read_progress(run_dir: Path) -> Progress | None:
    """The progress of runs/<experiment>/<stage>/<fold>; None where nothing is known of it."""
    path = run_dir / PROGRESS
    # of no matter what it holds
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        at, told, training = path.stat().st_mtime, json.loads(path.read_bytes()), TRAINING_SHARE[run_dir.parent.name]
        is_training, done, speed = told["phase"] == "training", float(told["done"]), float(told.get("speed") or 0)
        if not 0 <= done <= 1:
            return None
        weight = training if is_training else 1 - training
        share = weight * done if is_training else training + weight * done
        left = (1 - share) / (weight * speed) if speed > 0 else None
        step, of = (None if told.get(key) is None else int(told[key]) for key in ("step", "of"))
        return Progress("training" if is_training else "testing", step, of, share, left, at)
    return None


def share_done(run_dir: Path) -> float:
    """Share of a run's work that is done, 0 to 1, as far as it told."""
    progress = read_progress(run_dir)
    return progress.share if progress else 0.0


def saved_step(run_dir: Path) -> int | None:
    """The optimiser step that a run resumes from; None where its last checkpoint is missing or not readable."""
    # of no matter what it holds
    with suppress(Exception), zipfile.ZipFile(run_dir / LAST_CHECKPOINT) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(name) as file:
            return int(_Outline(file).load()["global_step"])
    return None


class _Outline(pickle.Unpickler):
    """What a file of `torch.save` holds beside its tensors; imports and calls nothing that the file names."""

    def find_class(self, module: str, name: str) -> Any:
        return _StandIn

    def persistent_load(self, pid: Any) -> None:
        return None


class _StandIn(dict[Any, Any]):
    def __init__(self, *args: Any) -> None:
        super().__init__()
