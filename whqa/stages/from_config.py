"""A stage of a fold from its configuration: here settings become network, data, callbacks and trainer."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from whqa.callbacks.fitting import fitting_items
from whqa.callbacks.history import CsvHistory
from whqa.callbacks.shuffled import make_shuffled
from whqa.callbacks.wandb_run import finished_run
from whqa.config.instantiate import make, of_run, plain
from whqa.config.run_config import CONFIG, refuse_other_settings
from whqa.config.schema import Stage
from whqa.errors import InputError
from whqa.files import write_text
from whqa.judges.registry import make_baselines
from whqa.loading.augmentation import Augmentation
from whqa.loading.datamodule import WholeHeartDataModule
from whqa.loading.patch_settings import Dropout, PatchSettings
from whqa.masks.external import refuse_bare
from whqa.masks.importing import Imported
from whqa.masks.made_from import MadeFrom, refuse_other_masks, segmenter_masks, write_made_from
from whqa.masks.opinion import collect_ensembles, collect_opinions, collect_tta
from whqa.masks.plan import steps_from_pair
from whqa.masks.run_state import COMPLETED, LAST_CHECKPOINT, is_complete, made_anew, refuse_damaged, stamp
from whqa.masks.store import MaskItem, collect_masks
from whqa.modules.errormap import in_channels, joins_mask, mask_channels, out_channels
from whqa.modules.lightning import ErrorMapTraining, SegmenterTraining
from whqa.modules.training_settings import ErrorMapSettings, Input, OptimiserSettings
from whqa.modules.warm_start import start_from
from whqa.modules.weights import read_weights
from whqa.process import is_first_rank, keep_memory
from whqa.results.validation_table import VALIDATION, validated
from whqa.stages.fold_word import refuse_no_such_run, segmenter_job, tested_fold
from whqa.stages.foreseen import inputs_heard, refuse_masks
from whqa.stages.heard_opinions import heard_together, hears_views, told_opinions
from whqa.stages.pair_start import network_weights, pairs_weights, refuse_pairs
from whqa.stages.processes import cluster_environment, lead_processes
from whqa.stages.run_record import record_attempt
from whqa.stages.running import (
    Judging,
    StageRun,
    errormap_callbacks,
    run_errormap,
    run_segmenter,
    segmenter_callbacks,
    training_callbacks,
)
from whqa.stages.troubles import troubles_explained
from whqa.study import Study, chosen_kinds, import_external, make_study, masks_now

# Settings of Lightning's trainer that leave out training or cases: such a run is never stamped as complete.
SHORTENING_KEYS = {
    **dict.fromkeys(("fast_dev_run", "overfit_batches"), (None, False, 0, 0.0)),
    **dict.fromkeys(("max_steps", "max_time"), (None, -1)),
    **dict.fromkeys(("limit_train_batches", "limit_val_batches", "limit_test_batches"), (None, 1.0)),
}
"""And the values that leave nothing out: 1.0 is all batches, 1 a single one."""
METRICS = "metrics.csv"
# A trainer that every machine can make, whatever devices it has.
_ANYWHERE = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "precision": "32-true"}


def run_stage(cfg: DictConfig, run_dir: Path) -> float | None:
    """Run the configured stage of the configured fold in `run_dir`.

    Returns:
        What a sweeper may maximise: `whqa.results.validation_table.validated` of held-back training cases, never a
        number of the test fold. None without any.

    Raises:
        InputError: bad data, a missing predecessor, or a directory with a run of other settings or data.
    """
    keep_memory()
    if is_first_rank():
        refuse_damaged([run_dir], trained_only=not cfg.fit)
    refuse_other_settings(cfg, run_dir)
    refuse_unmakeable(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    study = make_study(cfg, run_dir.parent.parent)
    imported = import_external(cfg, study) if cfg.stage == Stage.errormap else []
    refuse_other_masks([run_dir], masks_now(study, imported))
    if is_complete(run_dir) and cfg.fit:
        print(f"{run_dir} is complete; nothing to do (remove {run_dir / COMPLETED} to run it again)")
        return _validated(cfg, run_dir)
    if is_first_rank():
        # what is about to be written again is not complete
        (run_dir / COMPLETED).unlink(missing_ok=True)
        write_text(run_dir / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))
        record_attempt(run_dir, _words(), cfg.seed, study.made_from)
    # stamped before W&B uploads what is left
    with finished_run():
        with troubles_explained(run_dir):
            if cfg.stage == Stage.segmenter:
                run = make_segmenter(cfg, study, run_dir)
                run_segmenter(run, cfg.fit)
            else:
                run = make_errormap(cfg, study, run_dir, imported)
                run_errormap(run, cfg.fit)
        if is_first_rank():
            _stamp(cfg, run_dir, run.module.total_steps)
    return _validated(cfg, run_dir)


def _words() -> list[str] | None:
    """Of the command that Hydra runs, with the folder of the user's own groups."""
    if not HydraConfig.initialized():
        return None
    given = HydraConfig.get().overrides
    return [*given.task, *(word for word in given.hydra if word.startswith("hydra.searchpath="))]


