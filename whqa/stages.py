"""The two stages of an experiment, on objects: fit or resume, then test, which writes what the next stage needs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from whqa.callbacks.judging import Calibrate, JudgeMasks, MonitorErrorMap
from whqa.callbacks.masks import MonitorSegmentation, StoreMasks
from whqa.callbacks.overlays import Overlays
from whqa.callbacks.recording import RecordFeatures
from whqa.callbacks.tracking import TrackRun
from whqa.callbacks.training import FreezeNorm, KeepEarlyWeights, ProgressFile, RefuseDivergence, SeedSteps
from whqa.data.cache import PreparedCase
from whqa.data.case import Cohort
from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.files import read_json, write_json
from whqa.judges.baseline import Baseline
from whqa.judges.calibration import Calibration, Rule
from whqa.judges.constant import Constant
from whqa.judges.registry import BASELINES
from whqa.loading.datamodule import WholeHeartDataModule
from whqa.masks.plan import MaskPlan, SegmenterJob
from whqa.masks.store import MaskItem
from whqa.modules.errormap import ErrorMapModule
from whqa.modules.segmenter import SegmenterModule


@dataclass(frozen=True)
class Study:
    """What all runs of one experiment share: `directory` is runs/<experiment>, `cases` lie in the cache."""

    directory: Path
    cohort: Cohort
    folds: Folds
    plan: MaskPlan
    cases: Mapping[str, PreparedCase]


def run_segmenter(
    study: Study,
    job: SegmenterJob,
    module: SegmenterModule,
    data: WholeHeartDataModule,
    trainer: pl.Trainer,
    run_dir: Path,
    *,
    early: float,
    freeze_norm: float,
    seed: int,
    fit: bool = True,
) -> None:
    """Train one segmenter, then write masks of all kinds of the cases that the plan wants from it."""
    structures = study.cohort.scheme.keys
    early_path = run_dir / "checkpoints" / "early.pt"
    seen = frozenset(study.folds.without(job.held_out))
    _add_callbacks(
        trainer,
        *_training_callbacks(module.total_steps, run_dir, freeze_norm, seed),
        KeepEarlyWeights(max(1, round(early * module.total_steps)), early_path),
        MonitorSegmentation(structures),
        StoreMasks(run_dir, structures, _fold_of(study), _patient_of(study), seen),
        TrackRun(run_dir, study.cohort.scheme),
    )
    _fit(trainer, module, data, run_dir, fit)
    if early_path.exists():
        module.early_weights = torch.load(early_path, map_location="cpu", weights_only=True)
    trainer.test(module, datamodule=data, verbose=False)


def run_errormap(
    study: Study,
    fold: int,
    module: ErrorMapModule,
    data: WholeHeartDataModule,
    trainer: pl.Trainer,
    run_dir: Path,
    *,
    masks: Sequence[MaskItem],
    baselines: Sequence[str],
    baseline_masks: int,
    overlays: int,
    rule: Rule,
    freeze_norm: float,
    seed: int,
    fit: bool = True,
) -> None:
    """Train the error-map network of one test fold, calibrate it, then judge the fold's masks with every method."""
    unknown = sorted(set(baselines) - set(BASELINES))
    if unknown:
        raise InputError(f"errormap.baselines: no baseline {unknown[0]!r}; there are {', '.join(sorted(BASELINES))}")
    calibration = run_dir / "calibration.json"
    _add_callbacks(
        trainer,
        *_training_callbacks(module.total_steps, run_dir, freeze_norm, seed),
        MonitorErrorMap(),
        Calibrate(calibration, rule),
        TrackRun(run_dir, study.cohort.scheme),
    )
    _fit(trainer, module, data, run_dir, fit)
    if not fit and calibration.exists():
        module.calibration = Calibration(**read_json(calibration))
    elif data.val_items:
        trainer.validate(module, datamodule=data, verbose=False)
    judges = _fit_baselines(baselines, data, baseline_masks, seed)
    if trainer.is_global_zero:
        write_json(run_dir / "baselines.json", {b.name: b.parameters() for b in judges})
    constant = next(b for b in judges if isinstance(b, Constant))
    identity = _identities(study, masks)
    _add_callbacks(
        trainer,
        JudgeMasks(run_dir, judges, constant, study.cohort.scheme.keys, identity),
        RecordFeatures(run_dir, study.cohort.scheme.keys, identity),
        Overlays(run_dir / "figures", study.cohort.scheme, overlays),
    )
    trainer.test(module, datamodule=data, verbose=False)


def _fit(trainer: pl.Trainer, module: pl.LightningModule, data: WholeHeartDataModule, run_dir: Path, fit: bool) -> None:
    last = run_dir / "checkpoints" / "last.ckpt"
    if fit:
        with warnings.catch_warnings():
            # resuming is what the directory is for
            warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty")
            trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.exists() else None)
        return
    if not last.exists():
        raise InputError(f"{last}: no such checkpoint; fit=false tests a trained run, leave it out to train one")
    saved = torch.load(last, map_location="cpu", weights_only=True)
    module.load_state_dict(saved["state_dict"])
    # what is logged now belongs to the step of these weights; at step 0 it would hide the training's log
    trainer.fit_loop.load_state_dict(saved["loops"]["fit_loop"])
    trainer.fit_loop.epoch_progress.increment_completed()  # the checkpoint is written just before


def _training_callbacks(total_steps: int, run_dir: Path, freeze_norm: float, seed: int) -> list[pl.Callback]:
    return [
        SeedSteps(seed),
        FreezeNorm(freeze_norm, total_steps),
        RefuseDivergence(),
        ProgressFile(run_dir / "progress.json"),
    ]


def _add_callbacks(trainer: pl.Trainer, *callbacks: pl.Callback) -> None:
    # the checkpoint callback stays last, as Lightning orders it, so that it sees what the others logged
    checkpoints = [c for c in trainer.callbacks if isinstance(c, pl.callbacks.Checkpoint)]  # type: ignore[attr-defined]
    others = [c for c in trainer.callbacks if c not in checkpoints]  # type: ignore[attr-defined]
    trainer.callbacks = [*others, *callbacks, *checkpoints]  # type: ignore[attr-defined]


def _fit_baselines(names: Sequence[str], data: WholeHeartDataModule, at_most: int, seed: int) -> list[Baseline]:
    """The constant is the mean over all training masks; the others, which read their masks many times, get a sample.

    A baseline that needs the segmenter's entropy is left out where no training mask has it.
    """
    items = [*data.train_items, *data.val_items]
    order = np.random.default_rng(seed).permutation(len(items))
    judges = []
    for judge in (BASELINES[name]() for name in dict.fromkeys([Constant.name, *names])):
        fit = [i for i in order if not judge.needs_entropy or data.has_entropy(items[i])]
        if fit or not judge.needs_entropy:
            sample = items if isinstance(judge, Constant) else [items[i] for i in sorted(fit[:at_most])]
            judge.fit(partial(data.judged, sample))
            judges.append(judge)
    return judges


def _identities(study: Study, masks: Sequence[MaskItem]) -> dict[tuple[str, str], dict[str, Any]]:
    patients = _patient_of(study)
    return {
        (m.case, m.kind): {
            "fold": study.folds.fold_of(m.case),
            "patient": patients[m.case],
            "modality": study.cohort[m.case].modality,
            "segmenter": m.segmenter,
        }
        for m in masks
    }


def _fold_of(study: Study) -> dict[str, int]:
    return {case: fold for fold, cases in enumerate(study.folds.folds) for case in cases}


def _patient_of(study: Study) -> dict[str, str]:
    return {case.id: case.patient for case in study.cohort.cases}
