"""Which second opinion an error-map network hears: that of a segmenter, over views or not, or of another program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from omegaconf import DictConfig

from whqa.data.folds import Folds
from whqa.errors import InputError
from whqa.masks.importing import Imported
from whqa.masks.opinion import OPINION, VIEWS, Opinion, collect_ensembles
from whqa.masks.plan import MaskPlan
from whqa.modules.training_settings import Input
from whqa.study import Study


def hears_views(asked: bool | None, there: bool) -> bool:
    """As `errormap.opinion_views` says.

    Raises:
        InputError: it wants what no segmenter kept.
    """
    if asked and not there:
        raise InputError(
            "errormap.opinion_views=true: there is no opinion over views of the image, which only segmenters of this "
            "version keep; use errormap.opinion_views=null, or a new name=... whose segmenters do"
        )
    return there if asked is None else asked


def heard_together(
    options: DictConfig, place: tuple[Path, MaskPlan, Folds, int], views: bool
) -> Mapping[str, Sequence[Opinion]] | None:
    """The opinions whose mean a network hears of a whole volume, by case; None where it hears one at most.

    Args:
        options: `errormap` of the configuration.
        place: folder of the experiment, plan, folds, test fold.
        views: whether it hears those over views.

    Raises:
        InputError: see `collect_ensembles`.
    """
    hears = options.inputs is None or Input.opinion in options.inputs
    if not (hears and options.opinion_ensemble):
        return None
    return collect_ensembles(*place, VIEWS if views else OPINION)


def told_opinions(cfg: DictConfig, study: Study, imported: Sequence[Imported]) -> Mapping[str, Opinion] | None:
    """The opinion of another program on every case, in an experiment without segmenters; None where none gives any.

    Raises:
        InputError: the error-map network shall hear opinions, and there are none; or a case lacks one.
    """
    speaking = next((one for one in imported if one.opinions), None)
    told = None if speaking is None else speaking.opinions
    silent = [] if told is None else [case for case in study.cases if case not in told]
    if speaking is not None and silent:
        raise InputError(
            f"case {silent[0]}: no second opinion, as of {len(silent)} case(s) without a mask of {speaking.name}; add "
            f"mask and probabilities, or leave masks.external.{speaking.name}.probabilities out"
        )
    if told is None and Input.opinion in (cfg.errormap.inputs or ()):
        raise InputError(
            "errormap.inputs: opinion is that of the experiment's own segmenters, and with these masks.kinds it trains "
            f"none; use errormap.inputs=[image,mask], or state +masks.external.{imported[0].name}.probabilities=FOLDER"
        )
    return told
