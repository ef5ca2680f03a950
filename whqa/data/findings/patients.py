"""Cases whose names say that they are of one person, and which yet count as several patients."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from whqa.data.case import Cohort
from whqa.data.findings.finding import Finding

_PERSON = re.compile(r"(?<![a-z0-9])(?:sub|subject|patient|pat)[-_]?[0-9]+(?![0-9])", re.IGNORECASE)


def patient_findings(cohort: Cohort) -> Iterator[Finding]:
    """One line where a name such as sub-01 or patient12 stands in cases of several patients."""
    patients: dict[str, set[str]] = defaultdict(set)
    for case in cohort.cases:
        for person in _PERSON.findall(case.id):
            patients[person].add(case.patient)
    shared = sorted(person for person, found in patients.items() if len(found) > 1)
    if shared:
        more = f" ({len(shared)} such names)" if len(shared) > 1 else ""
        yield Finding(
            "warning",
            "one-person",
            f"{shared[0]} stands in the names of cases that count as {len(patients[shared[0]])} patients{more}: folds "
            "may part one person's scans, and intervals are too narrow; the sources folder, nnunet and decathlon take "
            f"what tells the patient in a name, such as 'patient=\"({re.sub('[0-9]+', '', shared[0])}[0-9]+)\"'",
        )
