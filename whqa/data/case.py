"""A case is one image with or without a reference label map; a cohort is the cases of one data set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from whqa.data.formats.volume_files import SpacingRule
from whqa.errors import InputError
from whqa.structures import LabelScheme

Modality = Literal["ct", "mr"]


@dataclass(frozen=True)
class Case:
    """One image of one patient.

    Attributes:
        id: unique in the cohort; names files and rows.
        patient: the unit of cross-validation and of the bootstrap.
        modality: "ct" or "mr"; chooses the normalisation.
        image: path of the image file.
        label: path of the reference label map, or None.
        parts: in place of one label map: structure key -> path of its binary mask (TotalSegmentator). A case with
            neither is unlabelled.
    """

    id: str
    patient: str
    modality: Modality
    image: Path
    label: Path | None = None
    parts: Mapping[str, Path] = field(default_factory=dict)

    @property
    def has_label(self) -> bool:
        """Whether there is a reference, as one file or in parts."""
        return self.label is not None or bool(self.parts)

    @property
    def label_files(self) -> tuple[Path, ...]:
        """All files of the reference."""
        return (self.label,) if self.label is not None else tuple(self.parts.values())

    @property
    def files(self) -> tuple[Path, ...]:
        """The image and all files of the reference."""
        return (self.image, *self.label_files)


class Problem(str):
    """A line about files that are missing or superfluous, which knows whose files they are.

    Args:
        text: the line.
        *cases: ids of the cases that it is about, whether the cohort holds them or not; none where it is about others.
    """

    cases: tuple[str, ...]

    def __new__(cls, text: str, *cases: str) -> Problem:
        """A text, with its cases."""
        problem = super().__new__(cls, text)
        problem.cases = cases
        return problem


@dataclass(frozen=True)
class Cohort:
    """The cases of one data set with the label scheme of its files.

    `spacing_rule` says what holds where a header's pixdim and affine disagree: "pixdim", "affine" or "refuse".
    `problems` are lines about files that the layout asks for and that are missing or superfluous, see `Problem`:
    readers list them, `whqa.data.sources.checks.checked` refuses a cohort that has any. `unused` are volumes of the
    data folder that belong to no case. Ids name files and folders: a case whose id cannot becomes a problem, and is
    left out.

    Raises:
        InputError: no cases, none that can name a file, or an id that occurs twice.
    """

    name: str
    cases: tuple[Case, ...]
    scheme: LabelScheme
    spacing_rule: SpacingRule = "pixdim"
    problems: tuple[str, ...] = ()
    unused: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if not self.cases:
            raise InputError(self.problems[0] if self.problems else f"cohort {self.name!r} has no cases")
        twice = [name for name, count in Counter(c.id for c in self.cases).items() if count > 1]
        if twice:
            raise InputError(f"cohort {self.name!r}: case id(s) {twice[:5]} occur more than once")
        odd = [case for case in self.cases if not _names_a_file(case.id)]
        if odd:
            problems = tuple(
                Problem(f"cohort {self.name!r}: case id {case.id[:150]!r} {_ODD}", case.id) for case in odd
            )
            if len(odd) == len(self.cases):
                raise InputError(problems[0])
            object.__setattr__(self, "cases", tuple(case for case in self.cases if _names_a_file(case.id)))
            object.__setattr__(self, "problems", (*self.problems, *problems))

    def __getitem__(self, case_id: str) -> Case:
        for case in self.cases:
            if case.id == case_id:
                return case
        raise InputError(f"cohort {self.name!r} has no case {case_id!r}")

    def only(self, case: Case) -> Cohort:
        """A cohort of one of the cases alone, without what is said about the data folder."""
        return replace(self, cases=(case,), problems=(), unused=())

    @property
    def labelled(self) -> Cohort:
        """The cases that have a reference; cross-validation needs it.

        Raises:
            InputError: none has one.
        """
        cases = tuple(c for c in self.cases if c.has_label)
        if not cases:
            raise InputError(
                f"cohort {self.name!r}: none of its {len(self.cases)} cases has a label; training needs them"
            )
        return replace(self, cases=cases)


# The cache adds a few dozen to it, and file systems end names at 255.
_MOST_BYTES = 150
_ODD = f"cannot name a file; rename it: no slash, no dot in front, up to {_MOST_BYTES} bytes (an umlaut is two)"


def _names_a_file(case_id: str) -> bool:
    try:
        short = case_id.isprintable() and 0 < len(os.fsencode(case_id)) <= _MOST_BYTES
    except UnicodeEncodeError:
        return False
    return short and not set(case_id) & set("/\\") and not case_id.startswith(".")
