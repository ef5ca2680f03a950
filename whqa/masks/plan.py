"""Mask plans: which segmenter makes the masks that judge which fold.

A segmenter makes almost no errors on cases it was trained on, so the error-map network must learn from masks of unseen
cases. S{j} is the segmenter trained without fold j, S{j,k} the one trained without folds j and k; k is the outer test
fold of the error-map network.

    out_of_fold  masks of fold j come from S{j}. n trainings. Standard practice; slight leak: S{j} has seen fold k.
    nested       masks of a training fold j come from S{j,k}, those of the test fold from S{k}. S{j,k} serves both j and
                 k, so n folds need n (n - 1) / 2 + n trainings (5 folds: 15, not 25). No leak.
    in_sample    masks of every fold come from S{k}, which was trained on the training folds. An ablation.

In the nested plan S{j} may start from S{j,k}, which has not seen fold j either, and train for a third of the steps
(`segmenter.from_pairs`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

from whqa.errors import InputError

PlanName = Literal["out_of_fold", "nested", "in_sample"]
MaskKind = Literal[
    "final",
    "augmented1",
    "augmented2",
    "reference",
    "corrupted1",
    "corrupted2",
    "corrupted3",
    "corrupted4",
    "corrupted5",
    "corrupted6",
    "novel1",
    "novel2",
    "mixed1",
    "mixed2",
    "mixed3",
    "mixed4",
    "side1",
    "side2",
    "side3",
    "side4",
    "early",
]
MASK_KINDS: tuple[MaskKind, ...] = get_args(MaskKind)
"""What a segmenter of an experiment makes; any other kind is the name of another program, see `whqa.masks.external`.

augmented is the segmenter's mask of the image seen a little differently, see `whqa.callbacks.augmented`, or drawn from
another program's softmax, see `whqa.masks.drawn`; reference is the label itself; corrupted and novel are the label or a
segmenter's mask with anatomical faults, novel ones with faults of kinds that no training mask has; mixed is the label
in some regions and a segmenter's mask in the others; see `whqa.masks.faulty`.
"""
FAULTY_KINDS = tuple(kind for kind in MASK_KINDS if kind.startswith(("corrupted", "novel")))
MIXED_KINDS = tuple(kind for kind in MASK_KINDS if kind.startswith("mixed"))
AUGMENTED_KINDS = tuple(kind for kind in MASK_KINDS if kind.startswith("augmented"))


def has_entropy(kind: str) -> bool:
    """Whether a segmenter made such a mask as it is, so that its entropy stands beside it."""
    return kind in MASK_KINDS and family(kind) in ("final", "unfinished")


def is_made(kind: str) -> bool:
    """Whether it is made of the label and anybody's mask (reference, corrupted, mixed ...): no segmenter is needed."""
    return kind in MASK_KINDS and family(kind) not in ("final", "augmented", "unfinished")


def family(kind: str) -> str:
    """What a mask's kind is one of: its name without number; side outputs and early masks are "unfinished" ones."""
    name = without_number(kind)
    return "unfinished" if name in ("side", "early") else name


def without_number(kind: str) -> str:
    """The name of a segmenters' kind ("side" of "side1"); another program's stays as it is."""
    return kind.rstrip("0123456789") if kind in MASK_KINDS else kind


def is_trained_on(kind: str) -> bool:
    """Whether error-map networks may learn from such masks: novel ones only test what they have learned."""
    return not kind.startswith("novel")


def is_delivered(kind: str) -> bool:
    """Whether somebody would use such a mask: a final one or another program's, but no side output or early one."""
    return kind == "final" or kind not in MASK_KINDS


def is_as_delivered(kind: str) -> bool:
    """Whether it has the errors of a delivered mask: one, or one of an augmented image."""
    return is_delivered(kind) or kind in AUGMENTED_KINDS


@dataclass(frozen=True)
class ChosenKinds:
    """Which masks an experiment judges.

    Attributes:
        own: kinds of `MASK_KINDS`; None is all that the experiment's segmenters make.
        external: names of other programs.
        speaking: those of them that give their softmax.
    """

    own: tuple[str, ...] | None
    external: tuple[str, ...]
    speaking: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Every kind of mask that there may be."""
        return (*(MASK_KINDS if self.own is None else self.own), *self.external)

    @property
    def needs_segmenters(self) -> bool:
        """Whether any segmenter must be trained; where masks are only made of some, other programs' will do."""
        return self.own is None or not self.external or not set(self.own) <= set(_of_programs(bool(self.speaking)))

    @property
    def made_of_external(self) -> tuple[str, ...]:
        """Kinds to make of the labels and the other programs' masks."""
        return () if self.needs_segmenters or self.own is None else self.own


