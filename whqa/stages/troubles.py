"""Errors of torch and of the system that the user can put right, each as one line that says how."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from whqa.config.instantiate import NO_MEMORY
from whqa.errors import InputError
from whqa.files import write_text

# What torch says where batch or instance normalisation has one value to take the variance of.
_ONE_VALUE = ("Expected more than 1 value per channel", "Expected more than 1 spatial element")
# What it says where a process that loads data could not hand a batch over, or is gone.
_NO_WORKER = ("DataLoader worker", "shared memory", "/torch_", "shm")
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def troubles_explained(run_dir: Path) -> Iterator[None]:
    """For the work of the run in `runs/<experiment>/<stage>/<fold>`; the whole error goes to its error.log.

    Raises:
        InputError: in place of an error of torch or of the disk that has a remedy; others pass.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        line = _explained(error, run_dir)
        if line is None:
            raise
        # a full disk may not take it
        with suppress(OSError):
            write_text(run_dir / "error.log", traceback.format_exc())
        raise InputError(line) from error


def _explained(error: Exception, run_dir: Path) -> str | None:
    stage, chain = run_dir.parent.name, list(_chain(error))
    if any(words in str(one) for one in chain for words in _ONE_VALUE):
        return (
            f"{stage}.patch, {stage}.batch_size: so few voxels that one value a channel is left to normalise in the "
            f"network's deepest level; set a larger {stage}.patch, or more than one patch a process in "
            f"{stage}.batch_size"
        )
    if any(words in str(one) for one in chain for words in _NO_WORKER) or any(map(_of_no_semaphore, chain)):
        return (
            f"{stage}.num_workers: a process that cuts patches died or could not hand them over, as where /dev/shm is "
            f"small; set {stage}.num_workers=0"
        )
    if any(isinstance(one, MemoryError | torch.OutOfMemoryError) or NO_MEMORY in str(one) for one in chain):
        return (
            f"{stage}.patch, {stage}.batch_size, {stage}.max_voxels: memory ran out; set a smaller {stage}.patch or "
            f"{stage}.batch_size for the training, a smaller {stage}.max_voxels for whole volumes"
        )
    for one in chain:
        if isinstance(one, OSError) and one.filename and one.errno in _DISK:
            return f"{one.filename}: {one.strerror}; free some space, and the same command continues"
    return None


def _of_no_semaphore(error: BaseException) -> bool:
    """Whether a process for data could not even be started: its locks lie in /dev/shm as well."""
    places = traceback.extract_tb(error.__traceback__)
    return getattr(error, "errno", None) == errno.ENOSPC and any("multiprocessing" in p.filename for p in places)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was raised in the handling of: Lightning's tidying up fails over what went wrong before."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
