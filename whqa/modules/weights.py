"""Weights and checkpoints on disk: whole or not at all, and read as tensors only, never as code."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from whqa.errors import InputError
from whqa.files import atomic_path, reading


def write_weights(path: Path, content: Any) -> None:
    """Write what `torch.save` takes beside `path`, bring it to the disk, then rename it: the last good file stays.

    Raises:
        OSError: the disk does not take it; `filename` is `path`.
    """
    # torch's own writer hides what the disk says behind an error of its own
    whole = io.BytesIO()
    torch.save(content, whole)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(whole.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def read_weights(path: Path, remedy: str, *needed: str) -> dict[str, Any]:
    """The mapping that `write_weights` wrote, on the CPU.

    Raises:
        InputError: the file is missing, torn, holds more than tensors, or lacks an entry that is needed; ends with
            `remedy`.
    """
    with reading(path, "a checkpoint", remedy), warnings.catch_warnings():
        # torch wonders aloud about files that it then refuses
        warnings.simplefilter("ignore", UserWarning)
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            if not zipfile.is_zipfile(path):
                raise ValueError("torn, or no file of torch") from None
            raise InputError(
                f"{path}: holds more than tensors and is not loaded; is the run from a trusted place?"
            ) from None
        if not isinstance(saved, dict) or not saved.keys() >= set(needed):
            raise ValueError("no state of a module")
        return saved
