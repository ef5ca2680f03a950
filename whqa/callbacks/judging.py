"""Stage two's evaluation: the network and its rivals judge every mask of the test fold."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from whqa.callbacks.shuffled import Shuffled
from whqa.files import write_arrays, write_rows
from whqa.judges.baseline import Baseline
from whqa.judges.constant import REGIONS, Constant
from whqa.metrics.error_detection import error_dice_by_structure
from whqa.metrics.error_places import CERTAINTY_COLUMN, millilitres, place_certainty
from whqa.metrics.per_case import CaseTable
from whqa.metrics.segmentation import confusion, dice_of_confusion, segmentation_dice
from whqa.metrics.verdict_row import JOINT, JUDGE_COLUMNS, NETWORK, judge
from whqa.modules.volume_batches import judged_case
from whqa.quality import ErrorPrediction, JudgedCase, QualityPrediction


class JudgeMasks(pl.Callback):
    """In the test loop: the network and every baseline judge every mask; writes cases.csv and the error maps.

    A baseline that needs the segmenter's entropy or a second opinion gets no row of a mask without it.

    Args:
        run_dir: of the error-map network of this fold.
        baselines: fitted when the test begins, see `FitBaselines`; among them the constant, whose training means stand
            beside every row.
        structures: keys in index order.
        identity: (case, kind) -> columns that say what the row is about (fold, patient, modality, segmenter).
        shuffled: the network itself, shown an input of another patient.
    """

    def __init__(
        self,
        run_dir: Path,
        baselines: Sequence[Baseline],
        structures: Sequence[str],
        identity: Mapping[tuple[str, str], Mapping[str, Any]],
        shuffled: Sequence[Shuffled] = (),
    ) -> None:
        self.dir = run_dir
        self.baselines, self.shuffled = tuple(baselines), tuple(shuffled)
        self.constant = next(b for b in baselines if isinstance(b, Constant))
        self.identity = identity
        self.dice_columns = tuple(f"dice_{s}" for s in structures)
        self.structure_columns = tuple(f"error_dice_{s}" for s in structures)
        self.label_columns = tuple(f"dice_{s}_{what}" for what in ("predicted", "corrected") for s in structures)
        self.of_network = (*self.label_columns, CERTAINTY_COLUMN)
        self.tables: dict[str, CaseTable] = {}
        self._started = 0.0
        # labels of the mask by labels of its reference, of which every method's row takes its part
        self._counts = np.zeros((0, 0))

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """One table a method."""
        columns = (*JUDGE_COLUMNS, *self.structure_columns, *self.dice_columns, *self.of_network, "seconds")
        names = [NETWORK, *(b.name for b in self.baselines), *(s.name for s in self.shuffled)]
        names += [JOINT] if module.is_joint else []
        self.tables = {name: CaseTable(columns).to(module.device) for name in names}

    def on_test_batch_start(self, *args: Any) -> None:
        """Start the clock of the network."""
        self._started = time.perf_counter()

    def on_test_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Judge one mask with every method."""
        seconds = time.perf_counter() - self._started
        case = judged_case(batch)
        assert case.reference is not None
        self._counts = confusion(case.mask, case.reference, len(self.dice_columns) + 1)
        masks = dict(zip(self.dice_columns, dice_of_confusion(self._counts), strict=True))
        self._store(case, outputs)
        self._record(batch, NETWORK, case, outputs, seconds, masks | self._told_by_network(case, outputs))
        if outputs.whole is not None:
            self._record(batch, JOINT, case, outputs.whole, seconds, masks | self._regressed(outputs.whole))
        for baseline in self.baselines:
            if any(getattr(case, name) is None for name in baseline.needs):
                continue
            started = time.perf_counter()
            prediction = baseline.predict(case)
            spent = time.perf_counter() - started
            self._record(batch, baseline.name, case, prediction, spent, masks | self._regressed(prediction))
        for one in self.shuffled:
            started = time.perf_counter()
            blind = one.predict(module, trainer.datamodule, batch)  # type: ignore[attr-defined, arg-type]
            if blind is not None:
                self._record(batch, one.name, case, blind, time.perf_counter() - started, masks)

    def on_test_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Gather all ranks' rows, log the network's headline numbers, write the table once."""
        items = trainer.datamodule.test_items  # type: ignore[attr-defined]
        rows = []
        for method, table in self.tables.items():
            columns = table.compute()
            for i, index in enumerate(columns["index"].tolist()):
                values = {k: float(v[i]) for k, v in columns.items() if k != "index"}
                case, kind = items[index]
                rows.append(self._row(method, case, kind, values))
        network = [r["error_dice"] for r in rows if r["method"] == NETWORK]
        module.log("test/error_dice", float(np.mean(network)), rank_zero_only=True)
        if trainer.is_global_zero:
            write_rows(self.dir / "cases.csv", list(rows[0]), rows)

    def _record(
        self,
        batch: Any,
        method: str,
        case: JudgedCase,
        prediction: ErrorPrediction | QualityPrediction,
        seconds: float,
        dice: Any,
    ) -> None:
        assert case.reference is not None
        unknown = dict.fromkeys((*self.of_network, *self.structure_columns), float("nan"))
        row = unknown | judge(case, prediction) | dice | {"seconds": seconds}
        if isinstance(prediction, ErrorPrediction):
            by_structure = error_dice_by_structure(
                prediction.error_map, case.mask, case.reference, len(self._counts), self._counts
            )
            row |= dict(zip(self.structure_columns, by_structure, strict=True))
        self.tables[method].update(batch["index"][0], row)

    def _regressed(self, prediction: ErrorPrediction | QualityPrediction) -> dict[str, float]:
        """Expected Dice of a rival that regresses them."""
        if isinstance(prediction, ErrorPrediction):
            return {}
        return {f"{self.dice_columns[k - 1]}_predicted": dice for k, dice in prediction.expected_dice.items()}

    def _told_by_network(self, case: JudgedCase, prediction: ErrorPrediction) -> dict[str, float]:
        """How sure it is of a place; from one with a label head also expected Dice and Dice after correction."""
        sure = {CERTAINTY_COLUMN: place_certainty(prediction.suspect.cpu().numpy(), millilitres(case.spacing))}
        if prediction.expected_dice is None or prediction.corrected is None:
            return sure
        assert case.reference is not None
        after = segmentation_dice(prediction.corrected, case.reference, len(self.dice_columns) + 1)
        values = [*prediction.expected_dice.tolist(), *after.tolist()]
        return sure | dict(zip(self.label_columns, values, strict=True))

    def _store(self, case: JudgedCase, prediction: ErrorPrediction) -> None:
        probability = (prediction.probability * 255).round().to(torch.uint8).cpu().numpy()
        write_arrays(
            self.dir / "masks" / case.case / f"{case.kind}.npz",
            error_probability=probability,
            error_map=prediction.error_map.cpu().numpy().astype(np.uint8),
        )

    def _row(self, method: str, case: str, kind: str, values: Mapping[str, float]) -> dict[str, Any]:
        identity = self.identity[case, kind]
        if method == self.constant.name:
            values = dict(values) | self.constant.quality()
        dice = (*self.dice_columns, *self.label_columns)
        first = ("error_dice", "error_auprc", "acc_volume", "qi_volume", "acc_heart", "qi_heart", *dice)
        row = {"case": case, "fold": identity["fold"], "mask_kind": kind, "method": method}
        row |= {k: values[k] for k in first} | {k: v for k, v in identity.items() if k != "fold"}
        row |= {k: v for k, v in values.items() if k not in first}
        row |= {f"constant_{r}": self.constant.accuracy(r) for r in REGIONS}
        return row | {f"constant_{r}_kind": self.constant.accuracy(r, kind) for r in REGIONS}
