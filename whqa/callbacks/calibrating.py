"""Calibration of stage two: after the training, two validation loops over training cases that the network has not seen.

The first fits the probabilities, the second, which needs them, the rule of correction.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from whqa.callbacks.fitting import fitting_items, sample_of
from whqa.callbacks.ranks import gather_by_index
from whqa.files import write_json
from whqa.judges.boosted_rate import BoostedRate
from whqa.judges.calibration import Calibration, MaskLogits, corrected_by, fit_stacked, read_calibration, stacked_logit
from whqa.judges.correction import RULES, MaskGains, harmless_rule, other_probabilities, true_gains
from whqa.judges.error_rate import RateModel
from whqa.judges.second_opinion import count_opinions, family_weights, opinion_rate
from whqa.judges.threshold_rule import ThresholdRule
from whqa.loading.datamodule import WholeHeartDataModule
from whqa.metrics.arrays import FloatArray, mean_defined
from whqa.metrics.segmentation import segmentation_dice
from whqa.modules.image_level import fit_image_level, image_level_truth
from whqa.quality import stratum
from whqa.results.held_back_gains import HELD_BACK_GAINS, write_gains

Rate = RateModel | BoostedRate | None
OPINION_SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Of the opinion's doubt in what is calibrated, see `fit_stacked`. The first is the network alone."""


class Calibrate(pl.Callback):
    """In validation loops of their own, after training: fits the calibration on the held-back training cases.

    Every family of masks (final, reference, corrupted, mixed, another program's ...) has the same weight, side outputs
    and early masks together one: what is judged in practice may be of any quality.

    What an opinion tells of error rates is learned twice. The run judges by what all training masks taught; stacking,
    slope, correction and validation.csv are fitted on the held-back cases and so use rates that have not seen these.

    Args:
        path: of calibration.json.
        rule: of the threshold.
        at_most: training masks on which the opinion's own error rates are fitted, see `count_opinions`.
        seed: of their draw.
        structures: keys in index order, for the table of what rules of correction would do to the held-back masks.
        counted: gets what was found of these masks, by (case, kind).
    """

    def __init__(
        self,
        path: Path,
        rule: ThresholdRule,
        at_most: int,
        seed: int,
        structures: Sequence[str],
        counted: dict[tuple[str, str], MaskLogits] | None = None,
    ) -> None:
        self.path = path
        self.rule = rule
        self.at_most = at_most
        self.seed = seed
        self.structures = tuple(structures)
        self.counted = counted
        self.logits: dict[int, dict[float, MaskLogits]] = {}
        self.gains: dict[int, tuple[str, FloatArray]] = {}
        self.whole: dict[int, tuple[FloatArray, FloatArray]] = {}
        self.fitted = False

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        """A test that no calibration went before takes up what an earlier one left."""
        if stage == "test" and not self.fitted and self.path.exists():
            remedy = f"rm {shlex.quote(str(self.path))}, and the same command fits it again"
            module.calibration = read_calibration(self.path, remedy)  # type: ignore[assignment]

    def on_validation_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Start afresh."""
        self.logits, self.gains, self.whole = {}, {}, {}

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Count one mask's logits; once these are calibrated, measure what correcting it would gain."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        index, case = int(batch["index"][0]), module.judged(batch)  # type: ignore[operator]
        if not self.fitted:
            logit = outputs.error_logit
            self.logits[index] = {
                x: MaskLogits.of(stacked_logit(logit, case, x, outputs.doubt), case) for x in _shares(module)
            }
            if outputs.image_level is not None:
                z = outputs.image_level.double().cpu().numpy()
                self.whole[index] = z, image_level_truth(case, len(z))
        elif outputs.label_logits is not None:
            assert case.reference is not None
            calibration: Calibration = module.calibration.of_held_back  # type: ignore[union-attr,assignment]
            probability = calibration.predict(outputs.error_logit, case, outputs.doubt).probability
            others = other_probabilities(outputs.label_logits, case.mask)
            dice = mean_defined(segmentation_dice(case.mask, case.reference, len(others)))
            quality = stratum(dice, bool(case.error.any()))
            self.gains[index] = quality, true_gains(probability, others, case.mask, case.reference, RULES)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Fit on the masks of all ranks, each once; keep the result beside the checkpoint."""
        if trainer.state.fn != TrainerFn.VALIDATING:
            return
        items, cases = trainer.datamodule.val_items, trainer.datamodule.cases  # type: ignore[attr-defined]
        if not self.fitted:
            logits = gather_by_index(self.logits)
            weights = family_weights([items[i][1] for i in sorted(logits)])
            known = (
                {share: [logits[i][share] for i in sorted(logits)] for share in logits[min(logits)]} if logits else {}
            )
            rate, held_back = self._rates(trainer.datamodule, module) if module.hears_opinion else (None, None)  # type: ignore[attr-defined]
            patients = [cases[items[i][0]].patient for i in sorted(logits)]
            calibration = fit_stacked(known, weights, patients, self.rule, held_back)
            if held_back is not None:
                calibration = replace(calibration, rate=rate, held_back=held_back)
            whole = gather_by_index(self.whole)
            if whole:
                z, truth = zip(*(whole[i] for i in sorted(whole)), strict=True)
                calibration = replace(calibration, image_level=fit_image_level(z, truth, weights))
            self.fitted = True
        else:
            gains = gather_by_index(self.gains)
            weights = family_weights([items[i][1] for i in sorted(gains)])
            masks = [MaskGains(items[i][0], cases[items[i][0]].patient, items[i][1], *gains[i]) for i in sorted(gains)]
            calibration = corrected_by(module.calibration, harmless_rule(masks, weights))  # type: ignore[arg-type]
            if trainer.is_global_zero:
                write_gains(self.path.with_name(HELD_BACK_GAINS), masks, self.structures)
        module.calibration = calibration  # type: ignore[assignment]
        if trainer.is_global_zero:
            write_json(self.path, calibration.to_dict())

    def _rates(self, data: WholeHeartDataModule, module: pl.LightningModule) -> tuple[Rate, Rate]:
        """On a sample of all training masks, the same on all processes: of all, and without the held-back cases."""
        sample = sample_of(fitting_items(data), self.at_most, self.seed)
        found = count_opinions(map(module.heard, data.judged(sample, {module.opinion})))  # type: ignore[arg-type]
        if self.counted is not None:
            self.counted |= found
        held_back = {case for case, _ in data.val_items}
        return opinion_rate(found), opinion_rate({at: m for at, m in found.items() if at[0] not in held_back})


def _shares(module: pl.LightningModule) -> tuple[float, ...]:
    """Of `OPINION_SHARES` those that there can be."""
    return OPINION_SHARES if module.hears_opinion else OPINION_SHARES[:1]
