"""One stage of one fold through Hydra: `whqa train experiment=demo stage=segmenter fold=0`.

Reading guide: `main` checks the words, `run` turns a configuration into objects, `whqa.stages` does the work with them.
A run directory is finished when it holds COMPLETED; without it, the same command resumes from the last checkpoint.

    python -m whqa.train experiment=demo stage=segmenter fold=0
    python -m whqa.train experiment=demo stage=errormap fold=0           # after the segmenters of its mask plan
    python -m whqa.train -m experiment=demo stage=segmenter fold=0,1,2 segmenter.learning_rate=1e-3,2e-3
    python -m whqa.train experiment=demo stage=errormap fold=0 fit=false # test again from the checkpoint
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from whqa.callbacks.history import CsvHistory
from whqa.callbacks.tracking import finished_run
from whqa.config.instantiate import config_dir, differences, make, of_run
from whqa.config.run_name import run_name
from whqa.config.words import check_overrides, external_settings
from whqa.console import plain_messages
from whqa.data.cache import Cache
from whqa.data.case import Cohort
from whqa.data.folds import Folds, load_or_make_folds, make_folds
from whqa.data.prepare import prepare_cohort
from whqa.data.preprocess import Preprocess
from whqa.data.sources.checks import checked
from whqa.errors import InputError
from whqa.files import write_text
from whqa.loading.datamodule import WholeHeartDataModule
from whqa.loading.patches import Augmentation
from whqa.masks.external import ExternalMethod, refuse_bare, refuse_seen
from whqa.masks.importing import Imported, import_masks, record_masks, refuse_other_masks
from whqa.masks.plan import ChosenKinds, MaskPlan, SegmenterJob, choose_kinds, fold_name, parse_fold
from whqa.masks.store import COMPLETED, MaskItem, collect_masks
from whqa.modules.errormap import ErrorMapModule, out_channels
from whqa.modules.segmenter import SegmenterModule
from whqa.process import follow_parent, is_first_rank, locked
from whqa.stages import Study, run_errormap, run_segmenter

OPTIMISER_KEYS = ("learning_rate", "weight_decay", "warmup", "channels_last", "max_voxels")
# Settings of Lightning's trainer that leave out training or cases: such a run is never stamped as complete.
SHORTENING_KEYS = (
    *("fast_dev_run", "overfit_batches", "max_steps", "max_time"),
    *("limit_train_batches", "limit_val_batches", "limit_test_batches"),
)
LOADER_KEYS = ("patch", "batch_size", "steps_per_epoch", "foreground", "validation_fraction", "num_workers")


def run(cfg: DictConfig, run_dir: Path) -> None:
    """Run the configured stage of the configured fold in `run_dir`.

    Raises:
        InputError: bad data, a missing predecessor, or a directory that holds a run with other settings.
    """
    refuse_other_settings(cfg, run_dir)
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    if (run_dir / COMPLETED).exists() and cfg.fit:
        print(f"{run_dir} is complete; nothing to do (remove {run_dir / COMPLETED} to run it again)")
        return
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    study = make_study(cfg, run_dir.parent.parent)
    with finished_run():
        if cfg.stage == "segmenter":
            _segmenter(cfg, study, run_dir)
        else:
            _errormap(cfg, study, run_dir)
    shortened = [key for key in SHORTENING_KEYS if cfg.trainer.get(key)]
    if not shortened:
        _complete(run_dir)
    elif is_first_rank():
        print(f"{run_dir}: no result, trainer.{shortened[0]} cut the run short")


def make_study(cfg: DictConfig, experiment_dir: Path, jobs: int = 1) -> Study:
    """Cohort, folds, plan and cache of an experiment; what is missing on disk is made, in `jobs` processes.

    Raises:
        InputError: the data are missing or wrong, or the directory belongs to another study.
    """
    plan = MaskPlan(cfg.masks.plan, cfg.folds)
    cohort: Cohort = checked(make(cfg.data)).labelled
    make_folds(cohort, cfg.folds, cfg.seed)  # too few patients show before all scans are read
    settings = Preprocess(**_plain(cfg.preprocess))
    # folds are written last: a bad scan that is taken out must not leave folds that name it
    cases = prepare_cohort(cohort, Cache(Path(cfg.cache_dir), settings), jobs=jobs)
    folds = load_or_make_folds(experiment_dir / "folds.json", cohort, cfg.folds, cfg.seed, plan.name)
    return Study(experiment_dir, cohort, folds, plan, cases)


def _segmenter(cfg: DictConfig, study: Study, run_dir: Path) -> None:
    options = cfg.segmenter
    held_out = _held_out(cfg.fold, study.folds)
    jobs = {job.held_out: job for job in study.plan.segmenters}
    if held_out not in jobs:
        names = ", ".join(job.name for job in study.plan.segmenters)
        raise InputError(f"fold={cfg.fold}: mask plan {study.plan.name!r} has the segmenters {names}")
    job: SegmenterJob = jobs[held_out]
    n_classes = study.cohort.scheme.n_classes
    network = make(cfg.network, in_channels=1, out_channels=n_classes)
    module = SegmenterModule(network, total_steps=options.steps, **_pick(options, OPTIMISER_KEYS))
    data = _data_module(cfg, study, held_out, test_folds=job.masks_of)
    run_segmenter(
        study,
        job,
        module,
        data,
        _trainer(cfg, run_dir),
        run_dir,
        early=options.early,
        freeze_norm=options.freeze_norm,
        seed=cfg.seed,
        fit=cfg.fit,
    )


def _errormap(cfg: DictConfig, study: Study, run_dir: Path) -> None:
    options = cfg.errormap
    (fold,) = _single_fold(cfg.fold, study.folds)
    imported = import_external(cfg, study)
    refuse_other_masks(run_dir, imported)
    masks = _masks(cfg, study, fold, imported)
    record_masks(run_dir, imported)
    n_classes = study.cohort.scheme.n_classes
    head = str(options.head)
    network = make(cfg.network, in_channels=1 + n_classes, out_channels=out_channels(head, n_classes))
    module = ErrorMapModule(
        network,
        n_classes=n_classes,
        head=head,
        label_weight=options.label_weight,
        total_steps=options.steps,
        dice_weight=options.dice_weight,
        positive_weight=options.positive_weight,
        **_pick(options, OPTIMISER_KEYS),
    )
    data = _data_module(cfg, study, (fold,), masks=masks, balance=options.balance)
    run_errormap(
        study,
        fold,
        module,
        data,
        _trainer(cfg, run_dir),
        run_dir,
        masks=masks,
        baselines=list(options.baselines),
        baseline_masks=options.baseline_masks,
        overlays=options.overlays,
        rule=options.threshold,
        freeze_norm=options.freeze_norm,
        seed=cfg.seed,
        fit=cfg.fit,
    )


def chosen_kinds(cfg: DictConfig) -> tuple[ChosenKinds, list[ExternalMethod]]:
    """Which masks the experiment judges, and the programs among them.

    Raises:
        InputError: a kind or a program's name or settings are not valid, or the mask plan forbids its masks.
    """
    methods = [ExternalMethod(name, **vars(settings)) for name, settings in external_settings(cfg.masks).items()]
    chosen = choose_kinds(cfg.masks.kinds, [method.name for method in methods])
    methods = [method for method in methods if method.name in chosen.external]
    refuse_seen(methods, MaskPlan(cfg.masks.plan, cfg.folds))
    return chosen, methods


def import_external(cfg: DictConfig, study: Study, jobs: int = 1) -> list[Imported]:
    """Masks of all programs that the experiment judges, on the cache grid; what is missing is made in `jobs` processes.

    Raises:
        InputError: see `chosen_kinds` and `whqa.masks.importing.import_masks`.
    """
    _, methods = chosen_kinds(cfg)
    return [import_masks(m, study.directory, study.cohort, study.folds, study.cases, jobs) for m in methods]


def _masks(cfg: DictConfig, study: Study, fold: int, imported: Sequence[Imported]) -> list[MaskItem]:
    chosen, _ = chosen_kinds(cfg)
    masks = [item for one in imported for item in one.items]
    if chosen.needs_segmenters:
        _refuse_other_segmenters(cfg, study, fold)
        return collect_masks(study.directory, study.plan, study.folds, fold, chosen.own) + masks
    refuse_bare(masks, study.folds)
    return masks


def _held_out(name: str, folds: Folds) -> tuple[int, ...]:
    held_out = parse_fold(name, folds.n)
    if name != fold_name(held_out):
        raise InputError(f"fold={name}: write fold={fold_name(held_out)}, which also names the run's directory")
    return held_out


def _single_fold(name: str, folds: Folds) -> tuple[int]:
    held_out = _held_out(name, folds)
    if len(held_out) != 1:
        raise InputError(f"fold={name}: the error-map network is tested on one fold, 0..{folds.n - 1}")
    return (held_out[0],)


def _data_module(cfg: DictConfig, study: Study, held_out: tuple[int, ...], **kwargs: Any) -> WholeHeartDataModule:
    options = cfg[str(cfg.stage)]
    return WholeHeartDataModule(
        study.cases,
        study.folds,
        held_out,
        augmentation=Augmentation(**_plain(cfg.augmentation)),
        seed=cfg.seed,
        **_pick(options, LOADER_KEYS),
        **kwargs,
    )


def _trainer(cfg: DictConfig, run_dir: Path) -> pl.Trainer:
    options = cfg[str(cfg.stage)]
    if options.steps % options.steps_per_epoch:
        raise InputError(
            f"{cfg.stage}.steps={options.steps} is not a multiple of {cfg.stage}.steps_per_epoch="
            f"{options.steps_per_epoch}; a run is saved and resumed between epochs"
        )
    places = {"checkpoint": {"dirpath": str(run_dir / "checkpoints")}}
    loggers = [CsvHistory(run_dir / "metrics.csv")]
    loggers += [make(c, run_dir=str(run_dir), stage=str(cfg.stage)) for c in cfg.logger.values()]
    return make(
        cfg.trainer,
        max_epochs=options.steps // options.steps_per_epoch,
        check_val_every_n_epoch=options.validate_every,
        default_root_dir=str(run_dir),
        use_distributed_sampler=True,
        callbacks=[make(c, **places.get(name, {})) for name, c in cfg.callbacks.items()],
        logger=loggers,
    )


def refuse_other_settings(cfg: DictConfig, run_dir: Path) -> None:
    """Compare the configuration with that of the run which the directory holds, if it holds one.

    Raises:
        InputError: they differ in what decides the result.
    """
    saved = run_dir / "config.yaml"
    if saved.exists() and ((run_dir / "checkpoints").exists() or (run_dir / COMPLETED).exists()):
        changed = differences(OmegaConf.load(saved), cfg)  # type: ignore[arg-type]
        if changed:
            raise InputError(
                f"{run_dir}: holds a run with other settings ({', '.join(changed[:5])}); "
                "choose another name=..., or remove the directory"
            )


def _refuse_other_segmenters(cfg: DictConfig, study: Study, fold: int) -> None:
    for name in study.plan.needed_by(fold):
        refuse_other_settings(of_run(cfg, "segmenter", name), study.directory / "segmenter" / name)


def _complete(run_dir: Path) -> None:
    if is_first_rank():
        write_text(run_dir / COMPLETED, "")
        print(f"done: {run_dir}")


def _pick(options: DictConfig, keys: tuple[str, ...]) -> dict[str, Any]:
    plain = _plain(options)
    return {k: plain[k] for k in keys}


def _plain(config: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}


def run_dir_of(cfg: DictConfig, overrides: list[str]) -> Path:
    """runs/<experiment>/<stage>/<fold>, the same directory that Hydra makes."""
    return Path(cfg.runs_dir) / run_name(cfg.name, overrides) / str(cfg.stage) / cfg.fold


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
def _job(cfg: DictConfig) -> None:
    context = HydraConfig.get()
    try:
        _guard_sweep(cfg, context)
        run_dir = run_dir_of(cfg, list(context.overrides.task))
        with locked(run_dir):
            run(cfg, run_dir)
    except InputError as error:
        print(f"whqa train: {error}", file=sys.stderr)
        sys.exit(2)


def _guard_sweep(cfg: DictConfig, context: Mapping[str, Any]) -> None:
    devices = cfg.trainer.get("devices", 1)
    several = len(devices) > 1 if isinstance(devices, ListConfig) else str(devices) != "1"
    strategy = str(cfg.trainer.get("strategy") or ("ddp" if several else "auto"))  # as Lightning chooses
    launched = any(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "SLURM_NTASKS"))
    if context["mode"] == RunMode.MULTIRUN and strategy.startswith("ddp") and "spawn" not in strategy and not launched:
        raise InputError(
            "a sweep (-m) with trainer.strategy=ddp would start the whole sweep once a process; use "
            "`torchrun --nproc-per-node=N -m whqa.train -m ...`, or `whqa cv`, which starts one run at a time"
        )


def main() -> None:
    """Entry point of `whqa train` and `python -m whqa.train`."""
    plain_messages()
    try:
        check_overrides(sys.argv[1:])
    except InputError as error:
        print(f"whqa train: {error}", file=sys.stderr)
        sys.exit(2)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    follow_parent()
    _job()


if __name__ == "__main__":
    main()
