"""Weights and checkpoints on disk: whole or not at all, and read as tensors only, never as code."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from whqa.errors import InputError
from whqa.files import atomic_path, reading

# The only one: the header has texts in no fixed order, and the same weights shall make the same bytes.
_NOTE = "whqa"


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


def packed_tensors(state: Mapping[str, torch.Tensor], note: str) -> bytes:
    """The state of a module as safetensors, which cannot hold code, with a text in its header."""
    from safetensors.torch import save  # of model files alone

    # the format knows no strides, nor tensors that share their memory
    return save({name: value.detach().contiguous().clone() for name, value in state.items()}, {_NOTE: note})


def read_tensors(path: Path, remedy: str) -> tuple[dict[str, torch.Tensor], str]:
    """The state and the text of `packed_tensors`, on the CPU.

    Raises:
        InputError: the file is missing or torn; ends with `remedy`.
    """
    from safetensors import safe_open

    with reading(path, "weights in safetensors", remedy), safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()[_NOTE]  # noqa: SIM118
