"""Cases chosen by name: a list in the configuration, or a text file with one name a line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from whqa.data.case import Cohort, Problem
from whqa.errors import InputError

Names = str | Path | Sequence[str]
_LONGEST_LIST = 1 << 24
# To Hydra they are no names, in capitals neither.
_WORDS = {"null", "true", "false", "nan", "inf"}


def stated_names(stated: Names, there: Collection[str], setting: str) -> set[str]:
    """The names that a setting states.

    Args:
        stated: names, one name, or the path of a text file with one a line; lines that begin with # are remarks.
        there: names that exist; one of them is never taken for a path.
        setting: for the message, such as "data.without".

    Raises:
        InputError: neither a known name nor a readable file, or Hydra read a name as a number or the like, of which
            there is no telling what was typed.
    """
    if isinstance(stated, Sequence) and not isinstance(stated, str):
        return {_as_typed(name, there, setting) for name in stated}
    if not isinstance(stated, str | Path):
        return {_as_typed(stated, there, setting)}
    if str(stated) in there:
        return {str(stated)}
    if not str(stated).strip():
        raise InputError(f"{setting}: states no name; state names, [a, b], or a text file, or null for none")
    text = read_text(Path(stated).expanduser(), f"{setting} must be names, [a, b], or a text file, one a line")
    return {line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")}


def _as_typed(name: Any, there: Collection[str], setting: str) -> str:
    if isinstance(name, str):
        return name
    if name is not None and not isinstance(name, int | float):
        raise InputError(f"{setting}: must be names, [a, b], or a text file, not {name!r}")
    text = "null" if name is None else str(name)
    alike = sorted(other for other in there if other != text and _reads_as(other, name))
    if alike or text not in there or name is None:
        raise InputError(
            f"{setting}: without quotes a name such as this is read as {text}, and may be another than was typed; put "
            f"it in quotes inside the quotes: {stating(setting, (alike or [text])[0], quoted=True)}"
        )
    return text


def _reads_as(name: str, value: Any) -> bool:
    """Whether a name without quotes may have become this value; YAML takes 010 for 8."""
    if name.lower() == str(value).lower():
        return True
    for read in (float, lambda text: int(text, 8)):
        try:
            if read(name) == value:
                return True
        except (ValueError, OverflowError):
            continue
    return False


def stating(setting: str, name: str, quoted: bool = False) -> str:
    """The word of a command line that states a case, in quotes where the shell or Hydra would read it otherwise.

    Args:
        setting: such as "without".
        name: of the case.
        quoted: whether in quotes in any case.
    """
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name) and name.lower() not in _WORDS
    if plain and not quoted:
        return f"{setting}=[{name}]"
    escaped = QuotedString(name, Quote.double).with_quotes()
    return shlex.quote(f"{setting}=[{escaped}]")


def names_left_out(without: Names | None, there: Collection[str], cohort: str) -> set[str]:
    """The names of `data.without`; those of a text file, which may be that of a larger data set, need not be there.

    Raises:
        InputError: as `stated_names`, or a name that is stated as such is not there.
    """
    if without is None:
        return set()
    names = stated_names(without, there, "data.without")
    unknown = sorted(names - set(there))
    if unknown and not isinstance(without, str | Path):
        raise InputError(f"data.without: cohort {cohort!r} has no case {unknown[0]!r}; correct the name")
    return names & set(there)


def leave_out(cohort: Cohort, without: Names | None) -> Cohort:
    """The cohort without some of its cases, and without the problems that are about these cases alone.

    Args:
        cohort: as its reader found it.
        without: names of cases, see `names_left_out`; of cases that are nothing but a problem as well.

    Raises:
        InputError: as `names_left_out`, or nothing is left.
    """
    ids = {case.id for case in cohort.cases}
    of_problems = {case for problem in cohort.problems if isinstance(problem, Problem) for case in problem.cases}
    names = names_left_out(without, ids | of_problems, cohort.name)
    if ids <= names:
        raise InputError(f"data.without: names all {len(ids)} cases of cohort {cohort.name!r}; nothing is left")
    return replace(
        cohort,
        cases=tuple(case for case in cohort.cases if case.id not in names),
        problems=tuple(problem for problem in cohort.problems if not of_cases(problem, names)),
    )


def of_cases(problem: str, names: Collection[str]) -> bool:
    """Whether a problem is about these cases and no other."""
    return isinstance(problem, Problem) and bool(problem.cases) and set(problem.cases) <= set(names)


def read_text(path: Path, advice: str) -> str:
    """A short text file.

    Raises:
        InputError: not readable; `advice` ends the line.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as stream:
            return stream.read(_LONGEST_LIST)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable ({getattr(error, 'strerror', None) or error}); {advice}") from None
