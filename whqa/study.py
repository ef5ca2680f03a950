"""What all runs of an experiment share, made from its configuration: cohort, folds, mask plan, cache, external masks.

Training and cross-validation both stand on it. The data source is instantiated here, everything else of a run in
`whqa.stages.from_config`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from whqa.config.instantiate import make, plain
from whqa.config.words import external_settings
from whqa.data.cache import Cache, PreparedCase
from whqa.data.case import Cohort
from whqa.data.folds import Folds, load_or_make_folds, make_folds
from whqa.data.prepare import prepare_cohort
from whqa.data.preprocess import Preprocess
from whqa.data.sources.checks import checked
from whqa.masks.external import ExternalMethod, choose_methods, refuse_seen
from whqa.masks.external_made import with_made_masks
from whqa.masks.importing import Imported, import_masks
from whqa.masks.made_from import Cases, Masks, cases_record, refuse_other_cases, segmenter_masks, unknown_origin
from whqa.masks.plan import ChosenKinds, MaskPlan, is_named, is_trained_on
from whqa.process import is_first_rank


@dataclass(frozen=True)
class Study:
    """What all runs of one experiment share: `directory` is runs/<experiment>, `cases` lie in the cache."""

    directory: Path
    cohort: Cohort
    folds: Folds
    plan: MaskPlan
    cases: Mapping[str, PreparedCase]

    @property
    def made_from(self) -> Cases:
        """What its runs are made from, see `whqa.masks.made_from`."""
        return cases_record(self.folds, self.cases)

    @property
    def patient_of(self) -> dict[str, str]:
        """Case id -> patient."""
        return {case.id: case.patient for case in self.cohort.cases}

    @property
    def fold_of(self) -> dict[str, int]:
        """Case id -> fold."""
        return {case: fold for fold, cases in enumerate(self.folds.folds) for case in cases}


def make_study(cfg: DictConfig, experiment_dir: Path, jobs: int = 1) -> Study:
    """Cohort, folds, plan and cache of an experiment; what is missing on disk is made, in `jobs` processes.

    Says on standard error where runs of the directory do not tell what they were made from.

    Raises:
        InputError: the data are missing or wrong, or the directory belongs to another study or to other data.
    """
    plan = MaskPlan(cfg.masks.plan, cfg.folds)
    cohort: Cohort = checked(make(cfg.data)).labelled
    make_folds(cohort, cfg.folds, cfg.seed)  # too few patients show before all scans are read
    settings = Preprocess(**plain(cfg.preprocess))
    # folds are written last: a bad scan that is taken out must not leave folds that name it
    cases = prepare_cohort(cohort, Cache(Path(cfg.cache_dir), settings), jobs=jobs)
    folds = load_or_make_folds(experiment_dir / "folds.json", cohort, cfg.folds, cfg.seed, plan.name)
    study = Study(experiment_dir, cohort, folds, plan, cases)
    refuse_other_cases(experiment_dir, study.made_from)
    note = unknown_origin(experiment_dir)
    if note and is_first_rank():
        print(f"note: {note}", file=sys.stderr)
    return study


def masks_now(study: Study, imported: Sequence[Imported]) -> Masks:
    """Digests of all masks that there are to judge: the finished segmenters' and other programs'."""
    names = [job.name for job in study.plan.segmenters]
    return segmenter_masks(study.directory, names) | {one.name: one.digests for one in imported}


def chosen_kinds(cfg: DictConfig) -> tuple[ChosenKinds, list[ExternalMethod]]:
    """Which masks the experiment judges, and the programs among them.

    Raises:
        InputError: a kind or a program's name or settings are not valid, or the mask plan forbids its masks.
    """
    chosen, methods = choose_methods(cfg.masks.kinds, external_settings(cfg.masks))
    refuse_seen(methods, MaskPlan(cfg.masks.plan, cfg.folds))
    return chosen, methods


def import_external(cfg: DictConfig, study: Study, jobs: int = 1) -> list[Imported]:
    """Masks of all programs that the experiment judges, and those made of them, on the cache grid.

    What is missing is made in `jobs` processes. Says on standard error whose second opinion the networks hear, where
    that may surprise.

    Raises:
        InputError: see `chosen_kinds` and `whqa.masks.importing.import_masks`.
    """
    chosen, methods = chosen_kinds(cfg)
    note = _opinion_note(cfg)
    if note and is_first_rank():
        print(f"note: {note}", file=sys.stderr)
    imported = [import_masks(m, study.directory, study.cohort, study.folds, study.cases, jobs) for m in methods]
    structures, kinds, learned = study.cohort.scheme.keys, chosen.made_of_external, cfg.errormap.train_kinds
    folds, cases = study.folds, study.cases
    made = with_made_masks(imported, kinds, study.directory, structures, folds, cases, cfg.seed, learned, jobs)
    if is_first_rank():
        for line in _lacking(made, study, chosen, learned):
            print(f"note: {line}", file=sys.stderr)
    return made


def _lacking(
    imported: Sequence[Imported], study: Study, chosen: ChosenKinds, learned: Sequence[str] | None
) -> Iterator[str]:
    """Which programs have no mask of some cases, and how many cases nothing is learned from."""
    for one in imported:
        n = len({item.case for item in one.items if item.kind == one.name})
        if n < len(study.cases):
            yield f"masks.external.{one.name}: masks of {n} of {len(study.cases)} cases"
    if not chosen.needs_segmenters:
        items = [item for one in imported for item in one.items if is_trained_on(item.kind)]
        taught = {item.case for item in items if learned is None or is_named(item.kind, learned)}
        if taught and len(taught) < len(study.cases):
            yield f"{len(study.cases) - len(taught)} of {len(study.cases)} cases have no mask that is learned from"


def _opinion_note(cfg: DictConfig) -> str:
    chosen, methods = chosen_kinds(cfg)
    stated = [name for name, of_method in external_settings(cfg.masks).items() if of_method.probabilities is not None]
    if chosen.needs_segmenters and stated:
        return (
            f"masks.external.{stated[0]}.probabilities are not used: the experiment's own segmenters give the second "
            f"opinion on all masks; with masks.kinds=[{stated[0]}] it has none"
        )
    speaks = any(method.probabilities is not None for method in methods)
    if chosen.needs_segmenters or speaks or cfg.errormap.inputs is not None:
        return ""
    return (
        "no second opinion: there are no segmenters, and no probabilities of another program "
        f"(+{methods[0]}.probabilities=FOLDER); the networks hear image and mask alone"
    )
