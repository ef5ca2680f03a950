"""Filling the cache with a cohort, in one process or in several.

Every case is one piece of work that is done or not: what is interrupted, killed or refused is made by the next call,
and several calls at the same time share the work.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from whqa.data.cache import Cache, CropWarning, PreparedCase
from whqa.data.case import Case, Cohort
from whqa.errors import InputError
from whqa.parallel.many import ProcessDiedError, in_processes


@dataclass(frozen=True)
class Preparation:
    """What became of one case.

    Attributes:
        case: its id.
        prepared: the case in the cache, or None where it is bad.
        made: whether this call made it.
        error: what is wrong with a bad case, one line.
    """

    case: str
    prepared: PreparedCase | None
    made: bool = False
    error: str = ""


def prepare_cohort(
    cohort: Cohort, cache: Cache, progress: bool = True, jobs: int | None = 1
) -> dict[str, PreparedCase]:
    """All cases of a cohort by id, in its order; see `prepare_each`.

    Raises:
        InputError: the first bad case, after all others are made.
    """
    outcomes = prepare_each(cohort, cache, progress, jobs)
    bad = [outcome.error for outcome in outcomes if outcome.error]
    if bad:
        more = (
            f" (and {len(bad) - 1} more; `whqa data prepare` with the same settings names all)" if len(bad) > 1 else ""
        )
        raise InputError(bad[0] + more)
    return {outcome.case: outcome.prepared for outcome in outcomes if outcome.prepared is not None}


def prepare_each(cohort: Cohort, cache: Cache, progress: bool = True, jobs: int | None = 1) -> list[Preparation]:
    """What becomes of each case, in the cohort's order; a bad case does not stop the others.

    Warns with `CropWarning` of structures that preprocessing cuts.

    Args:
        cohort: with the cases to prepare.
        cache: to fill.
        progress: whether to show a bar on a terminal.
        jobs: processes side by side, of one thread each; 1 works in this process, None takes all CPUs.

    Raises:
        InputError: `jobs` below 1.
    """
    found = {case.id: cache.find(cohort, case) for case in cohort.cases}
    outcomes = {name: Preparation(name, prepared) for name, prepared in found.items() if prepared is not None}
    # what another process is making comes last, when it is likely to be there
    for wait in (False, True):
        missing = [case for case in cohort.cases if case.id not in outcomes]
        if missing or (jobs is not None and jobs < 1):
            outcomes |= _attempts(cohort, cache, missing, wait, progress, jobs)
    return [outcomes[case.id] for case in cohort.cases]


def _attempts(
    cohort: Cohort, cache: Cache, cases: Sequence[Case], wait: bool, progress: bool, jobs: int | None
) -> dict[str, Preparation]:
    """Those of the cases that were made or are bad; without `wait` others may be in the making elsewhere."""
    # the cases travel to the processes one by one
    work = partial(_attempt, cohort.only(cases[0]) if cases else cohort, cache, wait)
    title = f"preparing {cohort.name}" if progress else ""
    results = in_processes(work, cases, jobs, title)
    outcomes = {}
    for case, result in zip(cases, results, strict=True):
        if isinstance(result, ProcessDiedError):
            outcomes[case.id] = Preparation(case.id, None, error=f"case {case.id!r}: {result}")
        elif isinstance(result, Exception):
            raise result
        elif result is not None:
            outcomes[case.id], cut = result
            for line in cut:
                warnings.warn(line, CropWarning, stacklevel=4)
    return outcomes


def _attempt(cohort: Cohort, cache: Cache, wait: bool, case: Case) -> tuple[Preparation, list[str]] | None:
    """One case, and the warnings that this process cannot give to the user."""
    if multiprocessing.parent_process() is None:
        outcome = _outcome(cohort, cache, wait, case)
        return None if outcome is None else (outcome, [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CropWarning)
        outcome = _outcome(cohort, cache, wait, case)
    return None if outcome is None else (outcome, [str(w.message) for w in caught if w.category is CropWarning])


def _outcome(cohort: Cohort, cache: Cache, wait: bool, case: Case) -> Preparation | None:
    try:
        result = cache.try_prepare(cohort, case, wait)
    except InputError as error:
        return Preparation(case.id, None, error=str(error))
    return None if result is None else Preparation(case.id, result[0], made=result[1])
