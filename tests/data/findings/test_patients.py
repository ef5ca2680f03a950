"""Scans of one person that count as several patients are told from their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from whqa.data.case import Case, Cohort
from whqa.data.findings.patients import patient_findings
from whqa.data.sources.folder import patient_of
from whqa.structures import MMWHS


def _cohort(patients: dict[str, str]) -> Cohort:
    return Cohort("c", tuple(Case(name, who, "ct", Path(f"{name}.nii")) for name, who in patients.items()), MMWHS)


@pytest.mark.parametrize(
    ("names", "person"),
    [
        (("sub-01_ses-01", "sub-01_ses-02", "sub-02_ses-01"), "sub-01"),
        (("a_patient12_ED", "a_patient12_ES", "a_patient1_ED"), "patient12"),
        (("Pat_7a", "Pat_7b"), "Pat_7"),
    ],
)
def test_the_advised_pattern_puts_them_together(names: tuple[str, ...], person: str) -> None:
    (finding,) = patient_findings(_cohort({name: name for name in names}))
    assert (finding.severity, finding.code) == ("warning", "one-person")
    assert finding.message.startswith(f"{person} stands in the names of cases that count as 2 patients: ")
    pattern = finding.message.partition("'patient=\"")[2].removesuffix("\"'")
    assert [patient_of(name, pattern) for name in names[:2]] == [person, person]


def test_persons_that_are_one_patient_or_have_one_scan_are_fine() -> None:
    assert not list(patient_findings(_cohort({"sub-01_a": "1", "sub-01_b": "1", "sub-02_a": "2"})))
    assert not list(patient_findings(_cohort({"sub-01": "x", "sub-011": "y", "scan": "z", "subject": "w"})))