def _of_programs(speaking: bool) -> tuple[MaskKind, ...]:
    """Kinds that are made of other programs' masks, or of their softmax if there is one."""
    return tuple(kind for kind in MASK_KINDS if is_made(kind) or (speaking and kind in AUGMENTED_KINDS))


def chosen_by(masks: Any) -> ChosenKinds:
    """`choose_kinds` of the group `masks` of a configuration, a mapping.

    Raises:
        InputError: see `choose_kinds`.
    """
    external = masks["external"]
    speaking = [name for name, program in external.items() if program.get("probabilities") is not None]
    return choose_kinds(masks["kinds"], list(external), speaking)


def choose_kinds(
    kinds: Collection[str] | None, external: Collection[str] = (), speaking: Collection[str] = ()
) -> ChosenKinds:
    """The kinds that `masks.kinds` names, told apart; None takes all.

    A family ("corrupted") stands for all its kinds. Where other programs alone are named, masks of any quality are made
    of theirs, as they are made of the segmenters': a judge that met no others would take every mask for one of these.

    Args:
        kinds: `masks.kinds`.
        external: names of other programs.
        speaking: those of them that give their softmax.

    Raises:
        InputError: a kind is neither the segmenters' nor in `external`, or none is named.
    """
    if kinds is None:
        return ChosenKinds(None, tuple(external), tuple(speaking))
    families = dict.fromkeys(map(family, MASK_KINDS))
    known = [*MASK_KINDS, *external]
    unknown = sorted(set(kinds) - set(known) - set(families))
    if unknown:
        raise InputError(f"masks.kinds: no kind {unknown[0]!r}; there are {', '.join(known)}")
    if not kinds:
        raise InputError(f"masks.kinds is empty; name some of {', '.join(known)}, or leave it null for all")
    own = tuple(kind for kind in MASK_KINDS if kind in kinds or family(kind) in kinds)
    named, speak = (tuple(k for k in programs if k in kinds) for programs in (external, speaking))
    return ChosenKinds(own or _of_programs(bool(speak)), named, speak)


def names_of(kind: str) -> tuple[str, ...]:
    """What a kind of mask may be called in a setting: by its family, without number, with it."""
    return family(kind), without_number(kind), kind


def is_named(kind: str, names: Collection[str]) -> bool:
    """Whether one of the names stands for the kind."""
    return not set(names_of(kind)).isdisjoint(names)


def refuse_unlearnable(there: Collection[str], train_kinds: Collection[str] | None) -> None:
    """Whether masks of these kinds can be learned from as `errormap.train_kinds` says; None takes all.

    Raises:
        InputError: one is named that there is not, or there is none to learn from.
    """
    learnable = list(filter(is_trained_on, there))
    if not learnable:
        raise InputError(
            f"masks.kinds: nothing is learned from {', '.join(there)}, which only test; name others too, such as final"
        )
    known = dict.fromkeys(name for kind in learnable for name in names_of(kind))
    if train_kinds is not None and (not train_kinds or not known.keys() >= set(train_kinds)):
        raise InputError(f"errormap.train_kinds={list(train_kinds)}: must be some of {', '.join(known)}")


def refuse_untestable(there: Collection[str], test_kinds: Collection[str] | None) -> None:
    """Whether there are masks of every kind that `errormap.test_kinds` names; None takes all.

    Raises:
        InputError: of one there is none, or none is named.
    """
    known = dict.fromkeys(name for kind in there if kind in MASK_KINDS for name in names_of(kind))
    if test_kinds is not None and (not test_kinds or not known.keys() >= set(test_kinds)):
        raise InputError(
            f"errormap.test_kinds={list(test_kinds)}: must be some of {', '.join(known)} that there are masks of; "
            "those of other programs are judged in any case"
        )


