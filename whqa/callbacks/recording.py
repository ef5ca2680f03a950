"""Stage two's record of what its cases look like, so that a stranger can be told from them later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl

from whqa.callbacks.ranks import gather_by_index
from whqa.files import write_rows
from whqa.masks.plan import is_delivered
from whqa.results.familiarity import FEATURES_FILE, IDENTITY, REFERENCE
from whqa.results.features import feature_names, features


class RecordFeatures(pl.Callback):
    """In the test loop: writes features.csv, a row for every mask that somebody would use (no side output or early).

    A row more for each case's reference, as mask kind "reference": a mask better than the run's own is no stranger.

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
        self.rows: dict[int, dict[str, dict[str, float]]] = {}

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start afresh."""
        self.rows = {}

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Take the numbers of one mask and of the reference, each with the image."""
        if not is_delivered(batch["kind"][0]):
            return
        geometry = trainer.datamodule.cases[batch["case"][0]].geometry  # type: ignore[attr-defined]
        image = batch["image"][0, 0].float().cpu().numpy()
        labels = {"mask": batch["mask"], REFERENCE: batch["label"]}
        self.rows[int(batch["index"][0])] = {
            what: features(image, label[0].cpu().numpy().astype(np.uint8), geometry, self.structures)
            for what, label in labels.items()
        }

    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Gather all ranks' rows, write the table once."""
        everyone = gather_by_index(self.rows)
        if trainer.is_global_zero:
            items = trainer.datamodule.test_items  # type: ignore[attr-defined]
            masks = [self._identity(*items[index]) | everyone[index]["mask"] for index in sorted(everyone)]
            references = {
                items[index][0]: self._identity(*items[index]) | {"mask_kind": REFERENCE} | everyone[index][REFERENCE]
                for index in sorted(everyone)
            }
            write_rows(self.path, [*IDENTITY, *feature_names(self.structures)], [*masks, *references.values()])

    def _identity(self, case: str, kind: str) -> dict[str, Any]:
        known = self.identity[case, kind]
        return {"case": case, "mask_kind": kind} | {name: known[name] for name in ("fold", "patient", "modality")}
