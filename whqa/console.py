"""What a person sees on the terminal: whqa's own words, without the chatter of the libraries below."""

from __future__ import annotations

import logging
import warnings
from typing import Any


def plain_messages() -> None:
    """One line for a warning of whqa; Lightning's hints and the deprecations of libraries are for developers."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
    warnings.formatwarning = _one_line


def _one_line(message: Warning | str, *args: Any, **kwargs: Any) -> str:
    return f"warning: {' '.join(str(message).split())}\n"
