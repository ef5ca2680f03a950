"""Checkpoints that appear whole or not at all, beside the one that they replace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning.plugins.io import TorchCheckpointIO

from whqa.modules.weights import write_weights


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's own way goes through TMPDIR, which may be small, and across file systems its move is no rename.

    Here the last good checkpoint stays untouched until the new one is on the disk.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; `storage_options` are Lightning's, for remote file systems, and mean nothing here.

        Raises:
            OSError: the disk does not take it; `filename` is `path`.
        """
        write_weights(Path(path), checkpoint)
