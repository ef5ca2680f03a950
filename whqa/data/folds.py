"""Folds for cross-validation: patient-wise, stratified by modality, seeded, kept as JSON beside the runs they made.

The patients of each modality are shuffled and dealt one by one to the fold that has fewest cases of that modality, then
fewest cases at all. So no fold is empty, fold sizes differ by at most one patient a modality, and unlike scikit-learn's
StratifiedGroupKFold the deal works where each modality alone has fewer patients than there are folds.
"""

from __future__ import annotations

import os
import shlex
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from whqa.data.case import Case, Cohort
from whqa.errors import InputError
from whqa.files import read_json, reading, write_json
from whqa.structures import LabelScheme

_NAMED = 5


@dataclass(frozen=True)
class Folds:
    """Case ids fold by fold; disjoint.

    Attributes:
        folds: `folds[k]` are the ids of fold k, sorted.
        seed: that dealt them.
    """

    folds: tuple[tuple[str, ...], ...]
    seed: int

    @property
    def n(self) -> int:
        """Number of folds."""
        return len(self.folds)

    def cases(self, fold: int) -> tuple[str, ...]:
        """Case ids of one fold, sorted."""
        return self.folds[fold]

    def fold_of(self, case_id: str) -> int:
        """Fold of a case.

        Raises:
            InputError: the case is in no fold.
        """
        for fold, cases in enumerate(self.folds):
            if case_id in cases:
                return fold
        raise InputError(f"case {case_id!r} is in no fold")

    def without(self, held_out: Sequence[int]) -> tuple[str, ...]:
        """Case ids of all other folds, sorted: the training cases."""
        return tuple(sorted(chain(*(cases for fold, cases in enumerate(self.folds) if fold not in held_out))))


def make_folds(cohort: Cohort, n: int, seed: int) -> Folds:
    """Deal the labelled cases of a cohort to `n` folds; the same cohort, n and seed give the same folds.

    Raises:
        InputError: fewer than 2 folds, or fewer patients with labels than folds.
    """
    patients = _patients(cohort)
    if n < 2:
        raise InputError(f"{n} fold(s): cross-validation needs at least 2")
    if len(patients) < n:
        raise InputError(
            f"cohort {cohort.name!r}: {len(patients)} labelled patient(s) are fewer than {n} folds; add cases or ask "
            f"for {max(2, len(patients))} folds or fewer"
        )
    order = np.random.default_rng(seed).permutation(len(patients))
    shuffled = [list(patients.values())[i] for i in order]
    dealt: list[list[Case]] = [[] for _ in range(n)]
    # the largest patients first, so that the small ones even out what is left
    for cases in sorted(shuffled, key=lambda cases: (_stratum(cases), -len(cases))):
        stratum = _stratum(cases)
        alike = [sum(c.modality in stratum for c in fold) for fold in dealt]
        dealt[min(range(n), key=lambda k: (alike[k], len(dealt[k]), k))] += cases
    folds = Folds(tuple(tuple(sorted(c.id for c in fold)) for fold in dealt), seed)
    check_folds(folds, cohort, f"cohort {cohort.name!r}")
    return folds


def check_folds(folds: Folds, cohort: Cohort, source: str) -> None:
    """Whether folds are disjoint, cover the labelled cases of the cohort and keep each patient in one fold.

    Raises:
        InputError: they do not; `source` opens the message.
    """
    placed = list(chain(*folds.folds))
    twice = sorted({case for case in placed if placed.count(case) > 1})
    if twice:
        raise InputError(f"{source}: case(s) {twice[:5]} are in more than one fold")
    wanted = {case.id: case for cases in _patients(cohort).values() for case in cases}
    if set(placed) != set(wanted):
        missing, surplus = sorted(set(wanted) - set(placed)), sorted(set(placed) - set(wanted))
        raise InputError(f"{source}: folds do not cover the cohort, missing {missing[:5]}, unknown {surplus[:5]}")
    home: dict[str, int] = {}
    for case in placed:
        fold = folds.fold_of(case)
        if home.setdefault(wanted[case].patient, fold) != fold:
            raise InputError(f"{source}: patient {wanted[case].patient!r} is in more than one fold")
    if not all(folds.folds):
        raise InputError(f"{source}: a fold is empty")


def load_or_make_folds(path: Path, cohort: Cohort, n: int, seed: int, plan: str) -> Folds:
    """Folds of a run directory: read and checked where the file exists, else made and written.

    Several processes may ask at once: the first writer wins, the others read its file.

    Args:
        path: `runs/<experiment>/folds.json`.
        cohort: whose labelled cases are dealt.
        n: number of folds.
        seed: of the deal.
        plan: name of the mask plan; kept so that one run directory holds one plan.

    Raises:
        InputError: as `make_folds`, or the file was made for other cases, n, seed or plan.
    """
    if not path.exists():
        _write_if_absent(path, _record(make_folds(cohort, n, seed), cohort, plan))
    return _read(path, cohort, n, seed, plan)


def _patients(cohort: Cohort) -> dict[str, list[Case]]:
    """Labelled cases by patient, both in a fixed order, whatever order the cohort has."""
    patients: dict[str, list[Case]] = {}
    for case in sorted((c for c in cohort.cases if c.has_label), key=lambda c: (c.patient, c.id)):
        patients.setdefault(case.patient, []).append(case)
    return patients


