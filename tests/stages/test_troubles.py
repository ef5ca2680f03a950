"""Errors that torch and the disk really raise come out as one line with its remedy; a fault of whqa does not."""

from __future__ import annotations

import errno
import multiprocessing.synchronize
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from whqa.errors import InputError
from whqa.stages.troubles import troubles_explained

RUN_DIR = Path("runs", "demo", "segmenter", "0")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class _Dies(Dataset[int]):
    """Its process ends at the first item, as one does that runs out of shared memory."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        os._exit(1)


def _load_from_dying_workers() -> None:
    next(iter(DataLoader(_Dies(), num_workers=1)))


@pytest.mark.parametrize(
    ("trouble", "remedy"),
    [
        (lambda: nn.BatchNorm3d(2)(torch.zeros(1, 2, 1, 1, 1)), "set a larger segmenter.patch"),
        (lambda: nn.InstanceNorm3d(2)(torch.zeros(1, 2, 1, 1, 1)), "set a larger segmenter.patch"),
        (_load_from_dying_workers, "set segmenter.num_workers=0"),
        (lambda: torch.empty(2**50), "memory ran out; set a smaller segmenter.patch"),
        (lambda: bytearray(2**62), "memory ran out; set a smaller segmenter.patch"),
    ],
    ids=["batch norm", "instance norm", "workers", "tensor", "memory"],
)
def test_torch_s_own_errors_have_a_remedy(trouble: Callable[[], object], remedy: str) -> None:
    with pytest.raises(InputError) as caught, troubles_explained(RUN_DIR):
        trouble()
    assert str(caught.value).startswith("segmenter.")
    assert remedy in str(caught.value)
    assert "Traceback" in (RUN_DIR / "error.log").read_text()


def test_a_full_disk_is_named_whatever_else_failed_over_it(tmp_path: Path) -> None:
    def work() -> None:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "last.ckpt"))
        finally:
            raise RuntimeError("while tidying up")

    with pytest.raises(InputError, match=r"last.ckpt: No space left.*; free some space"), troubles_explained(RUN_DIR):
        work()


def test_no_room_for_the_locks_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system answers where /dev/shm has a few kB."""

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(multiprocessing.synchronize._multiprocessing, "SemLock", full)  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"set segmenter.num_workers=0"), troubles_explained(RUN_DIR):
        multiprocessing.Queue()


@pytest.mark.parametrize("fault", [ValueError("x"), RuntimeError("y"), OSError(errno.EIO, "z"), KeyError("w")])
def test_other_errors_pass_as_they_are(fault: Exception) -> None:
    with pytest.raises(type(fault)) as caught, troubles_explained(RUN_DIR):
        raise fault
    assert caught.value is fault
