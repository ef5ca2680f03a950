"""Stage two's record of what its cases look like, so that a stranger can be told from them later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from whqa.assessment.familiarity import FEATURES_FILE, IDENTITY
from whqa.assessment.features import feature_names, features
from whqa.callbacks.tables import gather_by_index, write_rows
from whqa.masks.plan import is_delivered


class RecordFeatures(pl.Callback):
    """In the test loop: writes features.csv, one row for every mask that somebody would use (no side output or early).

    Args:
        run_dir: of the error-map network of this fold.
        structures: keys in index order.
        identity: (case, kind) -> columns that say what the row is about (fold, patient, modality).
    """

    def __init__(
        self, run_dir: Path, structures: Sequence[str], identity: Mapping[tuple[str, str], Mapping[str, Any]]
    ) -> None:
        self.path = run_dir / FEATURES_FILE
        self.structures = tuple(structures)
        self.identity = identity
        self.rows: dict[int, dict[str, float]] = {}

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start afresh."""
        self.rows = {}

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Take the numbers of one mask and its image; the reference stays out."""
        if not is_delivered(batch["kind"][0]):
            return
        geometry = trainer.datamodule.cases[batch["case"][0]].geometry  # type: ignore[attr-defined]
        image = batch["image"][0, 0].float().cpu().numpy()
        mask = batch["mask"][0].cpu().numpy().astype(np.uint8)
        self.rows[int(batch["index"][0])] = features(image, mask, geometry, self.structures)

    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Gather all ranks' rows, write the table once."""
        everyone = gather_by_index(self.rows)
        if trainer.is_global_zero:
            items = trainer.datamodule.test_items  # type: ignore[attr-defined]
            rows = [self._identity(*items[index]) | everyone[index] for index in sorted(everyone)]
            write_rows(self.path, [*IDENTITY, *feature_names(self.structures)], rows)

    def _identity(self, case: str, kind: str) -> dict[str, Any]:
        known = self.identity[case, kind]
        return {"case": case, "mask_kind": kind} | {name: known[name] for name in ("fold", "patient", "modality")}