def _validated(cfg: DictConfig, run_dir: Path) -> float | None:
    found = validated([run_dir])
    if found is None and HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        print(
            f"{run_dir}: no {VALIDATION} to compare the runs of a sweep by; set {cfg.stage}.validation_fraction above 0"
        )
    return found


def refuse_unmakeable(cfg: DictConfig, trained_here: bool = True) -> None:
    """Make network, trainer and baselines once without a use for them: what is wrong shows before any scan is read.

    Args:
        trained_here: this machine must have the devices that the trainer asks for.

    Raises:
        InputError: one of them cannot be made of its settings, there is no such fold, or a training does
            not end with an epoch.
    """
    refuse_masks(cfg)
    refuse_no_such_run(cfg)
    for stage, options in ((stage, cfg[stage]) for stage in Stage):
        epochs, rest = divmod(options.steps, options.steps_per_epoch)
        if rest:
            raise InputError(
                f"{stage}.steps={options.steps} is not a multiple of {stage}.steps_per_epoch="
                f"{options.steps_per_epoch}; a run is saved and resumed between epochs"
            )
        every = OmegaConf.select(cfg, "callbacks.checkpoint.every_n_epochs") or 1
        if epochs % every:
            raise InputError(
                f"callbacks.checkpoint.every_n_epochs={every}: the last of {stage}'s {epochs} epochs would not be "
                "kept; leave it out"
            )
    # no memory, whatever the width
    with torch.device("meta"):
        network = make(cfg.network, in_channels=1, out_channels=2)
    _refuse_foreign(cfg, network)
    _refuse_seen_start(cfg)
    refuse_pairs(cfg)
    make_baselines(cfg.errormap.baselines, ())
    make_shuffled(cfg.errormap.shuffled)
    deterministic = torch.are_deterministic_algorithms_enabled()
    here = {} if trained_here else _ANYWHERE
    make(cfg.trainer, logger=False, enable_checkpointing=False, plugins=cluster_environment() or None, **here)
    torch.use_deterministic_algorithms(deterministic)


def _refuse_foreign(cfg: DictConfig, network: torch.nn.Module) -> None:
    """What both stages ask of a network, see docs/howto/add_network.md."""
    target = cfg.network._target_
    lacking = [name for name in ("n_sides", "divisor", "classifiers") if not hasattr(network, name)]
    if lacking:
        raise InputError(
            f"network: {target} has no {' and no '.join(lacking)}, which both stages ask of a network; add it as in "
            "whqa.networks.voxresnet.VoxResNet, or choose one with network=voxresnet"
        )
    if cfg.errormap.deep_mask and not hasattr(network, "join"):
        raise InputError(
            f"errormap.deep_mask=true: {target} cannot; use network=voxresnet, or errormap.deep_mask=false"
        )


def _refuse_seen_start(cfg: DictConfig) -> None:
    """Both stages draw their validation cases alike, a larger share holds the smaller one."""
    fraction = cfg.errormap.validation_fraction
    if cfg.errormap.warm_start and cfg.segmenter.validation_fraction < fraction:
        raise InputError(
            f"errormap.warm_start=true: the segmenter must not have learned from the cases that its successor is "
            f"calibrated on; set segmenter.validation_fraction={fraction} too, or errormap.warm_start=false"
        )


