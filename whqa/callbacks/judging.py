"""Stage two's evaluation: monitoring, calibration on unseen training cases, and the table of all methods."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from whqa.callbacks.batches import gather_by_index, judged_case
from whqa.files import atomic_path, write_json, write_rows
from whqa.judges.baseline import Baseline
from whqa.judges.calibration import LogitHistogram, Rule, fit_calibration
from whqa.judges.constant import Constant
from whqa.judges.correction import correction_gain, most_probable_other
from whqa.masks.plan import is_delivered
from whqa.metrics.correlation import QIAccuracyCorrelation
from whqa.metrics.error_detection import ErrorMapAUPRC, ErrorMapDice, error_dice_by_structure
from whqa.metrics.per_case import CaseTable
from whqa.metrics.segmentation import segmentation_dice
from whqa.metrics.verdict_row import JUDGE_COLUMNS, judge
from whqa.quality import ErrorPrediction, JudgedCase, one_minus_mean

NETWORK = "errormap"
DELIVERED_SHARE = 0.9
# Error logits, uncalibrated, from which masks are tried to be corrected.
CORRECTION_LOGITS = torch.arange(-4.0, 8.01, 0.5)


class MonitorErrorMap(pl.Callback):
    """Logs `val/error_dice`, `val/error_auprc` and `val/qi_{pcc,spearman,mae}` at tau = 0.5, uncalibrated."""

    def __init__(self) -> None:
        self.dice, self.auprc = ErrorMapDice(), ErrorMapAUPRC()
        self.correlation = QIAccuracyCorrelation()

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Forget the last epoch; the trainer moves modules, not the metrics of callbacks."""
        for metric in (self.dice, self.auprc, self.correlation):
            metric.to(module.device)
            metric.reset()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Add one judged mask."""
        index, error = batch["index"][0], batch["mask"][0] != batch["label"][0]
        logit = outputs.error_logit
        predicted = logit > 0
        self.dice.update(index, predicted, error)
        self.auprc.update(index, logit, error)
        self.correlation.update(index, one_minus_mean(predicted), one_minus_mean(error))

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Log the numbers over all masks of all ranks."""
        values = {"error_dice": self.dice.compute(), "error_auprc": self.auprc.compute()}
        values |= {f"qi_{k}": v for k, v in self.correlation.compute().items()}
        module.log_dict({f"val/{k}": v for k, v in values.items() if v.isfinite()}, rank_zero_only=True)


