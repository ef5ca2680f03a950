"""Cases chosen by name: a list in the configuration, or a text file with one name a line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from whqa.data.case import Cohort
from whqa.errors import InputError

Names = str | Path | Sequence[str]
_LONGEST_LIST = 1 << 24


def stated_names(stated: Names, there: Collection[str], setting: str) -> set[str]:
    """The names that a setting states.

    Args:
        stated: names, one name, or the path of a text file with one a line; lines that begin with # are remarks.
        there: names that exist; one of them is never taken for a path.
        setting: for the message, such as "data.without".

    Raises:
        InputError: neither a known name nor a readable file.
    """
    if not isinstance(stated, str | Path):
        return {str(name) for name in stated}
    if str(stated) in there:
        return {str(stated)}
    text = read_text(Path(stated).expanduser(), f"{setting} must be names, [a, b], or a text file, one a line")
    return {line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")}


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
    """The cohort without some of its cases, and without the problems that are told of these cases' files.

    Args:
        cohort: as its reader found it.
        without: names of cases, see `names_left_out`.

    Raises:
        InputError: as `names_left_out`, or nothing is left.
    """
    names = names_left_out(without, [case.id for case in cohort.cases], cohort.name)
    if len(names) == len(cohort.cases):
        raise InputError(f"data.without: names all {len(names)} cases of cohort {cohort.name!r}; nothing is left")
    gone = tuple(f"{path}:" for case in cohort.cases if case.id in names for path in case.files)
    return replace(
        cohort,
        cases=tuple(case for case in cohort.cases if case.id not in names),
        problems=tuple(problem for problem in cohort.problems if not problem.startswith(gone)),
    )


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
