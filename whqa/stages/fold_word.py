"""What `fold=...` names: the segmenter of one fold or of a pair, or the error-map network of a test fold."""

from __future__ import annotations

from typing import Any

from whqa.config.schema import Stage
from whqa.errors import InputError
from whqa.masks.plan import MaskPlan, SegmenterJob, fold_name, parse_fold


def refuse_no_such_run(cfg: Any) -> None:
    """Whether the mask plan has the run of `stage` and `fold`.

    Raises:
        InputError: it has not, or there is no such plan of so few folds.
    """
    plan = MaskPlan(cfg.masks.plan, cfg.folds)
    if cfg.stage == Stage.segmenter:
        segmenter_job(cfg.fold, plan)
    else:
        tested_fold(cfg.fold, plan.n_folds)


def segmenter_job(name: str, plan: MaskPlan) -> SegmenterJob:
    """The segmenter that a fold names.

    Raises:
        InputError: no folds, not written as the directory of its run, or none of the plan's.
    """
    held_out = _held_out(name, plan.n_folds)
    jobs = {job.held_out: job for job in plan.segmenters}
    if held_out not in jobs:
        names = ", ".join(job.name for job in plan.segmenters)
        raise InputError(f"fold={name}: mask plan {plan.name!r} has the segmenters {names}")
    return jobs[held_out]


def tested_fold(name: str, n_folds: int) -> int:
    """The fold that an error-map network is tested on.

    Raises:
        InputError: it is not one.
    """
    held_out = _held_out(name, n_folds)
    if len(held_out) != 1:
        raise InputError(f"fold={name}: the error-map network is tested on one fold, 0..{n_folds - 1}")
    return held_out[0]


def _held_out(name: str, n_folds: int) -> tuple[int, ...]:
    held_out = parse_fold(name, n_folds)
    if name != fold_name(held_out):
        raise InputError(f"fold={name}: write fold={fold_name(held_out)}, which also names the run's directory")
    return held_out
