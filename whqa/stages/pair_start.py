"""Segmenters that start from others (`segmenter.from_pairs`), and how a run's weights come to its successor."""

from __future__ import annotations

from pathlib import Path

import torch
from omegaconf import DictConfig

from whqa.config.instantiate import of_run
from whqa.config.run_config import refuse_other_settings
from whqa.config.schema import Stage
from whqa.errors import InputError
from whqa.masks.run_state import LAST_CHECKPOINT, is_complete, made_anew, refuse_damaged
from whqa.masks.store import mask_path, unseen_by_maker
from whqa.modules.weights import read_weights
from whqa.study import Study


def refuse_pairs(cfg: DictConfig) -> None:
    """Whether segmenters can start from those of pairs as they are asked to.

    Raises:
        InputError: the mask plan has no pairs, or cases would be held back that a pair has learned from.
    """
    if not cfg.segmenter.from_pairs:
        return
    if cfg.masks.plan != "nested":
        raise InputError(
            f"segmenter.from_pairs=true: masks={cfg.masks.plan} trains no segmenters of pairs; use masks=nested, or "
            "segmenter.from_pairs=false"
        )
    if cfg.segmenter.validation_fraction:
        raise InputError(
            "segmenter.from_pairs=true: a pair's segmenter has learned from cases that its successor would hold back; "
            "set segmenter.validation_fraction=0"
        )


def pairs_weights(cfg: DictConfig, study: Study, pair: str, fold: int) -> dict[str, torch.Tensor]:
    """Of the network of a pair's segmenter, which has seen no case of the fold.

    Raises:
        InputError: it has, or has not finished, or is of other settings.
    """
    run_dir = study.directory / Stage.segmenter / pair
    if not is_complete(run_dir):
        raise InputError(
            f"{study.directory}: segmenter.from_pairs=true starts the segmenter of fold {fold} from that of the pair "
            f"{pair}, which has not finished; `whqa cv ...` trains it first"
        )
    refuse_other_settings(of_run(cfg, Stage.segmenter, pair), run_dir)
    for case in study.folds.cases(fold):
        unseen_by_maker(mask_path(run_dir, case, "final"), case, must_be_unseen=True)
    return network_weights(run_dir)


def network_weights(run_dir: Path) -> dict[str, torch.Tensor]:
    """state_dict of the network of a run as its training left it.

    Raises:
        InputError: its files are not as they were written.
    """
    refuse_damaged([run_dir], trained_only=True)
    saved = read_weights(run_dir / LAST_CHECKPOINT, made_anew(run_dir), "state_dict")["state_dict"]
    return {name.removeprefix("network."): values for name, values in saved.items()}
