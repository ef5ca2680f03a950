"""Stage one's evaluation: masks of unseen cases are stored and measured in the test loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from whqa.callbacks.batches import spacing_of
from whqa.files import sha256, write_json, write_rows
from whqa.masks.store import MASKS_RECORD, mask_path, write_mask
from whqa.metrics.mask_row import mask_columns, measure_mask
from whqa.metrics.per_case import CaseTable


class StoreMasks(pl.Callback):
    """In the test loop: writes every mask of every kind, their digests and the table `cases.csv` that measures them.

    Args:
        segmenter_dir: run directory of the segmenter.
        structures: keys in index order.
        fold_of: case id -> fold; patient_of: case id -> patient.
        seen: ids of the cases in the segmenter's training folds.
    """

    def __init__(
        self,
        segmenter_dir: Path,
        structures: Sequence[str],
        fold_of: Mapping[str, int],
        patient_of: Mapping[str, str],
        seen: frozenset[str],
    ) -> None:
        self.dir = segmenter_dir
        self.structures = tuple(structures)
        self.fold_of = fold_of
        self.patient_of = patient_of
        self.seen = seen
        self.tables: dict[str, CaseTable] = {}
        self.columns = mask_columns(structures)

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """One table a mask kind; all ranks must know all kinds, also a rank without a case."""
        kinds = ["final", *(f"side{i + 1}" for i in range(module.network.n_sides))]  # type: ignore[union-attr,arg-type]
        if getattr(module, "early_weights", None) is not None:
            kinds.append("early")
        self.tables = {kind: CaseTable(self.columns).to(module.device) for kind in kinds}

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Store and measure the masks of one case."""
        case = batch["case"][0]
        for kind, (mask, entropy) in outputs.items():
            write_mask(
                mask_path(self.dir, case, kind),
                mask.cpu().numpy(),
                entropy.float().cpu().numpy(),
                self.dir.name,
                case not in self.seen,
            )
            row = measure_mask(mask, batch["label"][0], spacing_of(batch), self.structures, kind == "final")
            self.tables[kind].update(batch["index"][0], row)

    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Gather all ranks' rows, write them once."""
        names = [case for case, _ in trainer.datamodule.test_items]  # type: ignore[attr-defined]
        rows = []
        for kind, table in self.tables.items():
            columns = table.compute()
            for i, index in enumerate(columns["index"].tolist()):
                values = {k: float(columns[k][i]) for k in self.columns}
                rows.append(self._identity(names[index], kind) | values)
        if trainer.is_global_zero:
            written = [(row["case"], row["mask_kind"]) for row in rows]
            digests = {f"{case}/{kind}": sha256(mask_path(self.dir, case, kind)) for case, kind in written}
            write_json(self.dir / MASKS_RECORD, digests)
            write_rows(self.dir / "cases.csv", list(self._identity(names[0], "")) + list(self.columns), rows)

    def _identity(self, case: str, kind: str) -> dict[str, Any]:
        return {
            "case": case,
            "patient": self.patient_of[case],
            "fold": self.fold_of[case],
            "mask_kind": kind,
            "segmenter": self.dir.name,
            "unseen": int(case not in self.seen),
        }