def make_segmenter(cfg: DictConfig, study: Study, run_dir: Path) -> StageRun:
    """Stage one of the configured fold.

    Raises:
        InputError: a setting is wrong, or the mask plan has no such segmenter.
    """
    options, job, steps = cfg.segmenter, segmenter_job(cfg.fold, study.plan), cfg.segmenter.steps
    network = make(cfg.network, in_channels=1, out_channels=study.cohort.scheme.n_classes)
    pair = study.plan.pair_before(job.held_out) if options.from_pairs else None
    if pair is not None:
        steps = steps_from_pair(steps, options.steps_per_epoch)
        network.load_state_dict(pairs_weights(cfg, study, pair, job.held_out[0]))
    # another pair's segmenter would have made other masks
    start = segmenter_masks(study.directory, [pair] if pair else [])
    write_made_from(run_dir, MadeFrom(study.made_from, start))
    module = SegmenterTraining(network, total_steps=steps, **_settings(options, OptimiserSettings))
    data = _data_module(cfg, study, job.held_out, test_folds=job.masks_of)
    early = max(1, round(options.early * steps))
    callbacks = [
        *training_callbacks(run_dir, steps, options.freeze_norm, cfg.seed),
        *segmenter_callbacks(study, job, run_dir, early, cfg.seed, _augmentation(cfg)),
    ]
    return StageRun(run_dir, module, data, _trainer(cfg, run_dir, callbacks, steps))


def make_errormap(cfg: DictConfig, study: Study, run_dir: Path, imported: Sequence[Imported]) -> StageRun:
    """Stage two of the configured fold, with the masks that it learns from and judges, `imported` among them.

    Raises:
        InputError: a setting is wrong, or masks are missing.
    """
    options, fold = cfg.errormap, tested_fold(cfg.fold, study.folds.n)
    masks = _masks(cfg, study, fold, imported)
    makers = {mask.segmenter for mask in masks}
    digests = {maker: known for maker, known in masks_now(study, imported).items() if maker in makers}
    write_made_from(run_dir, MadeFrom(study.made_from, digests))
    own = chosen_kinds(cfg)[0].needs_segmenters
    place = study.directory, study.plan, study.folds, fold
    opinions = collect_opinions(*place) if own else told_opinions(cfg, study, imported)
    several = collect_ensembles(*place) if own else None
    tta = collect_tta(*place) if own else None
    views = hears_views(options.opinion_views, tta is not None)
    more = {
        "opinions": opinions,
        "ensembles": several,
        "tta": tta,
        "hears_views": views,
        "heard": heard_together(options, place, views) if own else None,
        "n_classes": study.cohort.scheme.n_classes,
        "balance": options.balance,
        "delivered": options.delivered,
        "train_kinds": options.train_kinds,
        "test_kinds": options.test_kinds,
        "dropout": Dropout(**_settings(options, Dropout)),
    }
    data = _data_module(cfg, study, (fold,), masks=masks, **more)
    there = frozenset[str]().union(*map(data.extras, fitting_items(data)))
    baselines = make_baselines(options.baselines, there)
    shuffled = make_shuffled(options.shuffled)
    judging = Judging(baselines, options.baseline_masks, options.threshold, options.overlays, cfg.seed, shuffled)
    callbacks = [
        *training_callbacks(run_dir, options.steps, options.freeze_norm, cfg.seed),
        *errormap_callbacks(study, masks, run_dir, judging, "tta" if views else "log_p"),
    ]
    module = _errormap_module(cfg, study, opinions is not None, views)
    return StageRun(run_dir, module, data, _trainer(cfg, run_dir, callbacks, options.steps))


def _errormap_module(cfg: DictConfig, study: Study, with_opinion: bool, views: bool) -> ErrorMapTraining:
    options, n_classes = cfg.errormap, study.cohort.scheme.n_classes
    head = str(options.head)
    inputs = inputs_heard(options, with_opinion)
    channels = in_channels(inputs, n_classes), out_channels(head, inputs, n_classes, options.image_level_weight > 0)
    network = make(cfg.network, in_channels=channels[0], out_channels=channels[1])
    if joins_mask(options.deep_mask, network, inputs):
        network.join(*mask_channels(inputs, n_classes))
    if options.warm_start:
        start_from(network, _segmenters_weights(cfg, study, inputs))
    return ErrorMapTraining(
        network,
        n_classes=n_classes,
        total_steps=options.steps,
        hears_views=views,
        # checkpoints take plain text alone
        **_settings(options, ErrorMapSettings, OptimiserSettings) | {"head": head, "inputs": inputs},
    )


