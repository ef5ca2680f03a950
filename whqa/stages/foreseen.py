"""What error-map networks shall learn from, be tested on and hear, looked at before segmenters are trained for them."""

from __future__ import annotations

from collections.abc import Sequence

from omegaconf import DictConfig

from whqa.config.schema import Stage
from whqa.errors import InputError
from whqa.loading.sampling import validation_cases
from whqa.masks.external import refuse_bare
from whqa.masks.importing import Imported
from whqa.masks.plan import refuse_unlearnable, refuse_untestable
from whqa.modules.training_settings import USUAL_INPUTS, Head, Input, sees_mask
from whqa.stages.heard_opinions import told_opinions
from whqa.study import Study, chosen_kinds


def inputs_heard(options: DictConfig, with_opinion: bool) -> list[str]:
    """`errormap.inputs`, or by default all that there are."""
    there = [name for name in USUAL_INPUTS if with_opinion or name != Input.opinion]
    return list(map(str, options.inputs or there))


def refuse_masks(cfg: DictConfig) -> None:
    """Whether the settings of masks, inputs and dropout go together.

    Raises:
        InputError: nothing can be learned from, or tested on, the masks that there will be, or what shall be dropped
            is not there.
    """
    chosen, options = chosen_kinds(cfg)[0], cfg.errormap
    refuse_unlearnable(chosen.all, options.train_kinds)
    refuse_untestable(chosen.all, options.test_kinds)
    inputs = inputs_heard(options, chosen.needs_segmenters or bool(chosen.speaking))
    if options.opinion_dropout and Input.opinion not in inputs:
        raise InputError(f"errormap.opinion_dropout={options.opinion_dropout}: no opinion is heard; set it to 0")
    if options.mask_dropout and not (sees_mask(inputs) and str(options.head) == Head.label):
        raise InputError(
            f"errormap.mask_dropout={options.mask_dropout}: wants a network that sees the mask and says which label is "
            "right; set it to 0, or errormap.inputs=null errormap.head=label"
        )


def refuse_bare_folds(cfg: DictConfig, study: Study, imported: Sequence[Imported]) -> None:
    """Whether every fold has the patients, masks and opinions that its runs will want.

    Args:
        cfg: of the experiment.
        study: its data.
        imported: other programs' masks.

    Raises:
        InputError: one has not; names the setting, and a case or a fold.
    """
    own = chosen_kinds(cfg)[0].needs_segmenters
    if not own:
        refuse_bare([item for one in imported for item in one.items], study.folds)
        told_opinions(cfg, study, imported)
    held_out: list[tuple[Stage, tuple[int, ...]]] = [(Stage.errormap, (fold,)) for fold in range(study.folds.n)]
    held_out += [(Stage.segmenter, job.held_out) for job in study.plan.segmenters] if own else []
    for stage, folds in held_out:
        validation_cases(study.folds.without(folds), study.cases, cfg[stage].validation_fraction, cfg.seed, stage)
    patients = [{study.cases[case].patient for case in study.folds.cases(fold)} for fold in range(study.folds.n)]
    alone = [fold for fold, of_fold in enumerate(patients) if len(of_fold) < 2]
    if cfg.errormap.shuffled and alone:
        raise InputError(
            f"errormap.shuffled: fold {alone[0]} has one patient, so that there is no other one's mask or image; leave "
            "it out, or use fewer folds"
        )
