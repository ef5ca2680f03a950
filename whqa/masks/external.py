"""Masks that another program or a person made of a cohort's images: where they lie, how to read them, who may use them.

They become further mask kinds beside the segmenters' own; `whqa.masks.importing` brings them to the cache grid.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from whqa.data.case import Case, Cohort
from whqa.data.folds import Folds
from whqa.data.formats.file_names import stem
from whqa.data.formats.volume_files import CLASS_MAP_ENDINGS
from whqa.data.sources.checks import existing_folder
from whqa.data.sources.listing import same_file
from whqa.errors import InputError
from whqa.masks.external_settings import ExternalSettings
from whqa.masks.opinion import OPINION, VIEWS
from whqa.masks.plan import MASK_KINDS, ChosenKinds, MaskPlan, choose_kinds, family
from whqa.masks.store import MaskItem
from whqa.structures import STRUCTURES, LabelScheme, label_scheme

# opinions lie beside masks
_RESERVED = (*dict.fromkeys((*MASK_KINDS, *map(family, MASK_KINDS))), OPINION, VIEWS, "all")
# a segmenter's name is of digits and dashes
_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class ExternalMethod:
    """Where another program's masks of a cohort lie and how to read them.

    Attributes:
        name: of the program, e.g. "nnunet"; it becomes the mask kind.
        root: folder of its masks.
        pattern: of a case's mask relative to `root`, with one `*` for the case id; with `parts` of the case's folder.
        scheme: label scheme of the masks: a name, structure -> file value, or None for the cohort's. It must have all
            structures of the cohort; further ones count as background.
        parts: in place of one file a case: structure -> file name in the case's folder, for binary masks
            (TotalSegmentator). Where two overlap, the later one wins.
        unseen: the user's word that the program had not seen a case, its reference that is, when it made its mask.
        partial: whether cases may lack a mask.
        probabilities: folder of the program's softmax, one file a case, named as the case or its mask; the second
            opinion where the experiment has no segmenters. None where there is none.

    Raises:
        InputError: a bad name, pattern or scheme.
    """

    name: str
    root: str | Path
    pattern: str = ExternalSettings.pattern
    scheme: str | Mapping[str, int] | LabelScheme | None = ExternalSettings.scheme
    parts: Mapping[str, str] = field(default_factory=dict)
    unseen: bool = ExternalSettings.unseen
    partial: bool = ExternalSettings.partial
    probabilities: str | Path | None = ExternalSettings.probabilities

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.lower() in _RESERVED:
            raise InputError(
                f"{self}: choose another name, of letters, digits, _ and -, with a letter, and none of "
                f"{', '.join(_RESERVED)}"
            )
        for text in (self.pattern, *self.parts.values()):
            if Path(text).is_absolute() or ".." in Path(text).parts:
                raise InputError(f"{self}: {text!r} must be relative to the folder and stay in it")
        if self.pattern.count("*") != 1:
            raise InputError(f"{self}.pattern={self.pattern}: must hold one *, which stands for the case id")
        if self.parts and self.scheme is not None:
            raise InputError(f"{self}: parts name the structures themselves; leave scheme out")
        if self.probabilities is not None:
            self._refuse_opinion()
        if self.scheme is not None:
            try:
                object.__setattr__(self, "scheme", label_scheme(self.scheme))
            except (InputError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{self}.scheme={self.scheme}: {error}") from None

    def __str__(self) -> str:
        return f"masks.external.{self.name}"

    def _refuse_opinion(self) -> None:
        if self.parts:
            raise InputError(f"{self}: binary masks (parts) have no classes; leave {self}.probabilities out")
        if not self.unseen:
            raise InputError(
                f"{self}.probabilities: a second opinion must come from a model that had not seen the cases' "
                f"references; state ++{self}.unseen=true if {self.name} had not, or leave them out"
            )

    def scheme_for(self, cohort: Cohort) -> LabelScheme:
        """The label scheme of the files, once it is known to fit the cohort's structures.

        Raises:
            InputError: a structure of the cohort is missing, or a name is no structure at all.
        """
        if self.parts:
            named: Collection[str] = self.parts
        else:
            assert self.scheme is None or isinstance(self.scheme, LabelScheme)
            named = (self.scheme or cohort.scheme).keys
        where = f"{self}.{'parts' if self.parts else 'scheme'}"
        missing = [key for key in cohort.scheme.keys if key not in named]
        strange = [key for key in named if key not in STRUCTURES and key not in cohort.scheme.keys]
        if missing or strange:
            what = f"{strange[0]} is no structure" if strange else f"lacks {', '.join(missing)}"
            raise InputError(f"{where}: {what}; cohort {cohort.name!r} has {', '.join(cohort.scheme.keys)}")
        return cohort.scheme if self.parts else (self.scheme or cohort.scheme)  # type: ignore[return-value]


def refuse_seen(methods: Sequence[ExternalMethod], plan: MaskPlan) -> None:
    """Whether the plan may use the methods' masks.

    Raises:
        InputError: the plan asserts unseen masks and the user has not said that a method's are.
    """
    seen = [method for method in methods if not method.unseen]
    if seen and plan.asserts_unseen:
        raise InputError(
            f"{seen[0]}: mask plan {plan.name!r} judges masks of unseen cases only; state ++{seen[0]}.unseen=true if "
            f"{seen[0].name} had not seen these cases' references, or choose masks=in_sample"
        )


def predictions(method: ExternalMethod, cohort: Cohort) -> list[Case]:
    """The cohort's cases with the method's files in place of their reference; with `partial` those that have any.

    Raises:
        InputError: the folder or a case's mask is missing.
    """
    expected = f"the masks of {method.name}, {method.pattern} a case"
    root = existing_folder(method.root, f"a folder with {expected}")
    found, missing = [], []
    for case in cohort.cases:
        path = root / method.pattern.replace("*", case.id)
        if not path.exists():
            missing.append(path)
        elif method.parts:
            found.append(replace(case, label=None, parts={key: path / name for key, name in method.parts.items()}))
        else:
            found.append(replace(case, label=path, parts={}))
    if missing and (not found or not method.partial):
        remedy = f"or set ++{method}.partial=true" if found else f"or correct {method}.pattern, now {method.pattern}"
        raise InputError(
            f"{missing[0]}: no such mask, as of {len(missing)} of {len(cohort.cases)} cases; add them, {remedy}"
        )
    return found


def choose_methods(
    kinds: Collection[str] | None, settings: Mapping[str, ExternalSettings]
) -> tuple[ChosenKinds, list[ExternalMethod]]:
    """Which masks are judged, and the programs among them; at most one of these gives the second opinion.

    Own segmenters speak of masks of every kind, so beside them the programs' probabilities have no use and are dropped.

    Args:
        kinds: `masks.kinds`.
        settings: `masks.external`.

    Raises:
        InputError: a kind or a program's name or settings are not valid, or two programs have probabilities and there
            are no segmenters.
    """
    methods = [ExternalMethod(name, **vars(of_method)) for name, of_method in settings.items()]
    speaking = [method.name for method in methods if method.probabilities is not None]
    chosen = choose_kinds(kinds, [method.name for method in methods], speaking)
    methods = [method for method in methods if method.name in chosen.external]
    if chosen.needs_segmenters:
        return chosen, [replace(method, probabilities=None) for method in methods]
    if len(chosen.speaking) > 1:
        first, second = (f"masks.external.{name}.probabilities" for name in chosen.speaking[:2])
        raise InputError(
            f"{first} and {second}: one program gives the second opinion on all masks; leave all but one out"
        )
    return chosen, methods


def probability_files(method: ExternalMethod, cases: Sequence[Case]) -> dict[str, Path]:
    """The file with the program's softmax of each case, by case.

    Args:
        method: with `probabilities`.
        cases: of the cohort, with the program's mask in place of their reference.

    Raises:
        InputError: the folder or a file is missing, or a case has several.
    """
    root = existing_folder(method.probabilities, f"a folder with the probabilities of {method.name}")
    found: dict[str, Path] = {}
    missing = []
    for case in cases:
        mask = Path(method.pattern.replace("*", case.id))
        stems = dict.fromkeys((mask.parent / stem(mask.name), Path(case.id)))
        paths = [root / f"{bare}{ending}" for bare in stems for ending in CLASS_MAP_ENDINGS]
        there = [path for path in paths if path.is_file() and not (case.label and same_file(path, case.label))]
        if len(there) > 1:
            raise InputError(f"{there[0]} and {there[1].name} are both probabilities of case {case.id}; remove one")
        if there:
            found[case.id] = there[0]
        else:
            missing.append(paths[0])
    if missing:
        raise InputError(
            f"{missing[0]}: no such probabilities, as of {len(missing)} of {len(cases)} cases; add them (nnU-Net "
            f"writes them with --save_probabilities), or leave {method}.probabilities out"
        )
    return found


def refuse_bare(items: Sequence[MaskItem], folds: Folds) -> None:
    """Whether every case of the folds has a mask.

    Raises:
        InputError: one has none.
    """
    judged = {item.case for item in items}
    bare = [case for fold in range(folds.n) for case in folds.cases(fold) if case not in judged]
    if bare:
        raise InputError(
            f"case {bare[0]}: no mask under judgement, as of {len(bare)} case(s); add them to masks.external, or judge "
            "the segmenters' masks as well (masks.kinds)"
        )