def _segmenters_weights(cfg: DictConfig, study: Study, inputs: Sequence[str]) -> dict[str, torch.Tensor]:
    """Of the network of the segmenter that has not seen the test fold, which every mask plan has."""
    if Input.image not in inputs or not chosen_kinds(cfg)[0].needs_segmenters:
        why = "the network does not see the image" if Input.image not in inputs else "there are no segmenters"
        raise InputError(f"errormap.warm_start=true: {why}; set errormap.warm_start=false")
    run_dir = study.directory / "segmenter" / cfg.fold
    return network_weights(run_dir)


def _masks(cfg: DictConfig, study: Study, fold: int, imported: Sequence[Imported]) -> list[MaskItem]:
    chosen, _ = chosen_kinds(cfg)
    masks = [item for one in imported for item in one.items]
    if chosen.needs_segmenters:
        for name in study.plan.needed_by(fold):
            refuse_other_settings(of_run(cfg, Stage.segmenter, name), study.directory / "segmenter" / name)
        return collect_masks(study.directory, study.plan, study.folds, fold, chosen.own) + masks
    refuse_bare(masks, study.folds)
    return masks


def _data_module(cfg: DictConfig, study: Study, held_out: tuple[int, ...], **kwargs: Any) -> WholeHeartDataModule:
    options = cfg[str(cfg.stage)]
    return WholeHeartDataModule(
        study.cases,
        study.folds,
        held_out,
        patch=plain(options)["patch"],
        batch_size=options.batch_size,
        steps_per_epoch=options.steps_per_epoch,
        augmentation=_augmentation(cfg),
        seed=cfg.seed,
        **_settings(options, PatchSettings),
        **kwargs,
    )


def _augmentation(cfg: DictConfig) -> Augmentation:
    return Augmentation(**plain(cfg.augmentation))


def _trainer(cfg: DictConfig, run_dir: Path, callbacks: Sequence[pl.Callback], steps: int) -> pl.Trainer:
    """Its own callbacks first; Lightning moves those that save checkpoints behind all others."""
    options = cfg[str(cfg.stage)]
    places = {"checkpoint": {"dirpath": str(run_dir / LAST_CHECKPOINT.parent)}}
    loggers = [CsvHistory(run_dir / METRICS)]
    loggers += [make(c, run_dir=str(run_dir), stage=str(cfg.stage)) for c in cfg.logger.values()]
    cluster = cluster_environment()
    plugins = {"plugins": [*plain(cfg.trainer).get("plugins", []), *cluster]} if cluster else {}
    trainer: pl.Trainer = make(
        cfg.trainer,
        **plugins,
        max_epochs=steps // options.steps_per_epoch,
        check_val_every_n_epoch=options.validate_every,
        default_root_dir=str(run_dir),
        use_distributed_sampler=True,
        callbacks=[*(make(c, **places.get(name, {})) for name, c in cfg.callbacks.items()), *callbacks],
        logger=loggers,
    )
    lead_processes(trainer)
    return trainer


def _stamp(cfg: DictConfig, run_dir: Path, steps: int) -> None:
    shortened = next((key for key, whole in SHORTENING_KEYS.items() if not _is_one_of(cfg.trainer.get(key), whole)), "")
    if shortened:
        print(f"{run_dir}: no result, trainer.{shortened} cut the run short")
        return
    _refuse_unfinished(run_dir, steps)
    stamp(run_dir)
    print(f"done: {run_dir}")


def _is_one_of(value: Any, whole: Sequence[Any]) -> bool:
    # the number 1 equals 1.0
    return any(value == one and isinstance(value, float) == isinstance(one, float) for one in whole)


def _refuse_unfinished(run_dir: Path, steps: int) -> None:
    """Whatever settings and callbacks did, what is kept is the whole training, whose network the test judged with."""
    last = run_dir / LAST_CHECKPOINT
    reached = read_weights(last, made_anew(run_dir), "global_step")["global_step"] if last.is_file() else 0
    if reached != steps:
        raise InputError(
            f"{run_dir}: no result, {LAST_CHECKPOINT} is of step {reached} of {steps}; take out the callback or the "
            "trainer's setting that ended the training or kept other weights, and start anew: "
            f"rm -r {shlex.quote(str(run_dir))}"
        )


def _settings(options: DictConfig, *kinds: type) -> dict[str, Any]:
    """Those of a stage's settings that these classes define."""
    values = plain(options)
    return {field.name: values[field.name] for kind in kinds for field in fields(kind)}