def _stratum(cases: list[Case]) -> str:
    return "+".join(sorted({case.modality for case in cases}))


def _record(folds: Folds, cohort: Cohort, plan: str) -> dict[str, Any]:
    cases = sorted(chain(*_patients(cohort).values()), key=lambda c: c.id)
    return {
        "cohort": {"name": cohort.name, "structures": list(cohort.scheme.keys), "cases": len(cases)},
        "scheme": _scheme_record(cohort.scheme),
        "plan": plan,
        "seed": folds.seed,
        "patients": {c.id: c.patient for c in cases},
        "modalities": {c.id: c.modality for c in cases},
        "folds": [list(fold) for fold in folds.folds],
    }


def _scheme_record(scheme: LabelScheme) -> dict[str, Any]:
    """For those who judge other people's masks with the run: which value stands for which structure."""
    return {
        "name": scheme.name,
        "values": dict(scheme.values),
        "aliases": {str(value): key for value, key in scheme.aliases.items()},
        "ignored": sorted(scheme.ignored),
    }


def _write_if_absent(path: Path, record: dict[str, Any]) -> None:
    """Written beside, then linked into place: unlike a rename, a link never replaces what another process wrote."""
    temporary = path.parent / f".{uuid.uuid4().hex[:8]}.{path.name}"
    try:
        write_json(temporary, record)
        os.link(temporary, path)
    except FileExistsError:
        pass
    except OSError:
        # file systems without hard links: the content is the same whoever writes it
        write_json(path, record)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path, cohort: Cohort, n: int, seed: int, plan: str) -> Folds:
    found = read_folds(path, f"remove or rename {path.parent}")
    remedy = f"put the former cases back, choose another name=..., or start anew: rm -r {shlex.quote(str(path.parent))}"
    folds = Folds(tuple(tuple(fold) for fold in found["folds"]), found["seed"])
    told = {**found["cohort"], "folds": folds.n, "seed": folds.seed, "plan": found["plan"]}
    wanted = _record(folds, cohort, plan)
    asked = {**wanted["cohort"], "folds": n, "seed": seed, "plan": plan}
    changed = _changes(found, wanted)
    if changed:
        more = f" and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise InputError(f"{path}: made of another cohort ({', '.join(changed[:_NAMED])}{more}); {remedy}")
    for what, value in asked.items():
        if told.get(what) != value:
            raise InputError(f"{path}: made for {what} {told.get(what)!r}, not {value!r}; {remedy}")
    check_folds(folds, cohort, str(path))
    return folds


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between the cohorts of two records, case by case."""
    gone, new = before["patients"].keys() - now["patients"].keys(), now["patients"].keys() - before["patients"].keys()
    lines = [f"case {case} is gone" for case in sorted(gone)] + [f"case {case} is new" for case in sorted(new)]
    for key, what in (("patients", "patient"), ("modalities", "modality")):
        both = sorted(before[key].keys() & now[key].keys())
        lines += [f"{what} of case {case} changed" for case in both if before[key][case] != now[key][case]]
    # the first version of whqa wrote none
    if "scheme" in before and before["scheme"] != now["scheme"]:
        lines.append("values of the labels changed")
    return lines


def read_folds(path: Path, if_missing: str) -> dict[str, Any]:
    """The content of a run's folds.json, whatever cohort it was made of.

    Args:
        path: runs/<experiment>/folds.json.
        if_missing: what the reader should do where there is no such file.

    Returns:
        "cohort" ({"name", "structures", "cases"}), "plan", "seed", "patients" (case -> patient), "modalities" (case ->
        "ct" or "mr"), "folds" (lists of cases) and, but from the first version of whqa, "scheme", the label scheme.

    Raises:
        InputError: there is no such file, or it does not hold a partition of the cases into folds.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, so {path.parent} is no run directory; {if_missing}")
    # the deal follows from the cases and the seed, and every run knows the fold of each case that it saw
    remedy = f"rm {shlex.quote(str(path))}, and the same `whqa cv ...` deals the same folds again"
    with reading(path, "a file of folds", remedy):
        found = read_json(path, remedy)
        wrong = _why_unsound(found)
        if wrong:
            raise ValueError(wrong)
        return dict(found)


def _why_unsound(found: Mapping[str, Any]) -> str | None:
    placed = list(chain(*found["folds"]))
    twice = sorted({case for case in placed if placed.count(case) > 1})
    if twice:
        return f"no partition of the cases: {twice[:5]} in more than one fold"
    if set(placed) != set(found["patients"]) or set(placed) != set(found["modalities"]):
        return "no partition of the cases: folds, patients and modalities name different ones"
    if len(found["folds"]) < 2 or not isinstance(found["seed"], int):
        return "fewer than two folds, or no seed"
    cohort = found["cohort"]
    names = [cohort["name"], found["plan"], *cohort["structures"], *placed]
    names += [*found["patients"].values(), *found["modalities"].values()]
    named = bool(cohort["structures"]) and all(isinstance(name, str) and name for name in names)
    return None if named else "a name is missing"
