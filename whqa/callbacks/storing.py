"""Stage one's evaluation: masks of unseen cases are stored and measured in the test loop."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from whqa.callbacks.augmented import augmented_view, mask_of_view
from whqa.files import sha256, write_json, write_rows
from whqa.loading.augmentation import Augmentation
from whqa.masks.faulty import faulty_masks
from whqa.masks.opinion import OPINION, VIEWS, write_opinion
from whqa.masks.plan import AUGMENTED_KINDS, FAULTY_KINDS, MIXED_KINDS
from whqa.masks.store import MASKS_RECORD, mask_path, write_mask
from whqa.metrics.arrays import FloatArray
from whqa.metrics.mask_row import mask_columns, measure_mask
from whqa.metrics.per_case import CaseTable
from whqa.modules.volume_batches import spacing_of


class StoreMasks(pl.Callback):
    """In the test loop: writes every mask of every kind, their digests and the table `cases.csv` that measures them.

    Beside the segmenter's own masks stand the reference and faulty ones, so that a judge meets masks of any quality,
    and the segmenter's opinion on every case, of the image itself and of the mean over shifted views.

    Args:
        segmenter_dir: run directory of the segmenter.
        structures: keys in index order.
        fold_of: case id -> fold; patient_of: case id -> patient.
        seen: ids of the cases in the segmenter's training folds.
        seed: of the faults and the augmented images.
        augmentation: of the segmenter's training.
    """

    def __init__(
        self,
        segmenter_dir: Path,
        structures: Sequence[str],
        fold_of: Mapping[str, int],
        patient_of: Mapping[str, str],
        seen: frozenset[str],
        seed: int,
        augmentation: Augmentation,
    ) -> None:
        self.dir = segmenter_dir
        self.structures = tuple(structures)
        self.fold_of = fold_of
        self.patient_of = patient_of
        self.seen = seen
        self.seed = seed
        self.augmentation = augmentation
        self.tables: dict[str, CaseTable] = {}
        self.columns = mask_columns(structures)

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """One table a mask kind; all ranks must know all kinds, also a rank without a case."""
        sides = [f"side{i + 1}" for i in range(module.network.n_sides)]  # type: ignore[union-attr,arg-type]
        kinds = ["final", *AUGMENTED_KINDS, "reference", *FAULTY_KINDS, *MIXED_KINDS, *sides]
        if getattr(module, "early_weights", None) is not None:
            kinds.append("early")
        self.tables = {kind: CaseTable(self.columns).to(module.device) for kind in kinds}

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Store and measure the masks of one case, and the opinions on it."""
        case, reference = batch["case"][0], batch["label"][0].to(torch.uint8)
        write_opinion(self.dir, case, outputs.log_p, case not in self.seen)
        for kind, (mask, entropy) in outputs.masks.items():
            self._keep(batch, kind, mask, entropy.float().cpu().numpy())
        self._keep(batch, "reference", reference, None)
        label = reference.cpu().numpy()
        own = {kind: mask.cpu().numpy() for kind, (mask, _) in outputs.masks.items()}
        for kind in AUGMENTED_KINDS:
            with trainer.precision_plugin.forward_context():
                view = self._view(module, batch, kind)
            mask = mask_of_view(view, outputs.masks["final"][0])
            self._keep(batch, kind, mask, None)
            own[kind] = mask.cpu().numpy()
        with trainer.precision_plugin.forward_context():
            mean = module.log_p_of_views(batch["image"][0, 0], outputs.log_p)  # type: ignore[operator]
        write_opinion(self.dir, case, mean, case not in self.seen, VIEWS)
        made = faulty_masks(case, label, own, spacing_of(batch), self.structures, self.seed)
        for kind, faulty, faults in made:
            self._keep(batch, kind, torch.from_numpy(faulty).to(reference.device), None, faults=np.array(faults))

    def _view(self, module: pl.LightningModule, batch: Any, kind: str) -> Tensor:
        rng = np.random.default_rng((self.seed, zlib.crc32(f"{batch['case'][0]}/{kind}".encode())))
        image = batch["image"][0, 0].float()
        return augmented_view(module.log_p, image, spacing_of(batch), self.augmentation, rng)  # type: ignore[arg-type]

    def _keep(self, batch: Any, kind: str, mask: Tensor, entropy: FloatArray | None, **more: np.ndarray) -> None:
        case = batch["case"][0]
        path = mask_path(self.dir, case, kind)
        write_mask(path, mask.cpu().numpy(), entropy, self.dir.name, case not in self.seen, **more)
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
            cases = dict.fromkeys(case for case, _ in written)
            written_files = [*written, *((case, opinion) for opinion in (OPINION, VIEWS) for case in cases)]
            digests = {f"{case}/{kind}": sha256(mask_path(self.dir, case, kind)) for case, kind in written_files}
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
