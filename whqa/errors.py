"""What a person is told: the one exception for everything that the user can put right, and warnings of one line."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from typing import Any

# What a training says after Ctrl-C or SIGTERM.
STOPPED = "stopped; the same command continues from the last checkpoint"


class InputError(Exception):
    """Bad input: its text is one line that names the file or setting, what is wrong and what to do.

    The command line prints the text on standard error and exits with code 2.

    Args:
        message: the text; line breaks become spaces.
        code: what kind of fault it is, for programs, e.g. "grid-mismatch"; "" where nobody tells it from others.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.code = code


def plain_messages() -> None:
    """One line for a warning of whqa; Lightning's hints and the deprecations of libraries are for developers.

    What the terminal's encoding lacks, such as the bullet in Lightning's bar, becomes a question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    # set here, the level of "pytorch_lightning" itself would be set back when it is imported
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.distributed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
    # of Lightning, on every machine of a cluster where jobs are submitted from
    warnings.filterwarnings("ignore", message=".*`srun` command is available.*")
    # what whqa's metrics log is the same in every process of a run
    warnings.filterwarnings("ignore", message=".*recommended to use `self.log.*in distributed setting.*")
    warnings.filterwarnings("ignore", message=".*Grad strides do not match bucket view strides.*")
    warnings.formatwarning = _one_line


def _one_line(message: Warning | str, *args: Any, **kwargs: Any) -> str:
    return f"warning: {' '.join(str(message).split())}\n"
