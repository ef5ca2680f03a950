"""The two stages of an experiment, on objects: fit or resume, then test, which writes what the next stage needs.

All callbacks of a run are made before its trainer and given to it; what must be fitted is fitted in its own hook.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from whqa.callbacks.calibrating import Calibrate
from whqa.callbacks.fitting import FitBaselines
from whqa.callbacks.judging import JudgeMasks
from whqa.callbacks.monitoring import MonitorErrorMap, MonitorSegmentation
from whqa.callbacks.overlays import Overlays
from whqa.callbacks.phases import SECONDS, ClockPhases
from whqa.callbacks.recording import RecordFeatures
from whqa.callbacks.shuffled import Shuffled
from whqa.callbacks.storing import StoreMasks
from whqa.callbacks.tracking import TrackRun
from whqa.callbacks.training import FreezeNorm, KeepEarlyWeights, ProgressFile, RefuseDivergence, SeedSteps
from whqa.callbacks.validating import RecordValidation, final_mask_row, verdict_row
from whqa.errors import InputError
from whqa.files import write_json
from whqa.judges.baseline import Baseline
from whqa.judges.calibration import CALIBRATION, Calibration
from whqa.judges.second_opinion import counts_of
from whqa.judges.threshold_rule import ThresholdRule
from whqa.loading.augmentation import Augmentation
from whqa.loading.datamodule import Item, WholeHeartDataModule
from whqa.masks.plan import SegmenterJob
from whqa.masks.run_state import EARLY_WEIGHTS, LAST_CHECKPOINT
from whqa.masks.store import MaskItem
from whqa.modules.lightning import ErrorMapTraining, SegmenterTraining
from whqa.modules.weights import read_weights
from whqa.study import Study


@dataclass(frozen=True)
class StageRun:
    """One stage of one fold as objects; `directory` is runs/<experiment>/<stage>/<fold>."""

    directory: Path
    module: SegmenterTraining | ErrorMapTraining
    data: WholeHeartDataModule
    trainer: pl.Trainer


@dataclass(frozen=True)
class Judging:
    """How the masks of a test fold are judged.

    Attributes:
        baselines: not fitted yet, see `whqa.judges.make_baselines`.
        baseline_masks: how many training masks at most each is fitted on, but for the constant.
        rule: how the error map follows from the network's probabilities.
        overlays: number of cases with pictures.
        seed: of the draw of training masks.
        shuffled: inputs to exchange between patients, see `whqa.callbacks.shuffled`.
    """

    baselines: Sequence[Baseline]
    baseline_masks: int
    rule: ThresholdRule
    overlays: int
    seed: int
    shuffled: Sequence[Shuffled] = ()


def training_callbacks(run_dir: Path, total_steps: int, freeze_norm: float, seed: int) -> list[pl.Callback]:
    """What both stages need while they train."""
    return [
        ClockPhases(run_dir / SECONDS),
        SeedSteps(seed),
        FreezeNorm(freeze_norm, total_steps),
        RefuseDivergence(),
        ProgressFile(run_dir / "progress.json"),
    ]


def segmenter_callbacks(
    study: Study, job: SegmenterJob, run_dir: Path, early_step: int, seed: int, augmentation: Augmentation
) -> list[pl.Callback]:
    """Of stage one: monitoring, weights for early masks (after `early_step` optimiser steps), the store of masks."""
    structures = study.cohort.scheme.keys
    seen = frozenset(study.folds.without(job.held_out))
    patient_of, fold_of = study.patient_of, study.fold_of

    def identity(item: Item) -> dict[str, Any]:
        case, _ = item
        about = {"fold": fold_of[case], "patient": patient_of[case], "segmenter": run_dir.name}
        return {"case": case, "mask_kind": "final"} | about

    return [
        KeepEarlyWeights(early_step, run_dir / EARLY_WEIGHTS),
        MonitorSegmentation(structures),
        RecordValidation(run_dir, identity, final_mask_row(structures)),
        StoreMasks(run_dir, structures, fold_of, patient_of, seen, seed, augmentation),
        TrackRun(run_dir, study.cohort.scheme),
    ]


def errormap_callbacks(
    study: Study, masks: Sequence[MaskItem], run_dir: Path, judging: Judging, heard: str
) -> list[pl.Callback]:
    """Of stage two: monitoring, calibration, baselines, the table of all methods, features, pictures.

    Args:
        heard: name of the opinion that the network learns from, see `whqa.quality.JudgedCase`.
    """
    scheme, identity = study.cohort.scheme, _identities(study, masks)
    # both hear the same opinion on the same draw of masks
    counted = counts_of(judging.baselines, heard)

    def validated(item: Item) -> dict[str, Any]:
        case, kind = item
        about = {key: identity[item][key] for key in ("fold", "patient", "segmenter")}
        return {"case": case, "mask_kind": kind} | about

    return [
        MonitorErrorMap(),
        Calibrate(run_dir / CALIBRATION, judging.rule, judging.baseline_masks, judging.seed, scheme.keys, counted),
        FitBaselines(run_dir / "baselines.json", judging.baselines, judging.baseline_masks, judging.seed),
        TrackRun(run_dir, scheme),
        RecordValidation(run_dir, validated, verdict_row),
        JudgeMasks(run_dir, judging.baselines, scheme.keys, identity, judging.shuffled),
        RecordFeatures(run_dir, scheme.keys, identity),
        Overlays(run_dir / "figures", scheme, judging.overlays),
    ]


def run_segmenter(run: StageRun, fit: bool = True) -> None:
    """Train one segmenter, then write masks of all kinds of the cases that the plan wants from it.

    Raises:
        InputError: the training diverged, or without `fit` there is no checkpoint.
    """
    _fit_or_load(run, fit)
    run.trainer.test(run.module, datamodule=run.data, verbose=False)


def run_errormap(run: StageRun, fit: bool = True) -> None:
    """Train the error-map network of one test fold, calibrate it, then judge the fold's masks with every method.

    Raises:
        InputError: the training diverged, or without `fit` there is no checkpoint.
    """
    _fit_or_load(run, fit)
    if run.data.val_items and (fit or not (run.directory / CALIBRATION).exists()):
        # probabilities first, then the rule of correction, which needs them
        for _ in range(2 if run.module.corrects else 1):
            run.trainer.validate(run.module, datamodule=run.data, verbose=False)
    elif not run.data.val_items and run.trainer.is_global_zero:
        print(f"{run.directory}: not calibrated, errormap.validation_fraction=0 holds no training case back")
        # the numbers that it judges with
        write_json(run.directory / CALIBRATION, Calibration().to_dict())
    run.trainer.test(run.module, datamodule=run.data, verbose=False)


def _fit_or_load(run: StageRun, fit: bool) -> None:
    last = run.directory / LAST_CHECKPOINT
    saved = _read_checkpoint(last) if last.exists() else None
    if fit:
        with warnings.catch_warnings():
            # resuming is what the directory is for
            warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")
            # nor does it matter where the directory was when the run stopped
            warnings.filterwarnings("ignore", r"The dirpath has changed")
            run.trainer.fit(run.module, datamodule=run.data, ckpt_path=str(last) if saved else None)
        return
    if saved is None:
        raise InputError(f"{last}: no such checkpoint; fit=false tests a trained run, leave it out to train one")
    run.module.load_state_dict(saved["state_dict"])
    # what is logged now belongs to the step of these weights; at step 0 it would hide the training's log
    run.trainer.fit_loop.load_state_dict(saved["loops"]["fit_loop"])
    run.trainer.fit_loop.epoch_progress.increment_completed()  # the checkpoint is written just before


def _read_checkpoint(path: Path) -> dict[str, Any]:
    remedy = f"rm {shlex.quote(str(path))}, and the run starts afresh"
    return read_weights(path, remedy, "state_dict", "loops", "optimizer_states", "lr_schedulers")


def _identities(study: Study, masks: Sequence[MaskItem]) -> Mapping[tuple[str, str], dict[str, Any]]:
    patient_of = study.patient_of
    return {
        (m.case, m.kind): {
            "fold": study.folds.fold_of(m.case),
            "patient": patient_of[m.case],
            "modality": study.cohort[m.case].modality,
            "segmenter": m.segmenter,
        }
        for m in masks
    }