@dataclass(frozen=True)
class SegmenterJob:
    """One segmenter to train: the folds it never sees, and the folds whose cases it makes masks of."""

    held_out: tuple[int, ...]
    masks_of: tuple[int, ...]

    @property
    def name(self) -> str:
        """Directory name: "0" or "0-1"."""
        return fold_name(self.held_out)


def fold_name(held_out: tuple[int, ...]) -> str:
    """(0,) -> "0"; (1, 0) -> "0-1"."""
    return "-".join(str(k) for k in sorted(held_out))


def parse_fold(name: str | int, n_folds: int) -> tuple[int, ...]:
    """ "0" -> (0,); "0-1" -> (0, 1).

    Raises:
        InputError: not fold numbers below `n_folds`.
    """
    try:
        folds = tuple(sorted({int(part) for part in str(name).split("-")}))
    except ValueError:
        folds = ()
    if not folds or len(folds) > 2 or folds[0] < 0 or folds[-1] >= n_folds:
        raise InputError(f"fold={name}: must be one of 0..{n_folds - 1}, or a pair such as 0-1")
    return folds


def steps_from_pair(steps: int, steps_per_epoch: int) -> int:
    """Steps of a segmenter that starts from another one: a third of those of a full training, in whole epochs."""
    return -(-steps // (3 * steps_per_epoch)) * steps_per_epoch


@dataclass(frozen=True)
class MaskPlan:
    """Which segmenters exist for `n_folds` folds and who judges whom."""

    name: PlanName
    n_folds: int

    def __post_init__(self) -> None:
        if self.name not in get_args(PlanName):
            raise InputError(f"mask plan {self.name!r}: must be one of {', '.join(get_args(PlanName))}")
        if self.n_folds < 2 or (self.name == "nested" and self.n_folds < 3):
            raise InputError(f"mask plan {self.name!r} needs at least {3 if self.name == 'nested' else 2} folds")

    @property
    def segmenters(self) -> tuple[SegmenterJob, ...]:
        """All segmenters that the plan needs."""
        everyone = tuple(range(self.n_folds))
        single = tuple(SegmenterJob((k,), everyone if self.name == "in_sample" else (k,)) for k in everyone)
        if self.name != "nested":
            return single
        return single + tuple(SegmenterJob(pair, pair) for pair in combinations(everyone, 2))

    def segmenter_of(self, test_fold: int, case_fold: int) -> str:
        """Name of the segmenter whose masks of `case_fold` serve the error-map network of `test_fold`."""
        if self.name == "in_sample":
            return fold_name((test_fold,))
        if self.name == "nested" and case_fold != test_fold:
            return fold_name((test_fold, case_fold))
        return fold_name((case_fold,))

    def needed_by(self, test_fold: int) -> tuple[str, ...]:
        """Names of all segmenters that the error-map network of `test_fold` waits for."""
        return tuple(sorted({self.segmenter_of(test_fold, j) for j in range(self.n_folds)}))

    def pair_before(self, held_out: tuple[int, ...]) -> str | None:
        """Name of the pair segmenter that S{j} may start from, S{j,j+1}; None for a pair itself."""
        return fold_name((held_out[0], (held_out[0] + 1) % self.n_folds)) if len(held_out) == 1 else None

    def graph(self, needs_segmenters: bool = True, from_pairs: bool = False) -> dict[str, frozenset[str]]:
        """Every run of an experiment, such as "segmenter/0-1" or "errormap/0" -> the runs that it waits for.

        Args:
            needs_segmenters: see `ChosenKinds`; other programs' masks, and what is made of them, nobody waits for.
            from_pairs: single segmenters start from pairs.
        """
        before = {job.name: self.pair_before(job.held_out) if from_pairs else None for job in self.segmenters}
        segmenters = {
            f"segmenter/{name}": frozenset([f"segmenter/{pair}"] if pair else []) for name, pair in before.items()
        }
        if not needs_segmenters:
            return {f"errormap/{fold}": frozenset() for fold in range(self.n_folds)}
        return segmenters | {
            f"errormap/{fold}": frozenset(f"segmenter/{name}" for name in self.needed_by(fold))
            for fold in range(self.n_folds)
        }

    @property
    def asserts_unseen(self) -> bool:
        """Whether training masks must come from segmenters that have not seen the case."""
        return self.name != "in_sample"