class Calibrate(pl.Callback):
    """In a validation loop of its own, after training: fits the calibration on the held-back training cases.

    Delivered masks, final ones and other programs', are what is judged in practice, and their few errors would drown in
    those of side outputs and early masks: they get 90 % of the weight.
    """

    def __init__(self, path: Path, rule: Rule) -> None:
        self.path = path
        self.rule = rule
        self.histograms: dict[int, LogitHistogram] = {}
        self.gains: dict[int, Tensor] = {}

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start afresh."""
        self.histograms, self.gains = {}, {}

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Count one mask's logits, and what correcting it would gain."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        index, mask, reference = int(batch["index"][0]), batch["mask"][0], batch["label"][0]
        self.histograms[index] = LogitHistogram.of(outputs.error_logit, mask != reference)
        if outputs.label_logits is not None:
            other = most_probable_other(outputs.label_logits, mask)
            n_classes = len(outputs.label_logits)
            self.gains[index] = correction_gain(
                mask, reference, other, outputs.error_logit, CORRECTION_LOGITS, n_classes
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Fit on the masks of all ranks, each once; keep the result beside the checkpoint."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        everyone = gather_by_index(self.histograms)
        kinds = [trainer.datamodule.val_items[i][1] for i in sorted(everyone)]  # type: ignore[attr-defined]
        delivered = [is_delivered(kind) for kind in kinds]
        n = sum(delivered)
        share = {True: DELIVERED_SHARE / max(1, n), False: (1 - DELIVERED_SHARE) / max(1, len(kinds) - n)}
        weights = [share[one] for one in delivered]
        histograms = [everyone[i] for i in sorted(everyone)]
        calibration = fit_calibration(histograms, weights, self.rule)
        gains = gather_by_index(self.gains)
        if gains:
            calibration = calibration.corrected_from(best_correction([gains[i] for i in sorted(gains)], weights))
        module.calibration = calibration  # type: ignore[assignment]
        if trainer.is_global_zero:
            write_json(self.path, module.calibration.to_dict())  # type: ignore[union-attr,operator]


def best_correction(gains: Sequence[Tensor], weights: Sequence[float]) -> float | None:
    """The logit of `CORRECTION_LOGITS` with the best weighted mean gain; None where no correction gains anything."""
    share = torch.tensor(weights, dtype=torch.float64)
    mean = (share[:, None] * torch.stack(list(gains))).sum(dim=0) / share.sum()
    best = int(mean.argmax())
    return float(CORRECTION_LOGITS[best]) if mean[best] > 0 else None


class JudgeMasks(pl.Callback):
    """In the test loop: the network and every baseline judge every mask; writes cases.csv and the error maps.

    A baseline that needs the segmenter's entropy gets no row of a mask without it.

    Args:
        run_dir: of the error-map network of this fold.
        baselines: fitted on training cases.
        constant: the fitted constant predictor; its training means stand beside every row.
        structures: keys in index order.
        identity: (case, kind) -> columns that say what the row is about (fold, patient, modality, segmenter).
    """

    def __init__(
        self,
        run_dir: Path,
        baselines: Sequence[Baseline],
        constant: Constant,
        structures: Sequence[str],
        identity: Mapping[tuple[str, str], Mapping[str, Any]],
    ) -> None:
        self.dir = run_dir
        self.baselines = tuple(baselines)
        self.constant = constant
        self.identity = identity
        self.dice_columns = tuple(f"dice_{s}" for s in structures)
        self.structure_columns = tuple(f"error_dice_{s}" for s in structures)
        self.label_columns = tuple(f"dice_{s}_{what}" for what in ("predicted", "corrected") for s in structures)
        self.tables: dict[str, CaseTable] = {}
        self._started = 0.0

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """One table a method."""
        columns = (*JUDGE_COLUMNS, *self.structure_columns, *self.dice_columns, *self.label_columns, "seconds")
        names = [NETWORK, *(b.name for b in self.baselines)]
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
        dice = segmentation_dice(case.mask, case.reference, len(self.dice_columns) + 1)
        masks = dict(zip(self.dice_columns, dice, strict=True))
        self._store(case, outputs)
        self._record(batch, NETWORK, case, outputs, seconds, masks | self._of_labels(case, outputs))
        for baseline in self.baselines:
            if baseline.needs_entropy and case.entropy is None:
                continue
            started = time.perf_counter()
            prediction = baseline.predict(case)
            self._record(batch, baseline.name, case, prediction, time.perf_counter() - started, masks)

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
        self, batch: Any, method: str, case: JudgedCase, prediction: ErrorPrediction, seconds: float, dice: Any
    ) -> None:
        assert case.reference is not None
        row = judge(case, prediction) | dict.fromkeys(self.label_columns, float("nan")) | dice | {"seconds": seconds}
        by_structure = error_dice_by_structure(
            prediction.error_map, case.mask, case.reference, len(self.dice_columns) + 1
        )
        self.tables[method].update(
            batch["index"][0], row | dict(zip(self.structure_columns, by_structure, strict=True))
        )

    def _of_labels(self, case: JudgedCase, prediction: ErrorPrediction) -> dict[str, float]:
        """Expected Dice and Dice after correction, from a network with a label head."""
        if prediction.expected_dice is None or prediction.corrected is None:
            return {}
        assert case.reference is not None
        after = segmentation_dice(prediction.corrected, case.reference, len(self.dice_columns) + 1)
        values = [*prediction.expected_dice.tolist(), *after.tolist()]
        return dict(zip(self.label_columns, values, strict=True))

    def _store(self, case: JudgedCase, prediction: ErrorPrediction) -> None:
        probability = (prediction.probability * 255).round().to(torch.uint8).cpu().numpy()
        with atomic_path(self.dir / "masks" / case.case / f"{case.kind}.npz") as temporary:
            np.savez_compressed(
                temporary, error_probability=probability, error_map=prediction.error_map.cpu().numpy().astype(np.uint8)
            )

    def _row(self, method: str, case: str, kind: str, values: Mapping[str, float]) -> dict[str, Any]:
        constants = self.constant.parameters()
        identity = self.identity[case, kind]
        mean = {r: constants[f"acc_{r}"] for r in ("volume", "heart")}
        mean_kind = {r: constants.get(f"acc_{r}/{kind}", mean[r]) for r in mean}
        if method == self.constant.name:
            values = dict(values) | self.constant.quality()
        dice = (*self.dice_columns, *self.label_columns)
        first = ("error_dice", "error_auprc", "acc_volume", "qi_volume", "acc_heart", "qi_heart", *dice)
        row = {"case": case, "fold": identity["fold"], "mask_kind": kind, "method": method}
        row |= {k: values[k] for k in first} | {k: v for k, v in identity.items() if k != "fold"}
        row |= {k: v for k, v in values.items() if k not in first}
        row |= {f"constant_{r}": m for r, m in mean.items()}
        return row | {f"constant_{r}_kind": m for r, m in mean_kind.items()}
