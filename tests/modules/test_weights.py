"""What a run keeps of its network: whole on the disk, or one line that names the file."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from whqa.errors import InputError
from whqa.modules.weights import read_weights, write_weights

REMEDY = "train it again"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_weights(tmp_path / "last.ckpt", {"state_dict": {"weight": torch.zeros(1000)}})
    return tmp_path / "last.ckpt"


def test_weights_return_as_they_were_written(path: Path) -> None:
    assert read_weights(path, REMEDY, "state_dict")["state_dict"]["weight"].shape == (1000,)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("left", [0, 20, 100, 1000, 4000])
def test_a_torn_file_is_named_with_what_to_do(left: int, path: Path) -> None:
    os.truncate(path, left)
    with pytest.raises(InputError, match=r"last\.ckpt: not readable as a checkpoint \(.*\); train it again$"):
        read_weights(path, REMEDY)


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), OrderedDict(a=1)])
def test_a_file_of_another_shape_is_named(content: object, path: Path) -> None:
    torch.save(content, path)
    with pytest.raises(InputError, match=r"last\.ckpt: not readable as a checkpoint .*; train it again$"):
        read_weights(path, REMEDY, "state_dict")


def test_what_is_more_than_tensors_is_not_loaded(path: Path) -> None:
    torch.save({"state_dict": Fraction(1, 3)}, path)
    with pytest.raises(InputError, match=r"last\.ckpt: holds more than tensors and is not loaded"):
        read_weights(path, REMEDY)


def test_a_write_that_fails_leaves_the_last_good_file(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        write_weights(path, {"cannot be pickled": lambda: None})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_disk_that_takes_a_part_only_is_named_and_the_last_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_weights(path, {"state_dict": {"w": torch.zeros(3)}})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write_weights(path, {"state_dict": {"w": torch.zeros(100_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == str(path)
    assert len(read_weights(path, "", "state_dict")["state_dict"]["w"]) == 3
    assert list(tmp_path.iterdir()) == [path]
